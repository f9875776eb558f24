"""Scenes in xarray arrays, in memory or dask's; with `coordinates`, the room that crosses from centres to corners."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.bands import canonical, is_unnamed, reconciled, unnamed
from ...core.grid import Grid, common_grid
from ...errors import BandMismatchError, SceneError, UnsupportedRasterError
from .base import Scene, choose, spectral, stored_nodata, usable
from .coordinates import grid_of

if TYPE_CHECKING:
    import xarray

Y_DIMS = ("y", "lat", "latitude", "northing")
X_DIMS = ("x", "lon", "longitude", "easting")
FILE_BLOCK = 512
"""Side, in pixels, of the blocks of an array that is still in its file, where the file does not tell its own."""
BAND_DIMS = ("band", "bands", "channel", "variable", "wavelength")


def open_array(
    array: "xarray.DataArray | xarray.Dataset",
    *,
    bands: Sequence[str] | Mapping[str, int] | None = None,
    nodata: float | Mapping[str, float] | None = None,
) -> "ArrayScene":
    """Scene of an array (band, y, x) or (y, x), or of a dataset with a variable a band; nothing is computed yet.

    Parameters
    ----------
    array : DataArray or Dataset
        In memory, dask's, or still in its file. Axes go by their usual names (y, lat, northing…); a further
        axis of one step, such as the `time` of a single date, is left out. Variables of a dataset without
        y and x are no bands; the others may differ in type and in nodata (`_FillValue`, `nodata`).
    bands : sequence of str, or mapping of str to int, optional
        As in `open_scene`. Names are otherwise those of `long_name`, of variables, or of the coordinates
        `band`, `common_name` and `title` along the bands, as stackstac and odc-stac have them.
    nodata : float, or mapping of str to float, optional
        Value of all bands, or of each band named, that means no data, whatever the array declares.

    Raises
    ------
    UnsupportedRasterError
        The axes are others, the values are no real numbers, there are none, or no variable has y and x; or what
        an attribute says of them is no number.
    GridError
        The coordinates are not evenly spaced, variables lie on different grids, or the CRS cannot be understood.
    BandMismatchError
        `bands` or `nodata` names what is not there.
    SceneError
        `nodata` is no value of a band's type.
    """
    import xarray

    source = _source(array)
    short = "ds" if isinstance(array, xarray.Dataset) else "da"
    variables = list(_images(array)) if isinstance(array, xarray.Dataset) else [array]
    called = [source if len(variables) == 1 else f"the variable {v.name} of {source}" for v in variables]
    cubes = [_cube(variable, name, short) for variable, name in zip(variables, called, strict=True)]
    layers = [_layer(cube, name) for cube, name in zip(cubes, called, strict=True)]
    grid = common_grid([(name, grid_of(cube, name)) for cube, name in zip(cubes, called, strict=True)])
    stored = [(layer, place) for layer in layers for place in range(layer.count)]
    names, chosen = choose(source, _all_names(cubes), bands)
    declared = [value for cube, name in zip(cubes, called, strict=True) for value in _nodata(cube, name)]
    given = _given(nodata, names, source)
    picks = [
        _pick(*stored[i], given.get(name, declared[i]), name, source, asked=name in given)
        for name, i in zip(names, chosen, strict=True)
    ]
    return ArrayScene(
        source=source,
        grid=grid,
        bands=names,
        dtype=np.result_type(*[pick.layer.dtype for pick in picks]),
        block_shape=_block_shape(cubes[0]),
        tags={key: str(value) for key, value in array.attrs.items() if isinstance(value, (str, int, float))},
        notes=(*_notes(source, grid), *_shifted(source, variables)),
        picks=tuple(picks),
    )


@dataclass(frozen=True, eq=False)
class ArrayScene(Scene):
    """A scene whose pixels lie in arrays; lazy ones are computed window by window."""

    picks: "tuple[_Pick, ...]"
    """Where each band is stored."""

    def _take(self, places: Sequence[int]) -> "ArrayScene":
        picks = tuple(self.picks[i] for i in places)
        view: ArrayScene = self._view(places, picks=picks, dtype=np.result_type(*[pick.layer.dtype for pick in picks]))
        return view

    def _fill(self, window: Window, out: NDArray[Any]) -> NDArray[np.bool_]:
        rows = slice(window.row_off, window.row_off + window.height)
        cols = slice(window.col_off, window.col_off + window.width)
        groups = [(layer, list(group)) for layer, group in groupby(self.picks, key=lambda pick: pick.layer)]
        parts = [layer.cut(rows, cols, [pick.place for pick in group]) for layer, group in groups]
        valid = np.ones(out.shape[1:], np.bool_)
        start = 0
        for (layer, group), values in zip(groups, self._computed(parts, window), strict=True):
            block = out[start : start + len(group)]
            with np.errstate(over="ignore"):
                block[...] = values
            for pick, band in zip(group, values.reshape(block.shape), strict=True):
                if (good := usable(band, pick.nodata, layer.dtype)) is not None:
                    valid &= good
            if layer.dtype == np.float64:
                valid &= np.isfinite(block).all(axis=0)  # what float32 cannot hold
            start += len(group)
        return valid

    def _computed(self, parts: "list[xarray.Variable]", window: Window) -> list[NDArray[Any]]:
        """Numbers of lazy parts, computed at once on the scheduler that is set, else in this thread.

        Windows are read side by side already, so threads within a read would only get in each other's way.
        """
        try:
            if all(part.chunks is None for part in parts):
                return [np.asarray(part.values) for part in parts]
            import dask

            scheduler = dask.config.get("scheduler", None) or "synchronous"
            return [np.asarray(values) for values in dask.compute(*[part.data for part in parts], scheduler=scheduler)]
        except OSError as error:
            raise SceneError(f"{self.source} cannot be read at {window}: {error}") from error


@dataclass(frozen=True, eq=False)
class _Layer:
    """Bands that are stored as one array."""

    data: "xarray.Variable"
    """(band, y, x) or (y, x): numpy's, dask's, or still in its file."""
    dtype: np.dtype[Any]

    @property
    def count(self) -> int:
        """Bands in it."""
        return int(self.data.shape[0]) if self.data.ndim == 3 else 1

    def cut(self, rows: slice, cols: slice, places: list[int]) -> "xarray.Variable":
        """Window of some of its bands."""
        if self.data.ndim == 2:
            return self.data[rows, cols]
        return self.data[slice(None) if places == list(range(self.count)) else places, rows, cols]


@dataclass(frozen=True, eq=False)
class _Pick:
    """One band of a scene: a place, from 0, in a layer."""

    layer: _Layer
    place: int
    nodata: float | int | None


def _source(array: "xarray.DataArray | xarray.Dataset") -> str:
    """What messages call an array or a dataset."""
    named = array.encoding.get("source") or (
        "the dataset" if hasattr(array, "data_vars") else f"the array {array.name or ''}".strip()
    )
    return str(named)


def _images(dataset: "xarray.Dataset") -> "Iterator[xarray.DataArray]":
    """Variables of a dataset that are images, with its grid mapping and CRS."""
    known = dataset.set_coords([name for name, variable in dataset.data_vars.items() if variable.ndim == 0])
    crs = {"crs": dataset.attrs["crs"]} if "crs" in dataset.attrs else {}
    images = [array for array in known.data_vars.values() if None not in _plane(array)]
    if not images:
        listed = ", ".join(f"{name} ({', '.join(map(str, v.dims))})" for name, v in dataset.data_vars.items())
        raise UnsupportedRasterError(
            f"{_source(dataset)} has no variable with the axes y and x; it has {listed or 'no variables at all'}. "
            "Rename its axes first, as in ds.rename(row='y', col='x')."
        )
    for array in images:
        yield array.assign_attrs(crs | array.attrs)


def _plane(array: "xarray.DataArray") -> tuple[Any, Any]:
    """Names of the axes y and x; None where one is missing."""
    y, x = (next((d for d in array.dims if str(d).lower() in known), None) for known in (Y_DIMS, X_DIMS))
    return y, x


def _cube(array: "xarray.DataArray", source: str, short: str) -> "xarray.DataArray":
    """The array as (band, y, x), or (y, x) if it has no axis of bands; `short` is what examples call it."""
    y, x = _plane(array)
    others = [d for d in array.dims if d not in (y, x)]
    extra = [d for d in others if str(d).lower() not in BAND_DIMS]
    long = [d for d in extra if array.sizes[d] != 1]
    if y is None or x is None or long or len(others) - len(extra) > 1:
        remedy = f"Pick one first, as in {short}.isel({long[0]}=0)." if long else "Rename its axes first."
        raise UnsupportedRasterError(
            f"{source} has the axes ({', '.join(map(str, array.dims))}); a scene has (band, y, x) or (y, x). {remedy}"
        )
    if not array.size:
        sizes = ", ".join(f"{name}: {size}" for name, size in array.sizes.items())
        raise UnsupportedRasterError(f"{source} has no values ({sizes}), so there is nothing to classify.")
    cube = array.isel(dict.fromkeys(extra, 0))
    order = [d for d in others if d not in extra] + [y, x]
    names = {old: new for old, new in zip(order, ("band", "y", "x")[-len(order) :], strict=True) if old != new}
    return cube.transpose(*order).rename(names)


def _layer(cube: "xarray.DataArray", source: str) -> _Layer:
    kind = np.dtype(cube.dtype)
    if kind.kind not in "biuf":
        why = (
            "complex numbers, which have no single value to classify" if kind.kind == "c" else f"values of type {kind}"
        )
        raise UnsupportedRasterError(f"{source} holds {why}; convert it to real numbers first.")
    return _Layer(cube.variable, np.dtype(np.uint8) if kind.kind == "b" else kind)


def _all_names(cubes: "Sequence[xarray.DataArray]") -> list[str]:
    """Name of each band of all cubes; '' where there is none."""
    if len(cubes) == 1 and cubes[0].ndim == 3:
        return _names(cubes[0])
    names = []
    for cube in cubes:
        own = _names(cube)
        called = str(cube.name or "")
        # a variable's name is a band's name, unless it only says the band's place
        if cube.ndim == 2 and called and not is_unnamed(called) and (len(cubes) > 1 or not own[0]):
            own = [called]
        names.extend(own)
    return names


def _names(cube: "xarray.DataArray") -> list[str]:
    """Name of each band of a cube, from `long_name` and text coordinates; '' where there is none."""
    count = cube.shape[0] if cube.ndim == 3 else 1
    found = [names for names in (_long_names(cube, count), _texts(cube, "band", count)) if any(names)]
    codes = next((names for names in found if any(map(spectral, canonical(names)))), (found or [[""] * count])[0])
    placed = [code or unnamed(i) for i, code in enumerate(codes, 1)]
    common = next((c for key in ("common_name", "eo:common_name") if any(c := _texts(cube, key, count))), [""] * count)
    names = reconciled(placed, common)
    titles = _texts(cube, "title", count)
    return [title if is_unnamed(name) else name for name, title in zip(names, titles, strict=True)]


def _long_names(cube: "xarray.DataArray", count: int) -> list[str]:
    long_name = cube.attrs.get("long_name")
    said = [long_name] if isinstance(long_name, str) else long_name
    if isinstance(said, (tuple, list)) and len(said) == count:
        return [str(name or "") for name in said]
    return [""] * count


def _texts(cube: "xarray.DataArray", name: str, count: int) -> list[str]:
    """Texts of a coordinate along the bands; '' where it has none."""
    if name not in cube.coords:
        return [""] * count
    values = np.atleast_1d(cube.coords[name].values)
    if values.shape != (count,):
        return [""] * count
    return [str(value) if isinstance(value, str) else "" for value in values.tolist()]


def _nodata(cube: "xarray.DataArray", source: str) -> tuple[float | None, ...]:
    """Value of each band that means no data, as the array declares it."""
    count = cube.shape[0] if cube.ndim == 3 else 1
    # where xarray has applied scale and offset, the encoding's fill is one of the values in the file
    scaled = {"scale_factor", "add_offset"} & cube.encoding.keys()
    for place in (cube.attrs,) if scaled else (cube.attrs, cube.encoding):
        for key in ("_FillValue", "nodata", "missing_value"):
            value = place.get(key)
            if value is not None and np.ndim(value) == 0:
                return (_real(value, key, source),) * count
        values = place.get("nodatavals")  # one a band, as rasterio has them
        if isinstance(values, (tuple, list)) and len(values) == count:
            return tuple(None if value is None else _real(value, "nodatavals", source) for value in values)
    return (None,) * count


def _real(value: Any, key: str, source: str) -> float:
    """Number that an attribute says.

    Raises
    ------
    UnsupportedRasterError
        It is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UnsupportedRasterError(
            f"{source} declares {key}={value!r}, which is no number; correct it, or take it out of the attributes."
        ) from error


def _given(nodata: float | Mapping[str, float] | None, names: Sequence[str], source: str) -> dict[str, float]:
    """What the user says of each band's nodata."""
    if nodata is None:
        return {}
    if not isinstance(nodata, Mapping):
        return dict.fromkeys(names, float(nodata))
    said = dict(zip(canonical(list(nodata)), map(float, nodata.values()), strict=True))
    if strange := [name for name in said if name not in names]:
        raise BandMismatchError(
            f"nodata was given for {', '.join(strange)}, which {source} does not have; its bands are {', '.join(names)}."
        )
    return said


def _pick(layer: _Layer, place: int, nodata: float | None, name: str, source: str, *, asked: bool) -> _Pick:
    value = stored_nodata(nodata, layer.dtype)
    if asked and nodata is not None and np.isfinite(nodata) and value is None:
        raise SceneError(
            f"nodata {nodata:g} was given for {source}, whose band {name} ({layer.dtype}) cannot hold it; leave it out "
            "to take what the array declares, or give each band its own, as in nodata={'" + name + "': …}."
        )
    return _Pick(layer, place, value)


def _block_shape(cube: "xarray.DataArray") -> tuple[int, int]:
    height, width = cube.shape[-2:]
    if cube.chunks is not None:
        return max(cube.chunks[-2]), max(cube.chunks[-1])
    if cube.variable._in_memory:
        return height, width
    stored = cube.encoding.get("preferred_chunks", {})
    return min(stored.get("y", FILE_BLOCK), height), min(stored.get("x", FILE_BLOCK), width)


def _notes(source: str, grid: Grid) -> list[str]:
    if grid.crs is None and grid.transform.is_identity:
        return [f"{source} has no place on Earth (no CRS, no coordinates); outputs have none either."]
    if grid.crs is None:
        return [f"{source} has no CRS; outputs have none either, and areas are not known in metres."]
    return []


def _shifted(source: str, variables: "Sequence[xarray.DataArray]") -> Iterator[str]:
    """Tell of an offset that xarray was not asked to apply."""
    for variable in variables:
        said = {"add_offset": 0.0, "scale_factor": 1.0} | variable.attrs
        if np.ndim(said["add_offset"]) or np.ndim(said["scale_factor"]):  # one a band
            continue
        offset, scale = (_real(said[key], key, source) for key in ("add_offset", "scale_factor"))
        if offset != 0:
            yield (
                f"{source} declares an offset ({variable.name or 'value'} = stored × {scale:g} + {offset:g}), which is not "
                "applied: pixels are read as stored."
            )
            return
