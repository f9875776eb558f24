"""Scenes in xarray arrays, in memory or dask's; the only room that crosses from pixel centres to corners."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from ...core.grid import Grid
from ...errors import GridError, SceneError, UnsupportedRasterError
from .base import Scene, choose, stored_nodata, usable

if TYPE_CHECKING:
    import xarray

Y_DIMS = ("y", "lat", "latitude", "northing")
X_DIMS = ("x", "lon", "longitude", "easting")
BAND_DIMS = ("band", "bands", "channel", "variable", "wavelength")

EVEN = 0.01
"""Coordinates may stray from even spacing by this part of a pixel; text in files rounds them."""


def open_array(
    array: "xarray.DataArray",
    *,
    bands: Sequence[str] | Mapping[str, int] | None = None,
    nodata: float | None = None,
) -> "ArrayScene":
    """Scene of an array (band, y, x) or (y, x); nothing is computed yet.

    Raises
    ------
    UnsupportedRasterError
        The axes are others, or the values are no real numbers.
    GridError
        The coordinates are not evenly spaced, or the CRS cannot be understood.
    """
    if not hasattr(array, "dims") or hasattr(array, "data_vars"):
        raise UnsupportedRasterError(
            "a Dataset has a variable a band; stack them first, as in "
            "ds.to_array('band'), and pass the DataArray that comes back."
        )
    source = str(array.encoding.get("source") or f"the array {array.name or ''}".strip())
    cube = _cube(array, source)
    kind = np.dtype(cube.dtype)
    if kind.kind not in "biuf":
        why = (
            "complex numbers, which have no single value to classify" if kind.kind == "c" else f"values of type {kind}"
        )
        raise UnsupportedRasterError(f"{source} holds {why}; convert it to real numbers first.")
    stored = np.dtype(np.uint8) if kind.kind == "b" else kind
    names, chosen = choose(source, _names(cube), bands)
    declared = _nodata(cube) if nodata is None else (nodata,) * cube.shape[0]
    grid = _grid(cube, source)
    return ArrayScene(
        source=source,
        grid=grid,
        bands=names,
        dtype=stored,
        block_shape=_block_shape(cube),
        tags={key: str(value) for key, value in cube.attrs.items() if isinstance(value, (str, int, float))},
        notes=tuple(_notes(source, grid)),
        data=cube.data,
        places=tuple(chosen),
        nodata=tuple(stored_nodata(declared[i], stored) for i in chosen),
    )


@dataclass(frozen=True, eq=False)
class ArrayScene(Scene):
    """A scene whose pixels lie in an array; a dask array is computed window by window."""

    data: Any
    """(band, y, x), numpy's or dask's."""
    places: tuple[int, ...]
    """Where each band stands in `data`, from 0."""
    nodata: tuple[float | int | None, ...]

    def _take(self, places: Sequence[int]) -> "ArrayScene":
        view: ArrayScene = self._view(
            places, places=tuple(self.places[i] for i in places), nodata=tuple(self.nodata[i] for i in places)
        )
        return view

    def _fill(self, window: Window, out: NDArray[np.float32]) -> NDArray[np.bool_]:
        rows = slice(window.row_off, window.row_off + window.height)
        cols = slice(window.col_off, window.col_off + window.width)
        bands = slice(None) if self.places == tuple(range(self.data.shape[0])) else list(self.places)
        values = self._computed(self.data[:, rows, cols][bands], window)
        with np.errstate(over="ignore"):
            out[...] = values
        valid = np.ones(out.shape[1:], np.bool_)
        for band, nodata in zip(values, self.nodata, strict=True):
            if (good := usable(band, nodata, self.dtype)) is not None:
                valid &= good
        if self.dtype == np.float64:
            valid &= np.isfinite(out).all(axis=0)  # what float32 cannot hold
        return valid

    def _computed(self, part: Any, window: Window) -> NDArray[Any]:
        """Numbers of a lazy part, computed on the scheduler that is set, else in this thread.

        Windows are read side by side already, so threads within a read would only get in each other's way.
        """
        if not hasattr(part, "dask"):
            return np.asarray(part)
        import dask

        try:
            return np.asarray(part.compute(scheduler=dask.config.get("scheduler", None) or "synchronous"))
        except OSError as error:
            raise SceneError(f"{self.source} cannot be read at {window}: {error}") from error


def _cube(array: "xarray.DataArray", source: str) -> "xarray.DataArray":
    """The array as (band, y, x)."""
    y, x = (next((d for d in array.dims if str(d).lower() in known), None) for known in (Y_DIMS, X_DIMS))
    others = [d for d in array.dims if d not in (y, x)]
    if y is None or x is None or len(others) > 1 or (others and str(others[0]).lower() not in BAND_DIMS):
        extra = next((d for d in others if str(d).lower() not in BAND_DIMS), None)
        remedy = f"Pick one first, as in da.isel({extra}=0)." if extra is not None else "Rename its axes first."
        raise UnsupportedRasterError(
            f"{source} has the axes ({', '.join(map(str, array.dims))}); a scene has (band, y, x) or (y, x). {remedy}"
        )
    band = others[0] if others else "band"
    cube = array if others else array.expand_dims("band")
    return cube.transpose(band, y, x).rename(
        {band: "band", y: "y", x: "x"} if (band, y, x) != ("band", "y", "x") else {}
    )


def _names(cube: "xarray.DataArray") -> list[str]:
    """Name of each band, from `long_name` or text coordinates; '' where there is none."""
    count = cube.shape[0]
    long_name = cube.attrs.get("long_name")
    if isinstance(long_name, str) and count == 1:
        return [long_name]
    if isinstance(long_name, (tuple, list)) and len(long_name) == count:
        return [str(name or "") for name in long_name]
    if "band" in cube.coords:
        values = np.atleast_1d(cube["band"].values)
        if values.dtype.kind in "UOT":
            return [str(value) for value in values]
    return [""] * count


def _nodata(cube: "xarray.DataArray") -> tuple[float | None, ...]:
    count = cube.shape[0]
    for place in (cube.attrs, cube.encoding):
        for key in ("_FillValue", "nodata", "missing_value"):
            value = place.get(key)
            if value is not None and np.ndim(value) == 0:
                return (float(value),) * count
        values = place.get("nodatavals")  # one a band, as rasterio has them
        if isinstance(values, (tuple, list)) and len(values) == count:
            return tuple(None if value is None else float(value) for value in values)
    return (None,) * count


def _mapping(cube: "xarray.DataArray") -> Mapping[str, Any]:
    """Attributes of the CF grid mapping, wherever it is."""
    named = cube.encoding.get("grid_mapping") or cube.attrs.get("grid_mapping")
    for name in (named, "spatial_ref", "crs", "transverse_mercator"):
        if name and name in cube.coords:
            return dict(cube.coords[name].attrs)
    return {}


def _grid(cube: "xarray.DataArray", source: str) -> Grid:
    mapping = _mapping(cube)
    height, width = cube.shape[1:]
    text = next((mapping[k] for k in ("crs_wkt", "spatial_ref") if mapping.get(k)), None) or cube.attrs.get("crs")
    try:
        crs = CRS.from_user_input(re.sub(r"^\+init=", "", text) if isinstance(text, str) else text) if text else None
    except CRSError as error:
        raise GridError(f"the CRS of {source} cannot be understood: {text!r}.") from error
    return Grid((height, width), _transform(cube, mapping.get("GeoTransform"), source), crs)


def _transform(cube: "xarray.DataArray", geotransform: str | None, source: str) -> Affine:
    """Corner transform, from pixel centres along the axes; from the attribute where it says the same or more."""
    stated = None
    if geotransform:
        numbers = geotransform.split() if isinstance(geotransform, str) else geotransform
        stated = Affine.from_gdal(*(float(number) for number in numbers))
    axes = [cube.coords[dim].values if dim in cube.coords else None for dim in ("x", "y")]
    if any(axis is None or axis.ndim != 1 or axis.dtype.kind not in "iuf" for axis in axes):
        return stated or Affine.identity()
    if stated is not None and (stated.b or stated.d):
        return stated
    fallback = (stated.a, stated.e) if stated is not None else (None, None)
    (x0, dx), (y0, dy) = (
        _spacing(np.asarray(axis, float), step, name, source)
        for axis, step, name in zip(axes, fallback, ("x", "y"), strict=True)
    )
    if dx is None and dy is None:
        return stated or Affine.identity()
    if dx is None or dy is None:  # one column or row: square pixels, north up
        side = abs(dx or dy or 1.0)
        dx, dy = dx or side, dy or -side
    found = Affine(dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2)
    # the attribute has all digits, but does not follow when the array is cropped
    if stated is not None and np.allclose(~found @ (stated.c, stated.f), (0, 0), atol=EVEN):
        return stated
    return found


def _spacing(axis: NDArray[np.float64], stated: float | None, name: str, source: str) -> tuple[float, float | None]:
    """First centre and step of an axis; the step stated, or None, where there is only one pixel."""
    if len(axis) == 1:
        return float(axis[0]), stated
    step = float((axis[-1] - axis[0]) / (len(axis) - 1))
    stray = np.abs(axis - (axis[0] + step * np.arange(len(axis)))).max()
    if step == 0 or not stray <= EVEN * abs(step):
        raise GridError(
            f"the {name} coordinates of {source} are not evenly spaced (they stray by {stray:g} at a step of {step:g}); "
            "a scene is a regular grid. Interpolate or reproject it first."
        )
    return float(axis[0]), step


def _block_shape(cube: "xarray.DataArray") -> tuple[int, int]:
    height, width = cube.shape[1:]
    if cube.chunks is None:
        return height, width
    return max(cube.chunks[1]), max(cube.chunks[2])


def _notes(source: str, grid: Grid) -> list[str]:
    if grid.crs is None and grid.transform.is_identity:
        return [f"{source} has no place on Earth (no CRS, no coordinates); outputs have none either."]
    if grid.crs is None:
        return [f"{source} has no CRS; outputs have none either, and areas are not known in metres."]
    return []
