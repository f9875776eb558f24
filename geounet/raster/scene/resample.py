"""A raster seen on another grid: where each pixel falls in the raster, and what is taken there.

GDAL's warper fits its kernel to the window that it is asked for and bends coordinates between a few exact ones,
so the same pixel may come out differently from two windows. Here a pixel's value depends on the pixel alone, which
chips that overlap rely on, and one kind of validity (nodata, NaN, masks, alpha) holds for files on every grid.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from rasterio.windows import Window

from ...core.grid import Grid, apply

Method: TypeAlias = Literal["nearest", "bilinear", "average"]
METHODS: tuple[Method, ...] = ("nearest", "bilinear", "average")

NODE_STEP = 8
"""Pixels between the exact places from which those of a warp are interpolated: 80 m of a 10 m grid bend by 0.1 mm."""
BENT = 2e-3
"""Raster pixels by which a place may be off through interpolation; where it is more (a pole, a date line, pixels of
kilometres) places are made exactly."""
ON_EDGE = 1e-10
"""Pixels by which a place on the edge of two pixels may miss it through rounding."""
ALIGNED = 1e-3
"""Pixels by which grids of one lattice may miss each other at the corners; coordinates in files are rounded."""
NEARLY_WHOLE = 0.05
"""Ratios of pixels that differ less from a whole number are taken for it; those of two UTM zones are not quite 1."""
FAR = -1e9
"""A place, in pixels, that no raster reaches."""

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Placement:
    """How the pixels of a scene's grid lie among those of a raster."""

    grid: Grid
    """Of the scene."""
    raster: Grid

    @cached_property
    def linear(self) -> Affine | None:
        """Takes (col, row) of the scene's grid to those of the raster; None where the two have different CRS."""
        if self.grid.crs != self.raster.crs:
            return None
        turned = Affine.translation(self.turn, 0) @ self.grid.transform if self.turn else self.grid.transform
        linear: Affine = ~self.raster.transform @ turned
        return linear

    @cached_property
    def turn(self) -> float:
        """Degrees around the Earth, a multiple of 360, by which the scene's grid comes nearest to the raster.

        Longitudes of one place are written in several ways. 0 where x is not a longitude.
        """
        if self.grid.crs != self.raster.crs or not is_round(self.grid):
            return 0.0
        (west, _, east, _), (left, _, right, _) = self.grid.bounds, self.raster.bounds
        return 360.0 * round(((left + right) - (west + east)) / 720)

    @cached_property
    def offset(self) -> tuple[int, int] | None:
        """Rows and columns from the raster's first pixel to the scene's, where both lay the same pixels; else None."""
        if self.grid.same_pixels(self.raster):
            return 0, 0
        if self.linear is None or not (self.raster.placed or _plain(self.raster)):
            return None
        height, width = self.grid.shape
        corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], dtype=float).T
        shift = apply(self.linear, *corners) - corners
        whole = np.round(shift[:, :1])
        if not np.abs(shift - whole).max() <= ALIGNED:
            return None
        return int(whole[1, 0]), int(whole[0, 0])

    @property
    def upright(self) -> bool:
        """True if rows and columns of the scene run along those of the raster."""
        return self.linear is not None and self.linear.b == self.linear.d == 0

    @cached_property
    def ratio(self) -> tuple[float, float]:
        """Raster pixels to a pixel of the scene, along rows and along columns; the median of places all over it."""
        height, width = self.grid.shape
        part = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
        col, row = (places.ravel() for places in np.meshgrid(part * width, part * height))
        half = np.array([[-0.5], [0.5]])
        with np.errstate(invalid="ignore"):
            right = np.diff(self.exact(col + half, np.broadcast_to(row, (2, len(row)))), axis=1)[:, 0]
            below = np.diff(self.exact(np.broadcast_to(col, (2, len(col))), row + half), axis=1)[:, 0]
        across, down = np.hypot(right, below)
        return _median(down), _median(across)

    def exact(self, col: Floats, row: Floats) -> tuple[Floats, Floats]:
        """Column and row in the raster of places in the scene's grid; inf where there is none."""
        if self.linear is not None:
            x, y = apply(self.linear, col, row)
            return x, y
        assert self.grid.crs is not None  # grids without a CRS are alike or refused
        assert self.raster.crs is not None
        x, y = apply(self.grid.transform, col, row)
        project, round_earth = _projection(self.grid.crs.to_wkt(), self.raster.crs.to_wkt())
        x, y = project.transform(x, y)
        if round_earth:
            west, _, east, _ = self.raster.bounds
            middle = (west + east) / 2
            x = np.where(np.isfinite(x), (x - middle + 180) % 360 - 180 + middle, x)
        with np.errstate(invalid="ignore"):
            x, y = apply(~self.raster.transform, x, y)
        return x, y

    def places(self, window: Window) -> tuple[Floats, Floats]:
        """Row and column in the raster of the pixel centres of a window.

        Returns
        -------
        rows, cols : float64
            Two arrays (H, W), which broadcast from (H, 1) and (1, W) where the grids are upright to each other.
            A pixel's centre lies at a half.
        """
        rows = window.row_off + np.arange(window.height) + 0.5
        cols = window.col_off + np.arange(window.width) + 0.5
        if self.linear is not None and self.upright:
            return (self.linear.e * rows + self.linear.f)[:, None], (self.linear.a * cols + self.linear.c)[None, :]
        if self.linear is not None:
            x, y = self.exact(cols[None, :], rows[:, None])
            return y, x
        return self._interpolated(rows, cols)

    def _interpolated(self, rows: Floats, cols: Floats) -> tuple[Floats, Floats]:
        """Places between exact ones; the nodes are the same for every window, so the places are, too."""
        (node_rows, i, v), (node_cols, j, u) = _nodes(rows), _nodes(cols)
        nodes = self.exact(*np.meshgrid(node_cols, node_rows))
        middles = self.exact(*np.meshgrid(node_cols[:-1] + NODE_STEP / 2, node_rows[:-1] + NODE_STEP / 2))
        bent = (_bent(nodes[0], middles[0]) | _bent(nodes[1], middles[1]))[np.ix_(i, j)]
        with np.errstate(invalid="ignore"):
            x, y = (_between(node, i, j, v[:, None], u[None, :]) for node in nodes)
        if bent.any():
            row, col = np.nonzero(bent)
            x[bent], y[bent] = self.exact(cols[col], rows[row])
        return y, x

    def outline(self) -> tuple[Floats, Floats]:
        """Row and column in the raster of places along the edge of the scene's grid."""
        height, width = self.grid.shape
        side = np.linspace(0, 1, 33)
        col = np.concatenate([side, side, np.zeros(33), np.ones(33)]) * width
        row = np.concatenate([np.zeros(33), np.ones(33), side, side]) * height
        x, y = self.exact(col, row)
        return y, x

    def footprint(self) -> Window | None:
        """Window of the scene's grid outside which the raster has no pixel; None if the two do not meet."""
        height, width = self.grid.shape
        back = Placement(self.raster, self.grid)
        rows, cols = back.outline()
        if not (np.isfinite(rows).all() and np.isfinite(cols).all()):
            rows, cols = np.array([0.0, height]), np.array([0.0, width])
        top, bottom = max(int(np.floor(rows.min())) - 1, 0), min(int(np.ceil(rows.max())) + 1, height)
        left, right = max(int(np.floor(cols.min())) - 1, 0), min(int(np.ceil(cols.max())) + 1, width)
        return Window(left, top, right - left, bottom - top) if top < bottom and left < right else None


def resample(
    values: NDArray[np.float32],
    good: NDArray[np.bool_],
    corner: tuple[int, int],
    places: tuple[Floats, Floats],
    ratio: tuple[float, float],
    method: Method,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Value and validity of a raster at some places.

    Values come from valid pixels alone, so that nodata never bleeds. A place is valid where the pixel that it falls
    in is; an average is valid where any pixel under it is. This is GDAL's rule.

    Parameters
    ----------
    values, good : (h, w)
        Part of the raster, and where it can be used.
    corner : tuple of int
        Row and column, in the raster, of the part's first pixel. The part holds all pixels of `reach`.
    places : tuple of float64
        Row and column in the raster, which broadcast to (H, W).
    ratio : tuple of float
        Raster pixels to a place, along rows and columns: where it is above 1 the kernel widens with it.
    method : {'nearest', 'bilinear', 'average'}

    Returns
    -------
    values : float32
        (H, W); 0 where not valid.
    valid : bool
        (H, W)
    """
    centre, inside = [], np.ones((1, 1), np.bool_)
    for place, start, length in zip(places, corner, good.shape, strict=True):
        at = _pixel(_known(place) + ON_EDGE) - start
        inside = inside & (at >= 0) & (at < length)
        centre.append(np.clip(at, 0, length - 1))
    if method == "nearest":
        valid = inside & good[tuple(centre)]
        return np.where(valid, values[tuple(centre)], np.float32(0)), valid
    # weights come from places in the whole raster: rounding must not know where the part begins
    row, col = (
        _taps(place, size, method, start, length)
        for place, size, start, length in zip(places, ratio, corner, good.shape, strict=True)
    )
    sums = _apart if places[0].shape[1] == 1 and places[1].shape[0] == 1 else _together
    total, weight = sums(np.where(good, values, 0).astype(np.float64), good, row, col)
    enough = weight > 1e-9
    valid = enough if method == "average" else inside & good[tuple(centre)] & enough
    return np.where(valid, total / np.where(enough, weight, 1), 0).astype(np.float32), valid


def reach(places: Floats, ratio: float, method: Method, length: int) -> tuple[int, int]:
    """First and last pixel, the last exclusive, of a raster's `length` that places need along one axis."""
    known = places[np.isfinite(places)]
    if not known.size:
        return 0, 0
    first, count = _span(np.array([known.min(), known.max()]), ratio, method)
    start, stop = max(int(first[0]), 0), min(int(first[1]) + count, length)
    return (start, stop) if start < stop else (0, 0)


def _known(places: Floats) -> Floats:
    return np.where(np.isfinite(places), places, FAR)


def _pixel(places: Floats) -> NDArray[np.int64]:
    return np.floor(np.clip(places, FAR, -FAR)).astype(np.int64)


def _span(places: Floats, ratio: float, method: Method) -> tuple[NDArray[np.int64], int]:
    """First pixel that each place takes, and how many from there on."""
    if method == "nearest":
        return _pixel(places + ON_EDGE), 1
    if method == "average":
        return _pixel(places - ratio / 2 + ON_EDGE), int(np.ceil(ratio)) + 1
    side = int(np.ceil(max(ratio, 1.0)))
    return _pixel(places - 0.5) - min(side, -int(FAR)) + 1, 2 * side


def _taps(places: Floats, ratio: float, method: Method, start: int, length: int) -> "Taps":
    """First pixel that each place takes, counted from `start`, and the weights of it and of those that follow, (k, …).

    Of a kernel that is wider than the part of `length` pixels which holds all that can be taken, the part is left.
    """
    places = _known(places)
    first, count = _span(places, ratio, method)
    if count > length:
        first, count = np.full_like(first, start), length
    left = first + np.arange(count).reshape(-1, *[1] * places.ndim)
    if method == "average":
        weights = np.minimum(left + 1, places + ratio / 2) - np.maximum(left, places - ratio / 2)
        weights = np.where(weights > 1e-9, weights, 0)
    else:
        weights = np.clip(1 - np.abs(left + 0.5 - places) / max(ratio, 1.0), 0, None)
    return first - start, weights


Taps: TypeAlias = tuple[NDArray[np.int64], Floats]


def _apart(values: Floats, good: NDArray[np.bool_], rows: Taps, cols: Taps) -> tuple[Floats, Floats]:
    """Weighted sum of values and of weights, where rows and columns have weights of their own."""
    down, across = (_inside(taps, length) for taps, length in zip((rows, cols), good.shape, strict=True))
    total = _along(_along(values, down, 0), across, 1)
    if not good.all():
        return total, _along(_along(good.astype(np.float64), down, 0), across, 1)
    # the same numbers in the same order, so that a pixel does not know of holes elsewhere in the window
    weights = sum(weight for weight in down[1])[:, None]
    return total, sum(weights * weight[None, :] for weight in across[1])


def _inside(taps: Taps, length: int) -> Taps:
    """Pixels that exist, (k, n), and their weights; 0 for those that do not."""
    first, weights = taps
    at = first.ravel() + np.arange(len(weights))[:, None]
    inside = (at >= 0) & (at < length)
    return np.clip(at, 0, length - 1), np.where(inside, weights.reshape(len(weights), -1), 0)


def _along(values: Floats, taps: Taps, axis: int) -> Floats:
    """Weighted sum along one axis."""
    shape = (-1, 1) if axis == 0 else (1, -1)
    total: Floats = sum(values.take(at, axis=axis) * weight.reshape(shape) for at, weight in zip(*taps, strict=True))
    return total


def _together(values: Floats, good: NDArray[np.bool_], rows: Taps, cols: Taps) -> tuple[Floats, Floats]:
    """Weighted sum of values and of weights, where every place has weights of its own."""
    shape = np.broadcast_shapes(rows[0].shape, cols[0].shape)
    total, sums = np.zeros(shape), np.zeros(shape)
    height, width = good.shape
    for i, down in enumerate(rows[1]):
        row = rows[0] + i
        for j, across in enumerate(cols[1]):
            col = cols[0] + j
            at = np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)
            weight = down * across * ((row >= 0) & (row < height) & (col >= 0) & (col < width) & good[at])
            total += weight * values[at]
            sums += weight
    return total, sums


def _nodes(places: Floats) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Nodes around places on a line, the node before each place, and how far each is on the way to the next."""
    before = np.floor(places / NODE_STEP).astype(np.int64)
    nodes = np.arange(before.min(), before.max() + 2) * float(NODE_STEP)
    return nodes, before - before.min(), places / NODE_STEP - before


def _between(nodes: Floats, i: NDArray[np.int64], j: NDArray[np.int64], v: Floats, u: Floats) -> Floats:
    """Nodes, interpolated at parts `v` and `u` of the way from rows `i` and columns `j`, (H, W)."""
    lines = nodes[i] + (nodes[i + 1] - nodes[i]) * v
    between: Floats = lines[:, j] + (lines[:, j + 1] - lines[:, j]) * u
    return between


def _bent(nodes: Floats, middles: Floats) -> NDArray[np.bool_]:
    """Cells of nodes, one fewer along each axis, in whose middle interpolation would go wrong."""
    with np.errstate(invalid="ignore"):
        mean = (nodes[:-1, :-1] + nodes[:-1, 1:] + nodes[1:, :-1] + nodes[1:, 1:]) / 4
        straight: NDArray[np.bool_] = np.abs(mean - middles) <= BENT
    return ~straight


def _median(ratios: Floats) -> float:
    """Median of the ratios that are known, 1 if none is; one near a whole number is that number, as GDAL has it."""
    known = ratios[np.isfinite(ratios) & (ratios > 0)]
    ratio = float(np.median(known)) if known.size else 1.0
    whole = round(ratio)
    return float(whole) if whole >= 1 and abs(ratio - whole) < NEARLY_WHOLE else ratio


def is_round(grid: Grid) -> bool:
    """Tell whether x of a grid is a longitude, which begins anew after 360 degrees."""
    return grid.crs is not None and grid.crs.is_geographic and grid.placed


def _plain(grid: Grid) -> bool:
    """Tell whether a grid without a CRS has coordinates all the same."""
    return grid.control is None and not grid.transform.is_identity


@lru_cache(maxsize=64)
def _projection(source: str, target: str) -> tuple[Transformer, bool]:
    """From one CRS to another, and whether the second counts degrees around the Earth."""
    crs = ProjCRS.from_wkt(target)
    return Transformer.from_crs(ProjCRS.from_wkt(source), crs, always_xy=True), crs.is_geographic
