"""Labels from a raster of class codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ...core.grid import Grid
from ...core.legend import Legend
from ...errors import GridError, LabelError
from ..gdal import GDAL_ERRORS, open_raster, quiet, reason
from ..handles import Handle
from .base import Labels


@dataclass(frozen=True, eq=False)
class RasterLabels(Labels):
    """Labels in a raster of class codes, opened once in each thread that reads."""

    handle: Handle
    ignore: tuple[int, ...]
    """Codes that mean no label, beside nodata and NaN."""
    unknown: str
    """What to do with codes that nobody knows: 'raise' or 'ignore'."""

    def _ids(self, window: Window) -> NDArray[np.unsignedinteger]:
        try:
            dataset = self.handle.dataset()
            codes = dataset.read(1, window=window)
            labelled = dataset.read_masks(1, window=window) != 0
        except (*GDAL_ERRORS, OSError) as error:
            raise LabelError(
                f"{self.source} cannot be read: {reason(error)}. The file is missing or damaged; fetch or make it again."
            ) from error
        ids = np.full(codes.shape, self.legend.ignore_index, self.legend.id_dtype)
        ids[labelled] = self.legend.encode(
            codes[labelled], ignore=self.ignore, unknown=self.unknown, source=self.source
        )
        return ids


def _open(path: str, grid: Grid | None) -> Any:
    """Dataset of a raster, warped onto a grid if one is given."""
    with quiet():
        stored = open_raster(path)
    return stored if grid is None else _warped(stored, grid)


def _warped(stored: Any, grid: Grid) -> WarpedVRT:
    """A raster seen on another grid, by nearest neighbour; NaN where it has no pixel or no data.

    In float64, which holds every 32-bit code and has, in NaN, a value that is no code.
    """
    height, width = grid.shape
    return WarpedVRT(
        stored,
        crs=grid.crs,
        transform=grid.transform,
        height=height,
        width=width,
        resampling=Resampling.nearest,
        dtype="float64",
        nodata=np.nan,
        tolerance=1e-3,  # pixels; by default positions are off by up to an eighth of one
    )


def open_codes(
    path: str, dataset: Any, grid: Grid, legend: Legend, *, ignore: Sequence[int], unknown: str, resample: bool
) -> RasterLabels:
    """Labels in a raster of class codes.

    Raises
    ------
    LabelError
        It has several bands or complex values; it lies on another grid, and either may not be warped, or one of
        the two has no place on Earth.
    """
    bands = sum(colour != ColorInterp.alpha for colour in dataset.colorinterp)
    if bands != 1:
        raise LabelError(
            f"{path} has {bands} bands; labels have one band of class codes. If it shows classes by colours, turn "
            "each colour into its code first."
        )
    if dataset.dtypes[0].startswith("complex"):
        raise LabelError(f"{path} holds complex numbers ({dataset.dtypes[0]}); labels are whole numbers.")
    own = Grid(dataset.shape, dataset.transform, dataset.crs)
    direct = own.same_pixels(grid) or (not (own.placed and grid.placed) and _alike(own, grid))
    if not direct:
        _check_warp(path, own, grid, resample)
    notes = [*_grid_notes(path, own, grid, direct), *_nodata_notes(path, dataset, legend)]
    return RasterLabels(
        path, legend, grid, tuple(notes), Handle(partial(_open, path, None if direct else grid)), tuple(ignore), unknown
    )


def _alike(own: Grid, grid: Grid) -> bool:
    """Tell whether two grids, one of which has no CRS, have the same pixels in the same units."""
    return Grid(own.shape, own.transform, None).same_pixels(Grid(grid.shape, grid.transform, None))


def _check_warp(path: str, own: Grid, grid: Grid, resample: bool) -> None:
    found = f"labels of shape {own.shape}, transform {tuple(own.transform)[:6]}, CRS {own.crs}"
    wanted = f"the image of shape {grid.shape}, transform {tuple(grid.transform)[:6]}, CRS {grid.crs}"
    if own.crs is None or grid.crs is None or not (own.placed and grid.placed):
        raise LabelError(
            f"{path} does not lie on the image's grid ({found}; {wanted}), and without a CRS on both sides it cannot be "
            "warped onto it. Give both their CRS (rio edit-info --crs), or make labels on the image's own pixels."
        )
    if not resample:
        raise LabelError(
            f"{path} does not lie on the image's grid ({found}; {wanted}). Warp it by nearest neighbour first, or allow "
            "resampling (resample=True)."
        )


def _grid_notes(path: str, own: Grid, grid: Grid, direct: bool) -> Iterator[str]:
    """What a user should know of how the labels come onto the image's grid."""
    if direct:
        if own.crs != grid.crs:
            bare = "the labels have" if own.crs is None else "the image has"
            yield f"{path}: {bare} no CRS; shape and transform agree, so the pixels are taken to be the same."
        return
    try:
        own.window_of(grid.bounds, grid.crs)
    except GridError:
        yield f"{path} does not meet the image, which covers {grid.bounds} in {grid.crs}: it has no labels."
        return
    if own.crs != grid.crs:
        yield f"{path} is in {own.crs}, the image in {grid.crs}: warped onto the image's grid by nearest neighbour."
        return
    step = ~own.transform @ grid.transform  # from the image's pixels to those of the labels
    sizes = np.hypot(step.a, step.d), np.hypot(step.b, step.e)
    if not np.allclose(np.abs([step.a, step.b, step.d, step.e]), [1, 0, 0, 1], atol=1e-3 / max(grid.shape)):
        yield (
            f"{path} has other pixels than the image (one of the image's is {sizes[0]:.3g} × {sizes[1]:.3g} of "
            "its own): resampled onto the image's grid by nearest neighbour."
        )
        return
    shift = [offset - np.round(offset) for offset in (step.c, step.f)]
    if max(np.abs(shift)) > 1e-3:
        yield (
            f"{path} is shifted against the image's pixels by {abs(shift[0]):.2f} pixel in x and {abs(shift[1]):.2f} in "
            "y: resampled onto them by nearest neighbour. Check that the shift is meant."
        )


def _nodata_notes(path: str, dataset: Any, legend: Legend) -> Iterator[str]:
    """Warn of a class that can have no pixels."""
    for info in legend.classes:
        if dataset.nodata == info.code:
            yield f"{path} declares {info.code} ({info.name}) as nodata, so that class has no labels in it."
