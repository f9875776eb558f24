"""Scenes and labels whose blocks are decoded once, and then read at the speed of memory."""

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np
from dask.base import normalize_token
from numpy.typing import NDArray
from rasterio.windows import Window

from ...errors import LabelError, SceneError
from ..labels import Labels
from ..labels.region import Region, RegionLabels
from ..scene import ArrayScene, Scene
from .disk import DiskStore
from .identity import key_of
from .stores import Arrays, Key, Store

S = TypeVar("S", Scene, Labels)

LEAST = 128
"""Side, in pixels, below which storage blocks are kept several together: a strip of one row is no unit to keep."""
LABEL_BLOCK = 512
"""Side, in pixels, of the blocks in which labels are kept; they are burnt or warped, and have none of their own."""


def cached(what: S, store: Store) -> S:
    """Scene or labels that read the same, from blocks kept in a store.

    Blocks are kept in the type of the file, with what is valid of them, so every later read of a pixel costs a copy
    from memory. Several scenes and labels may share a store.

    Parameters
    ----------
    what : Scene or Labels
        A scene that is in memory already comes back as it is.
    store : Store
        `MemoryStore`, which takes both, or `DiskStore`, which keeps scenes in files: by the content of the files and
        all that is known of how they are read, so that a later run finds them, and never what a changed file held
        before, or what another way of opening it gives. A file that is not local is known by its name alone.

    Raises
    ------
    SceneError
        A `DiskStore` was given a scene that lies in no file, such as an array.
    LabelError
        A `DiskStore` was given labels.
    """
    return cached_scene(what, store) if isinstance(what, Scene) else cached_labels(what, store)


def is_in_memory(scene: Scene) -> bool:
    """True if the pixels of a scene lie in memory, so there is nothing to compute or to read from a file once."""
    return isinstance(scene, ArrayScene) and all(pick.layer.data._in_memory for pick in scene.picks)


def cached_labels(labels: Labels, store: Store) -> "CachedLabels":
    """Labels that keep their blocks in a store; see `cached`."""
    if isinstance(labels, CachedLabels):
        return labels
    if isinstance(store, DiskStore):
        raise LabelError(f"labels are kept in memory only, not on disk ({labels.source}); use a MemoryStore for them.")
    facts = {field.name: getattr(labels, field.name) for field in fields(Labels)}
    return CachedLabels(**facts, labels=labels, store=store, name=uuid.uuid4().hex)


def cached_scene(scene: Scene, store: Store) -> Scene:
    """Scene that keeps its blocks in a store; see `cached`."""
    if isinstance(scene, CachedScene) or is_in_memory(scene):
        return scene
    name = _lasting(scene) if isinstance(store, DiskStore) else uuid.uuid4().hex
    facts = {field.name: getattr(scene, field.name) for field in fields(Scene)}
    return CachedScene(**facts, scene=scene, store=store, name=name)


def _lasting(scene: Scene) -> str:
    """Name of a scene's blocks that a later run will find, and no scene with other pixels.

    Raises
    ------
    SceneError
        Nothing tells the scene from others.
    """
    name = key_of(scene, purpose="blocks") if scene.paths else None
    if name is None:
        raise SceneError(
            f"{scene.source} lies in no file, or is of a kind that cannot be told from others, so nobody could tell later "
            "whether blocks kept on disk are still its own; use a MemoryStore."
        )
    return name


@dataclass(frozen=True, eq=False)
class CachedScene(Scene):
    """A scene whose blocks are kept in a store."""

    scene: Scene
    """Where blocks come from the first time."""
    store: Store
    name: str
    """Of the scene's blocks in the store."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that the bands lie in, in their order, each once."""
        return self.scene.paths

    @property
    def origin(self) -> dict[str, Any]:
        """Where each band comes from."""
        return self.scene.origin

    def by_nearest(self, bands: Collection[str]) -> Scene:
        """View in which some bands are taken from the nearest pixel, where they lie on another grid than the scene's."""
        return cached_scene(self.scene.by_nearest(bands), self.store)

    def __dask_tokenize__(self) -> Any:
        return normalize_token(self.scene)  # pixels are the same wherever they are kept

    @property
    def unit(self) -> tuple[int, int]:
        """Height and width of the blocks kept: storage blocks, thin ones several together."""
        height, width = (
            min(-(-LEAST // side) * side, length)
            for side, length in zip(self.block_shape, self.grid.shape, strict=True)
        )
        return height, width

    def keys(self, window: Window) -> Iterator[Key]:
        """Blocks that a window meets; it may stick out of the scene."""
        return ((self.name, *place) for place in _places(window, self.unit, self.grid.shape))

    def _take(self, places: Sequence[int]) -> Scene:
        return cached_scene(self.scene._take(places), self.store)

    def _fill(self, window: Window, out: NDArray[Any]) -> NDArray[np.bool_]:
        try:
            return self._copy(window, out)
        except SceneError:  # a block may be damaged where the window does not need it
            return self.scene._fill(window, out)

    def _copy(self, window: Window, out: NDArray[np.float32]) -> NDArray[np.bool_]:
        valid = np.empty(out.shape[1:], np.bool_)
        for place in _places(window, self.unit, self.grid.shape):
            block = _block(place, self.unit, self.grid.shape)
            pixels, good = self.store.block((self.name, *place), partial(self._make, block))
            (rows, cols), (of_rows, of_cols) = _shared(window, block)
            out[:, rows, cols] = pixels[:, of_rows, of_cols]
            valid[rows, cols] = good[of_rows, of_cols]
        return valid

    def _make(self, block: Window) -> Arrays:
        """Pixels of a block, in the file's type where float32 holds no more than it, and where they are valid."""
        if self.scene.as_stored:
            stored = np.empty((len(self.bands), block.height, block.width), self.dtype)
            return stored, self.scene._fill(block, stored)
        chip = self.scene.read(block)
        if self.dtype == np.float32 or not np.can_cast(self.dtype, np.float32):
            return chip.pixels, chip.valid
        with np.errstate(invalid="ignore"):
            native = chip.pixels.astype(self.dtype)
        # what was resampled may lie between two integers
        return (native if np.array_equal(native, chip.pixels) else chip.pixels), chip.valid


@dataclass(frozen=True, eq=False)
class CachedLabels(Labels):
    """Labels whose blocks are kept in a store."""

    labels: Labels
    """Where blocks come from the first time."""
    store: Store
    name: str
    """Of the labels' blocks in the store."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that they come from."""
        return self.labels.paths

    @property
    def region(self) -> Region | None:
        """Where the labels are seen; None if that is everywhere."""
        return self.labels.region if isinstance(self.labels, RegionLabels) else None

    def __dask_tokenize__(self) -> Any:
        return normalize_token(self.labels)

    @property
    def unit(self) -> tuple[int, int]:
        """Height and width of the blocks kept."""
        height, width = self.grid.shape
        return min(LABEL_BLOCK, height), min(LABEL_BLOCK, width)

    def keys(self, window: Window) -> Iterator[Key]:
        """Blocks that a window meets; it may stick out of the image."""
        return ((self.name, *place) for place in _places(window, self.unit, self.grid.shape))

    def _ids(self, window: Window) -> NDArray[np.unsignedinteger]:
        ids = np.empty((window.height, window.width), self.legend.id_dtype)
        for place in _places(window, self.unit, self.grid.shape):
            block = _block(place, self.unit, self.grid.shape)
            (kept,) = self.store.block((self.name, *place), partial(self._make, block))
            here, there = _shared(window, block)
            ids[here] = kept[there]
        return ids

    def _make(self, block: Window) -> Arrays:
        return (self.labels.read(block),)


def _places(window: Window, unit: tuple[int, int], shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Row and column of the blocks that a window meets, row by row."""
    rows, cols = (
        range(max(start, 0) // side, -(-min(start + size, length) // side))
        for start, size, side, length in zip(
            (window.row_off, window.col_off), (window.height, window.width), unit, shape, strict=True
        )
    )
    return ((row, col) for row in rows for col in cols)


def _block(place: tuple[int, int], unit: tuple[int, int], shape: tuple[int, int]) -> Window:
    """Window of a block, cut off at the end of the scene."""
    top, left = place[0] * unit[0], place[1] * unit[1]
    return Window(left, top, min(unit[1], shape[1] - left), min(unit[0], shape[0] - top))


def _shared(window: Window, block: Window) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns that a window and a block share, as seen from the window and from the block."""
    y0, x0 = max(window.row_off, block.row_off), max(window.col_off, block.col_off)
    y1 = min(window.row_off + window.height, block.row_off + block.height)
    x1 = min(window.col_off + window.width, block.col_off + block.width)

    def seen(frame: Window) -> tuple[slice, slice]:
        return slice(y0 - frame.row_off, y1 - frame.row_off), slice(x0 - frame.col_off, x1 - frame.col_off)

    return seen(window), seen(block)
