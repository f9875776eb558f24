"""Scenes whose footprints meet on Earth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Proj
from pyproj.enums import TransformDirection

from ...core.grid import Grid, Ground, apply
from ..labels.region import transformer
from .leaks import Overlap

Floats = NDArray[np.float64]

STEPS = 32
"""Pieces of each side of a footprint, which bends in another projection: a scene of 10 000 pixels stays true to 2 cm."""
SLIVER = 0.25
"""Pixels: footprints that meet in a band narrower than this touch, and share no pixel."""
LIMB_ROWS = 256
"""Rows in which the edge of the Earth is looked for in a scene that reaches beyond it."""
LIMB_HALVINGS = 40
"""Halvings by which it is found in a row."""
SAME_PLACE = 0.5
"""Pixels: what comes back farther from where it was than this was not on Earth."""

ELLIPSOID = Geod(ellps="WGS84")
QUADRANT = 0.5**0.5 * 2 * ELLIPSOID.b
"""Metres from the middle of an azimuthal equal-area plane to the edge of a hemisphere: √2 of the Earth's radius."""
CYLINDER = Proj(proj="cea", lat_ts=0, lon_0=0, datum="WGS84")


@dataclass(frozen=True, eq=False)
class Footprint:
    """Outline of a scene, without the last point, which is the first."""

    lonlat: Floats
    """Degrees, (2, N); longitudes do not jump at 180, and are 0 on the mean to half a turn."""
    turn: float
    """Degrees of longitude from the last point to the first, beyond the way back: 360 or -360 around a pole, else 0."""
    pole: float
    """Latitude of the pole that the outline goes around, if it does."""

    @classmethod
    def of(cls, grid: Grid) -> "Footprint":
        """Footprint of a grid with a place; empty where none of it is on Earth."""
        lon, lat = _outline(grid)
        lon = np.unwrap(np.append(lon, lon[:1]), period=360.0)
        turn = 360.0 * np.round((lon[-1] - lon[0]) / 360) if lon.size else 0.0
        lon -= 360 * np.round(lon.mean() / 360) if lon.size else 0.0
        # rows run down where the determinant is below 0, so that the outline runs clockwise
        north = turn * grid.transform.determinant > 0
        return cls(np.stack([lon[:-1], lat]), float(turn), 90.0 if north else -90.0)

    @property
    def unrolled(self) -> Floats:
        """The outline on a cylinder, (2, M), degrees: one that goes around a pole is closed along that pole."""
        if not self.turn:
            return self.lonlat
        (lon, *_), (lat, *_) = self.lonlat
        return np.hstack([self.lonlat, [[lon + self.turn, lon + self.turn, lon], [lat, self.pole, self.pole]]])


def overlapping(grids: Sequence[tuple[int, Grid]]) -> Iterator[Overlap]:
    """Pairs of scenes that share ground, each with its true area; those whose edges touch do not.

    Parameters
    ----------
    grids : sequence of (int, Grid)
        Places of scenes, ascending, and their grids, all with a place on Earth, in any CRS.
    """
    places, prints = [], []
    for place, (_, grid) in enumerate(grids):
        if (found := Footprint.of(grid)).lonlat.size:
            places.append(place)
            prints.append(found)
    if not prints:
        return
    west, south = np.array([found.unrolled.min(axis=1) for found in prints]).T
    east, north = np.array([found.unrolled.max(axis=1) for found in prints]).T
    boxes = shapely.box(west, south, east, north)
    tree = shapely.STRtree(boxes)
    met = np.concatenate([tree.query(_turned(boxes, by), predicate="intersects") for by in (-360, 0, 360)], axis=1)
    for a, b in np.unique(met[:, met[0] < met[1]], axis=1).T.tolist():
        shared, smaller = _shared(prints[a], prints[b])
        one, two = places[a], places[b]
        pixel = min(grids[i][1].pixel_size_m or 0.0 for i in (one, two))
        # of a long band, half the outline is its length
        if shared.area > SLIVER * pixel * shared.length / 2:
            yield Overlap(
                grids[one][0], grids[two][0], min(shared.area / smaller, 1.0), "footprint", area_m2=shared.area
            )


def _shared(one: Footprint, two: Footprint) -> tuple[Any, float]:
    """What two footprints share, on an equal-area plane in metres, and the area of the smaller.

    The plane is azimuthal around the first, where straight edges hardly bend. It has no place for the other side of the
    Earth, and cannot tell inside from outside there, so footprints that reach beyond the hemisphere are laid on a
    cylinder.
    """
    lon, lat = one.lonlat.mean(axis=1)
    plane = Proj(proj="laea", lon_0=lon, lat_0=lat, datum="WGS84")
    if all((np.hypot(*plane(*found.unrolled)) < QUADRANT).all() for found in (one, two)):
        first, second = (_polygon(np.stack(plane(*found.lonlat))) for found in (one, two))
        again = second
    else:
        first, second = (_polygon(_on_cylinder(found.unrolled)) for found in (one, two))
        around = 2 * np.pi * ELLIPSOID.a
        again = shapely.union_all([_turned(second, by) for by in (-around, 0.0, around)])
    return first & again, min(first.area, second.area)


def _polygon(outline: Floats) -> Any:
    return shapely.make_valid(shapely.Polygon(outline.T))


def _on_cylinder(lonlat: Floats) -> Floats:
    """Places on Lambert's equal-area cylinder, metres, (2, N), which goes on beyond 180 degrees."""
    lon, lat = lonlat
    return np.stack([ELLIPSOID.a * np.radians(lon), np.asarray(CYLINDER(np.zeros_like(lat), lat)[1])])


def _turned(geometries: Any, by: float) -> Any:
    """Geometries moved along the first axis."""
    return shapely.transform(geometries, partial(np.add, (by, 0.0)))


def _outline(grid: Grid) -> Floats:
    """Longitude and latitude, degrees, (2, N), along the edge of a grid, cut where it leaves the Earth."""
    height, width = grid.shape
    way = np.arange(STEPS) / STEPS
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    col, row = np.concatenate(
        [a + way[:, None] * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
    ).T
    lonlat, there = _lonlat(grid, col, row)
    return lonlat if there.all() else _limb(grid)


def _lonlat(grid: Grid, col: Floats, row: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Longitude and latitude of places in a grid, degrees, (2, ...), and which are on Earth.

    Beyond the Earth's edge PROJ gives infinity, or, in a few projections, the place that one comes to by going on
    around the Earth; that is no place of the grid, as no way leads back from it. Where meridians are columns, it is.
    """
    assert grid.crs is not None  # scenes without a place are compared by content
    place = transformer(grid.crs)
    lonlat = np.stack(place.transform(*apply(grid.transform, col, row)))
    there = np.isfinite(lonlat).all(axis=0)
    if not Ground.of(grid).columns_alike:
        with np.errstate(invalid="ignore"):
            x, y = place.transform(lonlat[0], lonlat[1], direction=TransformDirection.INVERSE)
            back = apply(~grid.transform, x, y)
            there &= (np.abs(back - np.stack([col, row])) <= SAME_PLACE).all(axis=0)
    return lonlat, there


def _limb(grid: Grid) -> Floats:
    """Longitude and latitude, degrees, (2, N), along the edge of what a grid has of the Earth.

    Each row is taken to hold one piece of it, as in all projections that are not interrupted.
    """
    height, width = grid.shape
    part = np.linspace(0, 1, LIMB_ROWS + 1)
    rows, cols = part * height, part * width
    _, there = _lonlat(grid, *np.meshgrid(cols, rows))
    held = there.sum(axis=1) > 1  # a pole that is a point has all longitudes and none
    if held.sum() < 2:
        return np.empty((2, 0))
    rows, there = rows[held], there[held]
    ends = []
    for inner, outer in (
        (there.argmax(axis=1), -1),
        (LIMB_ROWS - there[:, ::-1].argmax(axis=1), 1),
    ):
        on, off = cols[inner], cols[np.clip(inner + outer, 0, LIMB_ROWS)]
        for _ in range(LIMB_HALVINGS):
            middle = (on + off) / 2
            good = _lonlat(grid, middle, rows)[1]
            on, off = np.where(good, middle, on), np.where(good, off, middle)
        ends.append(on)
    left, right = ends
    way = np.arange(STEPS) / STEPS
    top, bottom = left[0] + way * (right[0] - left[0]), right[-1] + way * (left[-1] - right[-1])
    col = np.concatenate([top, right[:-1], bottom, left[:0:-1]])
    row = np.concatenate([np.full(STEPS, rows[0]), rows[:-1], np.full(STEPS, rows[-1]), rows[:0:-1]])
    return _lonlat(grid, col, row)[0]
