"""Scenes side by side, read as one."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.bands import canonical
from ...core.grid import Grid
from ...core.windows import edges
from ...errors import BandMismatchError, GridError
from .base import Scene
from .files import FileScene
from .lattice import Resolution, boxes_on, common_lattice, union
from .resample import Placement
from .stored import Raster

ONE_PLACE = 0.9
"""Share of their common ground above which two files with the same bands are two pictures of one place."""
MAYBE_BANDS = 0.5
"""The same for files of one band without a name, which may as well be bands of one scene."""
MOST_NOTED = 3
"""Scenes of a mosaic whose own notes are shown; a hundred tiles would all say the same."""
NEIGHBOUR = 1.5
"""Pixels that may lie between tiles which touch: projected edges are not straight."""


@dataclass(frozen=True, eq=False)
class Part:
    """A scene within a mosaic."""

    scene: Scene
    window: Window
    """Where it may have pixels, in the mosaic's grid."""
    shift: tuple[int, int] = (0, 0)
    """Rows and columns from the mosaic's first pixel to the scene's."""

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels and validity of a window of the mosaic."""
        down, across = self.shift
        chip = self.scene.read(Window(window.col_off + across, window.row_off + down, window.width, window.height))
        return chip.pixels, chip.valid


@dataclass(frozen=True, eq=False)
class MosaicScene(Scene):
    """Scenes of the same bands on one grid; where they overlap, the first with a valid pixel is taken.

    All bands of a pixel come from one scene. Only those scenes are read that a window meets, and of these only
    while a pixel is still missing.
    """

    parts: tuple[Part, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of all scenes, in their order, each once."""
        return tuple(dict.fromkeys(path for part in self.parts for path in part.scene.paths))

    @property
    def origin(self) -> dict[str, Any]:
        """Names of the bands, and where those of each scene come from."""
        parts = [{"source": part.scene.source, **part.scene.origin} for part in self.parts]
        return {**super().origin, "mosaic": parts}

    def on(self, grid: Grid) -> "MosaicScene":
        """The same mosaic on another grid."""
        parts = tuple(_part(part.scene, self.grid.crop(part.window), grid) for part in self.parts)
        return replace(self, grid=grid, parts=parts, dtype=_dtype(parts))

    def by_nearest(self, bands: Collection[str]) -> "MosaicScene":
        """View in which some bands are taken from the nearest pixel, where they lie on another grid than the mosaic's."""
        parts = tuple(replace(part, scene=part.scene.by_nearest(bands)) for part in self.parts)
        return replace(self, parts=parts, dtype=_dtype(parts))

    def _take(self, places: Sequence[int]) -> "MosaicScene":
        parts = tuple(replace(part, scene=part.scene._take(places)) for part in self.parts)
        view: MosaicScene = self._view(places, parts=parts, dtype=_dtype(parts))
        return view

    def _fill(self, window: Window, out: NDArray[Any]) -> NDArray[np.bool_]:
        out[...] = 0
        valid = np.zeros(out.shape[1:], np.bool_)
        top, left, bottom, right = edges(window, self.grid.shape)
        for part in self.parts:
            y0, x0, y1, x1 = edges(part.window, self.grid.shape)
            y0, x0, y1, x1 = max(y0, top), max(x0, left), min(y1, bottom), min(x1, right)
            if y0 >= y1 or x0 >= x1:
                continue
            rows, cols = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            missing = ~valid[rows, cols]
            if not missing.any():
                continue
            pixels, good = part.read(Window(x0, y0, x1 - x0, y1 - y0))
            good &= missing
            np.copyto(out[:, rows, cols], pixels, where=good)
            valid[rows, cols] |= good
        return valid


def lay(
    source: str, scenes: Sequence[Scene], *, resolution: Resolution | None = None, grid: Grid | None = None
) -> MosaicScene:
    """Mosaic of scenes that are open; see `open_mosaic`.

    Raises
    ------
    BandMismatchError
        A scene lacks a band of the first.
    GridError
        A scene cannot be brought onto the grid of the first.
    """
    first = scenes[0]
    members = [scene if scene.bands == first.bands else _with_bands(scene, first) for scene in scenes]
    grids = [member.grid for member in members]
    if grid is None:
        lattice = common_lattice([(member.source, member.grid) for member in members], resolution)
        grid = union(lattice, grids)
    parts = tuple(_part(member, member.grid, grid) for member in members)
    tags = {key: value for key, value in first.tags.items() if all(s.tags.get(key) == value for s in members)}
    return MosaicScene(
        source=source,
        grid=grid,
        bands=first.bands,
        dtype=_dtype(parts),
        block_shape=first.block_shape,
        tags=tags,
        notes=tuple(_notes(source, members, grid)),
        parts=parts,
    )


def are_tiles(stacks: Sequence[Sequence[Raster]], named: bool) -> bool:
    """Tell whether files with the same bands are pieces of one mosaic.

    Parameters
    ----------
    stacks : sequence of sequences of Raster
        Each the files of one piece.
    named : bool
        True if the bands are known to be the same; else files that share most of their ground are taken for
        bands of one scene.

    Returns
    -------
    bool
        False if all lie on one grid, or have no place to tell by.

    Raises
    ------
    GridError
        Files show one place, each on a grid of its own, or lie apart from each other.
    """
    firsts = [stack[0] for stack in stacks]
    grids = [raster.grid for raster in firsts]
    if all(grids[0].same_pixels(grid) for grid in grids[1:]) or not all(grid.placed for grid in grids):
        return False
    boxes = boxes_on(grids[0], grids)
    shared = _shared(boxes)
    one, other = (int(place) for place in np.unravel_index(np.argmax(shared), shared.shape))
    if not named and shared[one, other] > MAYBE_BANDS:
        return False
    if shared[one, other] > ONE_PLACE:
        raise GridError(
            f"{firsts[other].path} shows the ground of {firsts[one].path} ({shared[one, other]:.0%} in common) with the "
            "same bands on another grid, like a picture of another date. Open each by itself, or lay them over each "
            "other with open_mosaic."
        )
    if (lone := _apart(boxes)) is not None:
        raise GridError(
            f"{firsts[lone].path} covers {grids[lone].bounds} in {grids[lone].crs}, apart from {firsts[0].path} and "
            "those that touch it, so they are no tiles of one scene. Open each by itself, or join them all the same with "
            "open_mosaic."
        )
    return True


def same_bands(rasters: Sequence[Raster], called: Sequence[str]) -> bool | None:
    """Tell whether files have the same bands: True or False by their names, None where they have one without a name.

    Parameters
    ----------
    rasters : sequence of Raster
    called : sequence of str
        Names of the stored bands of all, '' where there is none.
    """
    counts = {len(raster.dtypes) for raster in rasters}
    if len(rasters) < 2 or len(counts) > 1:
        return False
    count = counts.pop()
    sets = {canonical(called[i : i + count]) for i in range(0, len(called), count)}
    if len(sets) > 1:
        return False
    return True if any(sets.pop()) or count > 1 else None


def _with_bands(scene: Scene, first: Scene) -> Scene:
    if not set(first.bands) <= set(scene.bands):
        raise BandMismatchError(
            f"{scene.source} has the bands {', '.join(scene.bands)} and {first.source} {', '.join(first.bands)}; scenes of "
            "one mosaic have the same. Name them alike with bands=…, or select those that all have."
        )
    return scene.select(first.bands)


def _part(scene: Scene, ground: Grid, grid: Grid) -> Part:
    """A scene, which covers `ground`, on the grid of a mosaic."""
    placement = Placement(grid, scene.grid)
    window = Placement(grid, ground).footprint() or Window(0, 0, 0, 0)
    if isinstance(scene, (FileScene, MosaicScene)):
        return Part(scene.on(grid), window)
    if placement.offset is None:
        raise GridError(
            f"{scene.source} has its pixels between those of the mosaic (transform {tuple(scene.grid.transform)[:6]} and "
            f"{tuple(grid.transform)[:6]}, CRS {scene.grid.crs} and {grid.crs}); files are brought onto its grid, arrays "
            "are not. Reproject the array first, as in da.rio.reproject_match."
        )
    return Part(scene, window, placement.offset)


def _dtype(parts: Sequence[Part]) -> np.dtype[Any]:
    return np.result_type(*[part.scene.dtype for part in parts])


def _notes(source: str, scenes: Sequence[Scene], grid: Grid) -> Iterator[str]:
    told = "are read as one mosaic; where they overlap, the first with a valid pixel is taken."
    yield f"{source}: {len(scenes)} scenes of the same bands {told}"
    moved = [scene.source for scene in scenes if Placement(grid, scene.grid).offset is None]
    if moved:
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        yield f"{moved[0]}{more}: brought onto the grid of the mosaic, {grid.crs}."
    noted = [scene for scene in scenes if scene.notes]
    yield from dict.fromkeys(note for scene in noted[:MOST_NOTED] for note in scene.notes)
    if len(noted) > MOST_NOTED:
        yield f"{len(noted) - MOST_NOTED} more of these scenes have notes of their own; `geounet info` on one tells them."


def _overlap(boxes: NDArray[np.float64], margin: float = 0.0) -> NDArray[np.float64]:
    """Height and width of what each two boxes share, (2, n, n); negative where they lie apart."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    return np.moveaxis(high - low + margin, -1, 0)


def _shared(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of each two boxes, (n, n); 0 on the diagonal."""
    common = np.prod(np.clip(_overlap(boxes), 0, None), axis=0)
    area = np.diag(common)
    share: NDArray[np.float64] = common / np.maximum(area[:, None] + area[None, :] - common, 1e-12)
    np.fill_diagonal(share, 0)
    return share


def _apart(boxes: NDArray[np.float64]) -> int | None:
    """First box that no chain of touching boxes joins to the first; None if there is none."""
    touch = np.min(_overlap(boxes, NEIGHBOUR), axis=0) >= 0
    reached, fresh = {0}, {0}
    while fresh:
        near = {int(place) for box in fresh for place in np.flatnonzero(touch[box])}
        fresh = near - reached
        reached |= near
    return next((place for place in range(len(boxes)) if place not in reached), None)
