"""What is known of a raster file before its pixels are read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from ...core.grid import Control, ControlPoint, Grid
from ...errors import SceneError, UnsupportedRasterError
from ..gdal import GDAL_ERRORS, is_remote, network, open_raster, quiet, reason
from ..handles import Handle
from .base import spectral

USUAL_FILLS = (-9999, -99999, -32768)
"""Values that hardly ever measure anything; Landsat Collection 1, HLS and most elevation models fill with them."""

MOST_LOOKED_AT = 512
"""Side of the corner in which a usual fill value is looked for, in pixels."""

_MERE_NUMBER = re.compile(r"(?:band|layer)[ _]?\d+", re.IGNORECASE)  # ENVI's and ERDAS's way of giving no name


@dataclass(frozen=True, eq=False)
class Raster:
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


def look(path: str, stated: bool = False) -> Raster:
    """Open a file and learn what it is.

    Parameters
    ----------
    path : str
        Anything GDAL opens.
    stated : bool
        True if the user says what nodata is, so that there is nothing to be noted about it.

    Raises
    ------
    SceneError
        The file is missing, is no raster, or holds others without being one.
    UnsupportedRasterError
        It has no bands.
    """
    with quiet(), network(path):
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
        return Raster(
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
            notes=(*_file_notes(path, dataset, grid), *([] if stated else _undeclared(path, dataset))),
        )


def _open(path: str, bare: bool) -> Any:
    """Dataset of a file; one without a place opens without a warning."""
    with quiet() if bare else nullcontext():
        return open_raster(path)


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
    if declared or dataset.dtypes[0].startswith(("u", "complex")) or is_remote(path):
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
