"""Areas and perimeters of polygons in true metres, from their corners in pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pyproj import Geod

from ...core.grid import Grid, Ground, apply
from .rings import Rings, ends

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Ruler:
    """Lengths and areas on a grid whose pixels are alike along a row."""

    edge: Floats
    """Length of a pixel's edge along each line between rows, (height + 1,)."""
    side: Floats
    """Length down to each line between rows, (height + 1,)."""
    area: Floats
    """Area of one column of pixels down to each line between rows, (height + 1,)."""

    @classmethod
    def pixels(cls, height: int, edge: float = 1.0, side: float = 1.0, area: float = 1.0) -> "Ruler":
        """Ruler where all pixels are alike."""
        lines = np.arange(height + 1.0)
        return cls(np.full(height + 1, edge), lines * side, lines * area)

    @classmethod
    def of(cls, grid: Grid, ground: Ground) -> "Ruler | None":
        """Ruler of a grid, in metres; None where pixels differ along a row."""
        height = grid.shape[0]
        a, b, _, d, e, _ = grid.transform[:6]
        if ground.unit is not None:
            unit = ground.unit
            return cls.pixels(height, np.hypot(a, d) * unit, np.hypot(b, e) * unit, float(grid.pixel_areas()))
        if not (ground.columns_alike and b == d == 0):
            return None
        lines = np.arange(height + 1.0)
        lon, lat = ground.lonlat(*apply(grid.transform, *np.meshgrid(np.arange(2.0), lines)))
        edge = _geodesic(ground, lon[:, 0], lat[:, 0], lon[:, 1], lat[:, 1])
        side = _geodesic(ground, lon[:-1, 0], lat[:-1, 0], lon[1:, 0], lat[1:, 0])
        area = np.broadcast_to(grid.pixel_areas(), (height, 1)).ravel()
        return cls(edge, np.append(0, np.cumsum(side)), np.append(0, np.cumsum(area)))


def measure(rings: Rings, grid: Grid) -> tuple[Floats, Floats]:
    """Area, m², and perimeter, m, of each polygon, (P,); NaN where the grid has no place on Earth."""
    if not grid.placed:
        nowhere = np.full(len(rings.polygons) - 1, np.nan)
        return nowhere, nowhere.copy()
    ground = Ground.of(grid)
    ruler = Ruler.of(grid, ground)
    return _by_rows(rings, ruler) if ruler else _by_steps(rings, grid, ground)


def _by_rows(rings: Rings, ruler: Ruler) -> tuple[Floats, Floats]:
    """Area and perimeter of each polygon, from its corners alone.

    By Green's theorem, an area is the sum, over the sides that run down or up, of all that lies left of them.
    """
    along = np.abs(np.diff(rings.col, append=0)) * ruler.edge[rings.row]
    across = np.abs(np.diff(ruler.side[rings.row], append=0))
    left = rings.col * np.diff(ruler.area[rings.row], append=0)
    between = rings.rings[1:] - 1  # from the end of a ring to the start of the next is no edge
    for each in (along, across, left):
        each[between] = 0
    return np.abs(_sums(left, rings.corners)), _sums(along + across, rings.corners)


def _by_steps(rings: Rings, grid: Grid, ground: Ground, most: int = 1_000_000) -> tuple[Floats, Floats]:
    """Area and perimeter of each polygon, walking its boundary pixel by pixel.

    Areas are those of the equal-area plane on which `Grid.pixel_areas` measures pixels; lengths are geodesic.
    """
    steps = np.maximum(np.abs(np.diff(rings.col, append=0)), np.abs(np.diff(rings.row, append=0)))
    steps[rings.rings[1:] - 1] = 1
    walked = ends(steps)
    area, perimeter = np.zeros(len(rings.rings) - 1), np.zeros(len(rings.rings) - 1)
    height, width = grid.shape
    origin = ground.project(*apply(grid.transform, np.array([width / 2]), np.array([height / 2])))
    for first, last in _runs(walked[rings.rings], most):
        here = slice(rings.rings[first], rings.rings[last])
        starts = np.repeat(np.arange(here.start, here.stop), steps[here])
        step = np.arange(len(starts)) - np.repeat(walked[here] - walked[here.start], steps[here])
        ahead = np.minimum(starts + 1, len(steps) - 1)
        col, row = (v[starts] + np.sign(v[ahead] - v[starts]) * step for v in (rings.col, rings.row))
        x, y = apply(grid.transform, col.astype(float), row.astype(float))
        bounds = walked[rings.rings[first : last + 1]] - walked[here.start]
        area[first:last] = _shoelace(*ground.project(x, y), origin, bounds)
        perimeter[first:last] = _lengths(ground, *ground.lonlat(x, y), bounds)
    return np.abs(_sums(area, rings.polygons)), _sums(perimeter, rings.polygons)


def _runs(bounds: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """First and one past last of runs whose lengths, from one of `bounds` to the next, add up to `most` or are one."""
    first = 0
    while first < len(bounds) - 1:
        last = max(int(np.searchsorted(bounds, bounds[first] + most, side="right")) - 1, first + 1)
        yield first, last
        first = last


def _shoelace(x: Floats, y: Floats, origin: tuple[Floats, Floats], bounds: NDArray[np.int64]) -> Floats:
    """Signed area inside each closed ring of points; NaN off Earth."""
    with np.errstate(invalid="ignore"):  # infinite points
        x, y = x - origin[0], y - origin[1]  # near zero, where products are exact to less than a grain of sand
        cross = x * np.roll(y, -1) - np.roll(x, -1) * y
        cross[bounds[1:] - 1] = 0
        area = _sums(cross, bounds) / 2
    return np.where(np.isfinite(area), area, np.nan)


def _lengths(ground: Ground, lon: Floats, lat: Floats, bounds: NDArray[np.int64]) -> Floats:
    """Geodesic length of each closed ring of points; NaN off Earth."""
    length = _geodesic(ground, lon, lat, np.roll(lon, -1), np.roll(lat, -1))
    length[bounds[1:] - 1] = 0
    return _sums(length, bounds)


def _geodesic(ground: Ground, lon: Floats, lat: Floats, lon2: Floats, lat2: Floats) -> Floats:
    """Distance on the ellipsoid, metres; NaN off Earth."""
    there = np.isfinite(lon) & np.isfinite(lat) & np.isfinite(lon2) & np.isfinite(lat2)
    length = np.full(lon.shape, np.nan)
    geod = ground.geodetic.get_geod() or Geod(ellps="WGS84")  # it has one, as `Ground.of` saw to it
    _, _, length[there] = geod.inv(lon[there], lat[there], lon2[there], lat2[there])
    return length


def _sums(values: Floats, bounds: NDArray[np.int64]) -> Floats:
    """Sum of each run of values; no run is empty."""
    return np.add.reduceat(values, bounds[:-1]) if len(bounds) > 1 else np.zeros(0)
