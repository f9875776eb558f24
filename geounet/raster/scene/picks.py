"""One band of a file, read onto the grid of a scene: as it is stored, or brought from a grid of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...errors import SceneError
from ..gdal import GDAL_ERRORS, damage, hearing, network, reason, refusals, remedy
from .base import usable
from .resample import Method, Placement, reach, resample
from .stored import Raster

MOST_SOURCE = 2**24
"""Most pixels of a raster that are read at once to be brought to another grid; larger windows are halved."""


@dataclass(frozen=True, eq=False)
class Pick:
    """One band of a scene: a band, from 1, of a file."""

    raster: Raster
    index: int
    dtype: np.dtype[Any]
    nodata: float | int | None
    placement: Placement
    """How the scene's grid lies in the file's; one for all bands of a file."""
    method: Method
    """How the band is brought to the scene's grid, where that is another."""
    alpha: int | None = None
    """Band, from 1, to take validity from."""

    @property
    def read_dtype(self) -> np.dtype[Any]:
        """Type that holds the values as they are read: mixed ones lie between those that are stored."""
        if self.placement.offset is not None or self.method == "nearest":
            return self.dtype
        return np.result_type(self.dtype, np.float32)


def read_resampled(pick: Pick, window: Window, out: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    """Write a window of the scene to `out`, (H, W), from a file on another grid, and clear `valid` where it has none."""
    places = pick.placement.places(window)
    ratio = pick.placement.ratio
    (top, bottom), (left, right) = (
        reach(place, size, pick.method, length)
        for place, size, length in zip(places, ratio, pick.raster.grid.shape, strict=True)
    )
    height, width = bottom - top, right - left
    if height * width > MOST_SOURCE and window.height * window.width > 1:
        for half, rows, cols in _halves(window):
            read_resampled(pick, half, out[rows, cols], valid[rows, cols])
        return
    if not (height and width):
        out[...] = 0
        valid[...] = False
        return
    values = np.empty((1, height, width), np.float32)
    good = np.ones((height, width), np.bool_)
    _read(pick.raster, [pick], Window(left, top, width, height), values, good)
    found, usable_there = resample(values[0], good, (top, left), places, ratio, pick.method)
    out[...] = found
    valid &= usable_there


def _halves(window: Window) -> Iterator[tuple[Window, slice, slice]]:
    """Two halves of a window across its longer side, and where they lie in it."""
    height, width = window.height, window.width
    whole = slice(None)
    if height >= width:
        middle = height // 2
        yield Window(window.col_off, window.row_off, width, middle), slice(0, middle), whole
        yield Window(window.col_off, window.row_off + middle, width, height - middle), slice(middle, None), whole
    else:
        middle = width // 2
        yield Window(window.col_off, window.row_off, middle, height), whole, slice(0, middle)
        yield Window(window.col_off + middle, window.row_off, width - middle, height), whole, slice(middle, None)


def read_stored(
    raster: Raster, picks: Sequence[Pick], window: Window, out: NDArray[Any], valid: NDArray[np.bool_]
) -> None:
    """Write a window of some bands of one file to `out`, (C, H, W), and clear `valid` where one cannot be used.

    The window is the file's own, and may stick out of it: there is 0, and nothing valid.
    """
    height, width = raster.grid.shape
    top, left = max(window.row_off, 0), max(window.col_off, 0)
    bottom, right = min(window.row_off + window.height, height), min(window.col_off + window.width, width)
    if (bottom - top, right - left) == (window.height, window.width):
        _read(raster, picks, window, out, valid)
        return
    out[...] = 0
    inside = np.zeros_like(valid)
    if top < bottom and left < right:
        rows = slice(top - window.row_off, bottom - window.row_off)
        cols = slice(left - window.col_off, right - window.col_off)
        inside[rows, cols] = True
        _read(raster, picks, Window(left, top, right - left, bottom - top), out[:, rows, cols], inside[rows, cols])
    valid &= inside


def _read(raster: Raster, picks: Sequence[Pick], window: Window, out: NDArray[Any], valid: NDArray[np.bool_]) -> None:
    """Write the pixels of some bands of one file to `out`, and clear `valid` where one of them cannot be used."""
    indexes = [pick.index for pick in picks]
    native = picks[0].dtype
    try:
        with hearing() as heard, network(raster.path):
            dataset = raster.handle.dataset()
            # nodata is compared in the file's type, before float32 rounds it; that is the fastest way, too
            values = dataset.read(indexes, window=window, out=out if native == out.dtype else None)
            if (alpha := picks[0].alpha) is not None:
                valid &= dataset.read(alpha, window=window) != 0
            for index in [1] if raster.shared_mask else sorted(raster.own_masks.intersection(indexes)):
                valid &= dataset.read_masks(index, window=window) != 0
    except (*GDAL_ERRORS, OSError) as error:
        raise _unreadable(raster.path, window, "; ".join([reason(error), *refusals(heard)])) from error
    if lost := damage(heard):
        raise _unreadable(raster.path, window, lost)
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
    return SceneError(f"{path} cannot be read at {rows}, {cols}: {why}. {remedy(path)}")
