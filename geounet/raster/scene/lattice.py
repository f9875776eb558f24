"""The one grid of a scene whose files lie on several."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from ...core.grid import Grid, common_grid
from ...errors import GridError
from .resample import ALIGNED, Placement, is_round

Resolution: TypeAlias = float | Literal["finest", "coarsest"]


def choose_grid(named: Sequence[tuple[str, Grid]], resolution: Resolution | None, grid: Grid | None) -> Grid:
    """Grid of a scene of some files.

    Parameters
    ----------
    named : sequence of (str, Grid)
        What messages call each file, and where its pixels lie.
    resolution : float, 'finest' or 'coarsest', optional
        Side of a pixel in units of the CRS, on the lattice of the finest file; or the grid of the finest (by
        default) or coarsest file, the first of several.
    grid : Grid, optional
        This one.

    Raises
    ------
    GridError
        Files lie on different grids and one has no place to bring it from; a file shares no ground with the grid.
    """
    _check(resolution)
    if grid is not None and resolution is not None:
        raise GridError("a scene was given both a grid and a resolution; the grid says its resolution, so drop one.")
    grids = [other for _, other in named]
    alike = all(grids[0].same_pixels(other) for other in grids[1:])
    if grid is None and alike and not isinstance(resolution, (int, float)):
        return grids[0]
    _check_comparable(named if grid is None else [("the grid asked for", grid), *named])
    chosen = grid or _of_size(grids, resolution)
    for path, other in named:
        if Placement(chosen, other).footprint() is None:
            where = f"{chosen.bounds} in {chosen.crs}"
            raise GridError(
                f"{path} covers {other.bounds} in {other.crs} and shares no ground with the scene's grid, {where}; "
                "the files of one scene are its bands. Open scenes side by side with open_mosaic."
            )
    return chosen


def common_lattice(named: Sequence[tuple[str, Grid]], resolution: Resolution | None) -> Grid:
    """Grid whose lattice a mosaic takes: the first one's, or one of the resolution asked for; see `choose_grid`."""
    _check(resolution)
    _check_comparable(named)
    grids = [grid for _, grid in named]
    return grids[0] if resolution is None else _of_size(grids, resolution)


def _check(resolution: Resolution | None) -> None:
    if isinstance(resolution, str) and resolution not in ("finest", "coarsest"):
        raise GridError(f"resolution is a number in units of the CRS, 'finest' or 'coarsest', not {resolution!r}.")
    if isinstance(resolution, (int, float)) and not (np.isfinite(resolution) and resolution > 0):
        raise GridError(f"a resolution of {resolution:g} is no pixel size; it is above 0, in units of the CRS.")


def _check_comparable(named: Sequence[tuple[str, Grid]]) -> None:
    first = named[0]
    for other in named[1:]:
        if not _comparable(first[1], other[1]):
            common_grid([first, other])  # says where they differ


def _comparable(one: Grid, other: Grid) -> bool:
    """Tell whether pixels of one grid can be found in the other."""
    if one is other or one.same_pixels(other):
        return True
    with_crs = one.placed and other.placed
    plain = one.crs is None and other.crs is None and not (one.transform.is_identity or other.transform.is_identity)
    return (with_crs or plain) and not (one.transform.is_identity or other.transform.is_identity)


def _of_size(grids: Sequence[Grid], resolution: Resolution | None) -> Grid:
    sizes = [_side(grid, grids[0]) for grid in grids]
    if resolution == "coarsest":
        return grids[int(np.argmax(sizes))]
    finest = grids[int(np.argmin(sizes))]
    if resolution is None or resolution == "finest":
        return finest
    steps = [(np.hypot(g.transform.a, g.transform.d), np.hypot(g.transform.b, g.transform.e)) for g in grids]
    for grid, step in zip(grids, steps, strict=True):
        if grid.crs == finest.crs and np.allclose(step, resolution, rtol=1e-6):
            return grid
    return sized(finest, float(resolution))


def sized(grid: Grid, side: float) -> Grid:
    """The ground of a grid in pixels of another side, in units of the CRS, from the same corner; the last may stick out."""
    height, width = grid.shape
    across = side / float(np.hypot(grid.transform.a, grid.transform.d))
    down = side / float(np.hypot(grid.transform.b, grid.transform.e))
    shape = max(int(np.ceil(height / down - ALIGNED)), 1), max(int(np.ceil(width / across - ALIGNED)), 1)
    return replace(grid, shape=shape, transform=grid.transform @ Affine.scale(across, down), control=None)


def _side(grid: Grid, first: Grid) -> float:
    """Side of a square as large as a pixel: in units of the CRS, or in metres where CRS differ."""
    if grid.crs == first.crs:
        plain = float(np.sqrt(abs(grid.transform.determinant)))
        return plain if first.pixel_size_m is None else plain / _unit(first)
    return grid.pixel_size_m or np.inf


def _unit(grid: Grid) -> float:
    """Units of the CRS in a metre, by the grid's own pixels."""
    size = grid.pixel_size_m
    return float(np.sqrt(abs(grid.transform.determinant))) / size if size else 1.0


def union(first: Grid, others: Sequence[Grid]) -> Grid:
    """Grid on the lattice of the first that holds all of them.

    Raises
    ------
    GridError
        One of them has no place in the first one's reference system.
    """
    boxes = boxes_on(first, [first, *others])
    for other, box in zip(others, boxes[1:], strict=True):
        if not np.isfinite(box).all():
            raise GridError(f"a grid of {other.bounds} in {other.crs} cannot be brought to {first.crs}.")
    top, left = np.floor(boxes[:, :2].min(axis=0) + ALIGNED).astype(int).tolist()
    bottom, right = np.ceil(boxes[:, 2:].max(axis=0) - ALIGNED).astype(int).tolist()
    return replace(
        first,
        shape=(bottom - top, right - left),
        transform=first.transform @ Affine.translation(left, top),
        control=None,
    )


def boxes_on(first: Grid, grids: Sequence[Grid]) -> NDArray[np.float64]:
    """Top, left, bottom, right of grids in pixels of the first, (n, 4); NaN where one has no place there.

    Longitudes that differ by 360 degrees are one place. Where the grids would cover less of a turn around the Earth if
    some were written a turn further, as those on both sides of 180 degrees, they are.
    """
    placements = [Placement(grid, first) for grid in grids]
    edges = [placement.outline() for placement in placements]
    boxes = np.array([(rows.min(), cols.min(), rows.max(), cols.max()) for rows, cols in edges])
    if not is_round(first) or first.transform.b or first.transform.d or not np.isfinite(boxes).all():
        return boxes
    around = 360 / abs(first.transform.a)
    boxes[:, 1::2] -= np.array(
        [[placement.turn / first.transform.a] for placement in placements]
    )  # as they are written
    starts = boxes[:, 1]
    turned = (starts - starts[:, None]) % around  # from each as the first one
    turned[np.isclose(turned, around, rtol=0, atol=ALIGNED)] = 0
    widths = (turned + boxes[:, 3] - starts).max(axis=1)
    best = int(np.argmin(widths))
    if widths[best] < boxes[:, 3].max() - starts.min() - ALIGNED:
        moved = turned[best] - (starts - starts[best])
        boxes[:, 1::2] += (moved - moved[0])[:, None]  # the lattice stays where the first one is
    return boxes
