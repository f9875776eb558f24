"""Scenes in files: one raster of any kind GDAL opens, or several stacked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from ...core.grid import Control, ControlPoint, Grid, common_grid
from ...errors import SceneError, UnsupportedRasterError
from ..gdal import GDAL_ERRORS, hearing, open_raster, quiet, reason
from ..handles import Handle
from .base import Scene, choose, spectral, stored_nodata, usable

USUAL_FILLS = (-9999, -99999, -32768)
"""Values that hardly ever measure anything; Landsat Collection 1, HLS and most elevation models fill with them."""

MOST_LOOKED_AT = 512
"""Side of the corner in which a usual fill value is looked for, in pixels."""

RASTER_SUFFIXES = frozenset([".tif", ".tiff", ".jp2", ".vrt", ".img", ".dat", ".bil", ".bsq"])
"""What is taken for a band when a folder is opened; products keep previews beside them as PNG and JPEG."""

_PRODUCT_BAND = re.compile(r"(?:^|[_.-])((?:SR_|ST_)?B(?:8A|\d{1,2}))(?=[_.-]|$)", re.IGNORECASE)
_MERE_NUMBER = re.compile(r"(?:band|layer)[ _]?\d+", re.IGNORECASE)  # ENVI's and ERDAS's way of giving no name
_DAMAGE = re.compile(r"corrupt|premature end|truncated", re.IGNORECASE)


def open_files(
    source: str,
    paths: Sequence[str],
    *,
    bands: Sequence[str] | Mapping[str, int] | None = None,
    nodata: float | None = None,
) -> "FileScene":
    """Scene of one raster, or of several whose bands are stacked in the order given.

    Raises
    ------
    SceneError
        A file is missing, or is no raster that GDAL can read.
    UnsupportedRasterError
        A band is complex.
    GridError
        The files lie on different grids.
    BandMismatchError
        `bands` does not fit the files.
    """
    if "" in paths:
        raise SceneError("a scene was given an empty name; name a file, a folder or a pattern.")
    rasters = [_look(path, nodata) for path in paths]
    grid = common_grid([(raster.path, raster.grid) for raster in rasters])
    stored = [(raster, band) for raster in rasters for band in range(len(raster.dtypes))]
    alpha = [i for i, (raster, band) in enumerate(stored) if band == raster.alpha]
    names, chosen = choose(source, _names(rasters), bands, alpha)
    picks = []
    for raster, band in (stored[i] for i in chosen):
        dtype = raster.dtypes[band]
        if dtype.kind == "c":
            raise UnsupportedRasterError(
                f"{raster.path} holds complex numbers ({dtype}) in band {band + 1}, which have no single value to "
                "classify. Compute the amplitude, or whichever part is meant, into a new raster first."
            )
        declared = raster.nodata[band] if nodata is None else nodata
        if nodata is not None and np.isfinite(nodata) and stored_nodata(nodata, dtype) is None:
            raise SceneError(
                f"nodata {nodata:g} was given for {raster.path}, whose band {band + 1} ({dtype}) cannot hold it; leave "
                "it out to take what the file declares."
            )
        picks.append(_Pick(raster, band + 1, dtype, stored_nodata(declared, dtype)))
    shown = {(pick.raster.path, pick.index - 1) for pick in picks}
    first = rasters[0]
    return FileScene(
        source=source,
        grid=grid,
        bands=names,
        dtype=np.result_type(*[pick.dtype for pick in picks]),
        block_shape=first.block_shape,
        tags=first.tags,
        notes=tuple(_notes(rasters, shown)),
        picks=tuple(replace(pick, alpha=_alpha_of(pick.raster, shown)) for pick in picks),
    )


@dataclass(frozen=True, eq=False)
class FileScene(Scene):
    """A scene whose pixels lie in files, opened once in each thread that reads."""

    picks: "tuple[_Pick, ...]"
    """Where each band is stored."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that the bands lie in, in their order, each once."""
        return tuple(dict.fromkeys(pick.raster.path for pick in self.picks))

    @property
    def origin(self) -> dict[str, Any]:
        """File, number from 1 and nodata of each band."""
        rows = [
            {"name": name, "file": pick.raster.path, "index": pick.index, "nodata": pick.nodata}
            for name, pick in zip(self.bands, self.picks, strict=True)
        ]
        return {"bands": rows}

    def _take(self, places: Sequence[int]) -> "FileScene":
        picks = tuple(self.picks[i] for i in places)
        view: FileScene = self._view(places, picks=picks, dtype=np.result_type(*[pick.dtype for pick in picks]))
        return view

    def _fill(self, window: Window, out: NDArray[np.float32]) -> NDArray[np.bool_]:
        valid = np.ones(out.shape[1:], np.bool_)
        start = 0
        # rasterio reads bands of one type at a time
        for (raster, _), group in groupby(self.picks, key=lambda pick: (pick.raster, pick.dtype)):
            picks = list(group)
            _read(raster, picks, window, out[start : start + len(picks)], valid)
            start += len(picks)
        return valid


@dataclass(frozen=True, eq=False)
class _Raster:
    """What is known of a file without reading its pixels."""

    path: str
    handle: Handle
    grid: Grid
    dtypes: tuple[np.dtype[Any], ...]
    nodata: tuple[float | None, ...]
    descriptions: tuple[str, ...]
    block_shape: tuple[int, int]
    tags: Mapping[str, str]
    alpha: int | None
    """Band, from 0, that says where the others are valid."""
    shared_mask: bool
    """True if one mask inside or beside the file holds for all bands."""
    own_masks: frozenset[int]
    """Bands, from 1, with a mask of their own that is not made from nodata."""
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Pick:
    """One band of a scene: a band, from 1, of a file."""

    raster: _Raster
    index: int
    dtype: np.dtype[Any]
    nodata: float | int | None
    alpha: int | None = None
    """Band, from 1, to take validity from."""


def _open(path: str, bare: bool) -> Any:
    """Dataset of a file; one without a place opens without a warning."""
    with quiet() if bare else nullcontext():
        return open_raster(path)


def _read(
    raster: _Raster, picks: Sequence[_Pick], window: Window, out: NDArray[np.float32], valid: NDArray[np.bool_]
) -> None:
    """Write the pixels of some bands of one file to `out`, and clear `valid` where one of them cannot be used."""
    indexes = [pick.index for pick in picks]
    native = picks[0].dtype
    try:
        with hearing() as heard:
            dataset = raster.handle.dataset()
            # nodata is compared in the file's type, before float32 rounds it; that is the fastest way, too
            values = dataset.read(indexes, window=window, out=out if native == np.float32 else None)
            if (alpha := picks[0].alpha) is not None:
                valid &= dataset.read(alpha, window=window) != 0
            for index in [1] if raster.shared_mask else sorted(raster.own_masks.intersection(indexes)):
                valid &= dataset.read_masks(index, window=window) != 0
    except (*GDAL_ERRORS, OSError) as error:
        raise _unreadable(raster.path, window, reason(error)) from error
    damage = next((text for text in heard if _DAMAGE.search(text)), None)
    if damage:
        raise _unreadable(raster.path, window, damage)
    if values is not out:
        with np.errstate(over="ignore"):
            out[...] = values
    for band, pick in zip(values, picks, strict=True):
        if (good := usable(band, pick.nodata, pick.dtype)) is not None:
            valid &= good
    if native == np.float64:
        valid &= np.isfinite(out).all(axis=0)  # what float32 cannot hold


def _unreadable(path: str, window: Window, why: str) -> SceneError:
    rows = f"rows {window.row_off} to {window.row_off + window.height - 1}"
    cols = f"columns {window.col_off} to {window.col_off + window.width - 1}"
    return SceneError(
        f"{path} cannot be read at {rows}, {cols}: {why}. "
        "The file, or one that it refers to, is missing or damaged; fetch or make it again."
    )


def _look(path: str, nodata: float | None) -> _Raster:
    """Open a file and learn what it is; `nodata` is what the user says of it."""
    with quiet():
        try:
            dataset = open_raster(path)
        except (*GDAL_ERRORS, OSError) as error:
            raise _unopened(path, reason(error)) from error
    with dataset:
        if dataset.count == 0:
            raise _bandless(path, list(dataset.subdatasets))
        flags = dataset.mask_flag_enums
        descriptions = tuple(_description(text) for text in dataset.descriptions)
        alpha = _alpha(dataset, descriptions)
        grid = _grid(dataset)
        per_dataset = [MaskFlags.per_dataset in flag and MaskFlags.alpha not in flag for flag in flags]
        return _Raster(
            path=path,
            handle=Handle(partial(_open, path, bare=grid.transform.is_identity)),
            grid=grid,
            dtypes=tuple(np.dtype(_DTYPES.get(name, name)) for name in dataset.dtypes),
            nodata=tuple(dataset.nodatavals),
            descriptions=descriptions,
            block_shape=dataset.block_shapes[0],
            tags=dict(dataset.tags()),
            alpha=alpha,
            shared_mask=per_dataset[0],
            own_masks=frozenset(i for i, flag in enumerate(flags, 1) if not flag),
            notes=(*_file_notes(path, dataset, grid), *([] if nodata is not None else _undeclared(path, dataset))),
        )


_DTYPES = {"complex_int16": "complex64"}  # GDAL's CInt16 has no numpy type


def _description(text: str | None) -> str:
    text = (text or "").strip()
    return "" if _MERE_NUMBER.fullmatch(text) else text


def _alpha(dataset: Any, descriptions: Sequence[str]) -> int | None:
    """Band, from 0, that is marked alpha and is not called by the name of a light."""
    for place, (kind, name) in enumerate(zip(dataset.colorinterp, descriptions, strict=True)):
        if kind == ColorInterp.alpha and dataset.count > 1 and not spectral(name):
            return place
    return None


def _alpha_of(raster: _Raster, shown: set[tuple[str, int]]) -> int | None:
    """Band, from 1, of a file's validity, unless the scene shows it as an image band."""
    return None if raster.alpha is None or (raster.path, raster.alpha) in shown else raster.alpha + 1


def _grid(dataset: Any) -> Grid:
    points, crs = dataset.gcps
    control = None
    if points or dataset.rpcs:
        known = tuple(
            ControlPoint(p.row, p.col, p.x, p.y, p.z or 0.0, str(p.id or ""), str(p.info or "")) for p in points
        )
        control = Control(known, crs if points else None, dataset.rpcs)
    point = str(dataset.tags().get("AREA_OR_POINT", "Area")).lower() == "point"
    return Grid(dataset.shape, dataset.transform, dataset.crs, control, "Point" if point else "Area")


def _names(rasters: Sequence[_Raster]) -> list[str]:
    """Name of every stored band, by its description, else by the product's token in its file's name; '' if neither."""
    tokens = [_PRODUCT_BAND.findall(Path(raster.path).stem)[-1:] for raster in rasters]
    said = [token[0] for token in tokens if token]
    clear = len(rasters) > 1 and len({token.lower() for token in said}) == len(said)
    names = []
    for raster, token in zip(rasters, tokens, strict=True):
        if clear and token and len(raster.dtypes) == 1 and not raster.descriptions[0]:
            names.append(token[0])
        else:
            names.extend(raster.descriptions)
    return names


def _file_notes(path: str, dataset: Any, grid: Grid) -> Iterator[str]:
    """What deserves a warning about one file."""
    bare = grid.transform.is_identity
    if grid.control and grid.control.points and bare:
        yield (
            f"{path} is placed by {len(grid.control.points)} ground control points only; they are carried to outputs, "
            "but areas and polygons need a warped raster (gdalwarp)."
        )
    elif grid.control and grid.control.rpcs and bare:
        yield (
            f"{path} is placed by rational polynomials (RPCs) only; they are carried to outputs, "
            "but areas and polygons need an orthorectified raster (gdalwarp -rpc)."
        )
    elif bare:
        yield f"{path} has no place on Earth (no CRS, no transform); outputs have none either."
    elif grid.crs is None:
        yield f"{path} has no CRS; outputs have none either, and areas are not known in metres."
    if ColorInterp.palette in dataset.colorinterp:
        yield f"{path} holds indices into a palette, which are not reflectance or brightness."
    pages = [name for name in dataset.subdatasets if name.startswith("GTIFF_DIR:")]
    if len(pages) > 1:
        yield f"{path} has {len(pages)} pages; only the first is read. Others open as {pages[1]}."
    if any(offset != 0 for offset in dataset.offsets):
        yield (
            f"{path} declares an offset (value = stored × {dataset.scales[0]:g} + {dataset.offsets[0]:g}), "
            "which is not applied: pixels are read as stored."
        )


def _undeclared(path: str, dataset: Any) -> Iterator[str]:
    """A usual fill value in the first block of a local file that declares no nodata."""
    declared = dataset.nodatavals[0] is not None or MaskFlags.all_valid not in dataset.mask_flag_enums[0]
    if declared or dataset.dtypes[0].startswith(("u", "complex")) or "://" in path or path.startswith("/vsi"):
        return
    height, width = (min(side, MOST_LOOKED_AT) for side in dataset.block_shapes[0])
    with suppress(*GDAL_ERRORS, OSError):  # a damaged block is told of when it is read for good
        block = dataset.read(1, window=Window(0, 0, min(width, dataset.width), min(height, dataset.height)))
        found = next((fill for fill in USUAL_FILLS if (block == fill).any()), None)
        if found is not None:
            yield (
                f"{path} holds {found:g} and declares no nodata, so such pixels count as valid; "
                f"if they are none, pass --nodata {found:g}."
            )


def _notes(rasters: Sequence[_Raster], shown: set[tuple[str, int]]) -> Iterator[str]:
    for raster in rasters:
        yield from raster.notes
        if raster.alpha is not None and (raster.path, raster.alpha) not in shown:
            yield (
                f"{raster.path} marks band {raster.alpha + 1} as alpha, so it says which pixels are valid and is no "
                "image band; if it holds light (near infrared, say), name all bands, as in --bands red,green,blue,nir."
            )


def _unopened(path: str, why: str) -> SceneError:
    file = Path(path)
    with suppress(OSError, ValueError):
        if file.is_file():
            if file.stat().st_size == 0:
                return SceneError(f"{path} is empty (0 bytes); fetch or make it again.")
            with file.open("rb") as stream:
                head = stream.read(512).lstrip().lower()
            if head.startswith((b"<!doctype html", b"<html")):
                return SceneError(
                    f"{path} is a web page, not a raster: what was downloaded may be an error page or a login form."
                )
        elif "No such file" in why:
            return SceneError(f"{path} does not exist; check the name.")
    if "not recognized" in why:
        why = "GDAL knows no raster format that its content fits"
    return SceneError(f"{path} cannot be opened as a raster: {why.removeprefix(f'{path}: ')}.")


def _bandless(path: str, subdatasets: Sequence[str]) -> SceneError | UnsupportedRasterError:
    if not subdatasets:
        return UnsupportedRasterError(f"{path} has no bands, so there is nothing to classify.")
    listed = "".join(f"\n  {name}" for name in subdatasets)
    return SceneError(f"{path} is a container without bands of its own. Open one of its subdatasets:{listed}")
