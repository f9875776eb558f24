"""A raster of labels on the image's grid: read as it is where it lies there, else warped by nearest neighbour."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ...core.grid import Grid
from ...errors import GridError, LabelError
from ..gdal import GDAL_ERRORS, damage, hearing, network, open_raster, quiet, reason, refusals, remedy
from ..handles import Handle


@dataclass(frozen=True, eq=False)
class PlacedBands:
    """Bands of a raster on the image's grid, opened once in each thread that reads."""

    path: str
    bands: tuple[int, ...]
    """Indexes in the file, from 1."""
    alpha: int | None
    """Index of the band that is 0 where there is no label."""
    nodata: float | None
    """As the file declares it."""
    warped: bool
    handle: Handle

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (B, H, W) of a window inside the image, and where there are any, (H, W).

        Raises
        ------
        LabelError
            The file cannot be read; the message names it.
        """
        with readable(self.path):
            dataset = self.handle.dataset()
            if not self.warped:
                return labelled(dataset, self.bands, self.alpha, window=window)
            values = dataset.read(list(self.bands), window=window)
        there = ~np.isnan(values)  # NaN is what has no pixel or no data
        if self.nodata is not None:  # in one band alone it is a value
            values = np.where(there, values, self.nodata)
        return values, there.any(axis=0)


def labelled(
    dataset: Any, bands: Sequence[int], alpha: int | None, **options: Any
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values (B, H, W) as an open file stores them, and where alpha, a mask or nodata let at least one through."""
    values = dataset.read(list(bands), **options)
    if alpha is None:
        there = (dataset.read_masks(list(bands), **options) != 0).any(axis=0)
    else:
        there = dataset.read(alpha, **options) != 0
        if dataset.nodata is not None:  # which rasterio does not mix with alpha
            nan = np.isnan(dataset.nodata)
            there &= ~(np.isnan(values) if nan else values == dataset.nodata).all(axis=0)
    return values, there


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Name a file that GDAL cannot read, or of which it makes up what is lost.

    Raises
    ------
    LabelError
        It cannot be read.
    """
    try:
        with hearing() as heard, network(path):
            yield
    except (*GDAL_ERRORS, OSError) as error:
        raise _unreadable(path, "; ".join([reason(error), *refusals(heard)])) from error
    if lost := damage(heard):
        raise _unreadable(path, lost)


def _unreadable(path: str, why: str) -> LabelError:
    return LabelError(f"{path} cannot be read: {why}. {remedy(path)}")


def place(
    path: str, dataset: Any, bands: Sequence[int], alpha: int | None, grid: Grid, *, resample: bool
) -> tuple[PlacedBands, tuple[str, ...]]:
    """Bands of an open raster on the image's grid, and what a user should know of how they come there.

    Raises
    ------
    LabelError
        It lies on another grid, and either may not be warped, or one of the two has no place on Earth.
    """
    own = Grid(dataset.shape, dataset.transform, dataset.crs)
    direct = _direct(own, grid)
    if not direct:
        _check_warp(path, own, grid, resample)
    handle = Handle(partial(_open, path, None if direct else grid))
    placed = PlacedBands(path, tuple(bands), alpha, dataset.nodata, not direct, handle)
    return placed, tuple(sentence for _, sentence in mismatches(path, own, grid))


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


Mismatch: TypeAlias = Literal["crs-missing", "no-overlap", "crs", "pixels", "shift"]


def mismatches(path: str, own: Grid, grid: Grid) -> Iterator[tuple[Mismatch, str]]:
    """How labels on a grid of their own differ from the image's grid, and a sentence on what is done about it."""
    if _direct(own, grid):
        if own.crs != grid.crs:
            bare = "the labels have" if own.crs is None else "the image has"
            yield (
                "crs-missing",
                f"{path}: {bare} no CRS; shape and transform agree, so the pixels are taken to be the same.",
            )
        return
    try:
        own.window_of(grid.bounds, grid.crs)
    except GridError:
        yield (
            "no-overlap",
            f"{path} does not meet the image, which covers {grid.bounds} in {grid.crs}: it has no labels.",
        )
        return
    if own.crs != grid.crs:
        yield (
            "crs",
            f"{path} is in {own.crs}, the image in {grid.crs}: warped onto the image's grid by nearest neighbour.",
        )
        return
    step = ~own.transform @ grid.transform  # from the image's pixels to those of the labels
    sizes = np.hypot(step.a, step.d), np.hypot(step.b, step.e)
    if not np.allclose(np.abs([step.a, step.b, step.d, step.e]), [1, 0, 0, 1], atol=1e-3 / max(grid.shape)):
        yield (
            "pixels",
            (
                f"{path} has other pixels than the image (one of the image's is {sizes[0]:.3g} × {sizes[1]:.3g} of "
                "its own): resampled onto the image's grid by nearest neighbour."
            ),
        )
        return
    shift = [offset - np.round(offset) for offset in (step.c, step.f)]
    if max(np.abs(shift)) > 1e-3:
        yield (
            "shift",
            (
                f"{path} is shifted against the image's pixels by {abs(shift[0]):.2f} pixel in x and {abs(shift[1]):.2f} in "
                "y: resampled onto them by nearest neighbour. Check that the shift is meant."
            ),
        )


def _direct(own: Grid, grid: Grid) -> bool:
    """True if the pixels of labels are the image's own."""
    return own.same_pixels(grid) or (not (own.placed and grid.placed) and _alike(own, grid))


def image_bands(dataset: Any) -> tuple[list[int], int | None]:
    """Indexes of the bands that are no alpha, and that of the alpha band."""
    alpha = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind == ColorInterp.alpha]
    return [i for i in dataset.indexes if i not in alpha], (alpha[0] if alpha else None)
