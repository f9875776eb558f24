"""Plan the training windows, read them ahead with dask, and stack them into batches."""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import dask
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ..core.grid import common_grid
from ..core.ordered import in_order
from ..core.stats import BandStats, ClassCounts
from ..core.windows import partition
from .labels import Labels
from .scene import Scene

T = TypeVar("T")

SURVEY_WINDOW = 512
"""Side, in pixels, of the windows in which whole scenes are counted."""
SURVEY_BATCH = 64
"""Windows counted before their sums are added."""


@dataclass(frozen=True)
class Pair:
    """A scene and its labels, on one grid.

    Raises
    ------
    GridError
        The labels were opened for another grid.
    """

    scene: Scene
    labels: Labels
    group: str = field(default="")
    """Scenes of one group share ground, or a date; they are drawn as one and never split."""

    def __post_init__(self) -> None:
        common_grid([(self.scene.source, self.scene.grid), (self.labels.source, self.labels.grid)])


class Sample(NamedTuple):
    """Where to cut a chip: the place of its scene in the list, and the window."""

    scene: int
    window: Window


@dataclass(frozen=True)
class Batch:
    """Chips and their labels, stacked."""

    image: NDArray[np.float32]
    """(N, C, H, W), values as stored in the scenes; NaN where a pixel cannot be used."""
    mask: NDArray[np.int64]
    """(N, H, W), true class ids; the legend's `ignore_index` where there is no label, or no valid pixel."""


def plan_random(
    pairs: Sequence[Pair], chip_size: int, count: int, rng: np.random.Generator, *, group_power: float = 1.0
) -> list[Sample]:
    """Windows drawn at random: first a group, then a scene of it by its area, then a place in the scene.

    Parameters
    ----------
    pairs : sequence of Pair
        What to draw from.
    chip_size : int
        Side of a window, in pixels. A smaller scene is taken whole, with the window sticking out evenly.
    count : int
        How many windows.
    rng : numpy.random.Generator
        The only source of chance: equal states give equal plans.
    group_power : float
        A group is drawn in proportion to its area to this power: 1 draws every pixel alike, 0 every group alike,
        so that one place with many scenes does not drown the others.
    """
    area = np.array([math.prod(pair.scene.grid.shape) for pair in pairs], dtype=float)
    names = [pair.group or f"\0{index}" for index, pair in enumerate(pairs)]  # a scene without a group stands alone
    total = {name: area[[n == name for n in names]].sum() for name in set(names)}
    share = np.array([a / total[n] * total[n] ** group_power for a, n in zip(area, names, strict=True)])
    drawn = rng.choice(len(pairs), size=count, p=share / share.sum())
    places = rng.random((count, 2))
    return [
        Sample(int(scene), _place(pairs[scene].scene.grid.shape, chip_size, place))
        for scene, place in zip(drawn, places, strict=True)
    ]


def _place(shape: tuple[int, int], size: int, place: NDArray[np.float64]) -> Window:
    """Window of `size` at a relative place in `shape`; centred along an axis that is shorter."""
    row, col = (
        int(part * (length - size + 1)) if length > size else (length - size) // 2
        for length, part in zip(shape, place, strict=True)
    )
    return Window(col, row, size, size)


def plan_grid(pairs: Sequence[Pair], chip_size: int) -> list[Sample]:
    """Windows side by side that hold every pixel of every scene once; those at the end stick out."""
    return [
        Sample(index, Window(window.col_off, window.row_off, chip_size, chip_size))
        for index, pair in enumerate(pairs)
        for window in partition(pair.scene.grid.shape, chip_size)
    ]


def read_batch(pairs: Sequence[Pair], samples: Sequence[Sample]) -> Batch:
    """Read the samples on the active dask scheduler: threads by default, or a cluster, and stack them."""
    # a partial hides the scene from dask, which would compute all of a lazy array that it finds in an argument
    tasks = [dask.delayed(partial(_read, pairs[sample.scene]), pure=False)(sample.window) for sample in samples]
    images, masks = zip(*dask.compute(*tasks), strict=True)
    return Batch(np.stack(images), np.stack(masks))


def read_batches(pairs: Sequence[Pair], plan: Iterable[Sample], batch_size: int, *, ahead: int = 2) -> Iterator[Batch]:
    """Batches of a plan in its order, the next `ahead` under way while one is used; the last may be smaller."""
    with ThreadPoolExecutor(1, thread_name_prefix="geounet-sampler") as pool:
        yield from in_order(pool, lambda samples: read_batch(pairs, samples), batched(plan, batch_size), ahead)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last perhaps shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(pair: Pair, window: Window) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    chip = pair.scene.read(window)
    ids = pair.labels.read(window).astype(np.int64)
    ids[~chip.valid] = pair.labels.legend.ignore_index
    return chip.filled(np.full(len(chip.pixels), np.nan, np.float32)), ids


@dataclass(frozen=True)
class Survey:
    """What the pixels of training scenes are like; two of them add."""

    stats: BandStats
    counts: ClassCounts

    def __add__(self, other: "Survey") -> "Survey":
        return Survey(self.stats + other.stats, self.counts + other.counts)


def survey(pairs: Sequence[Pair]) -> Survey:
    """Band statistics over the valid pixels, and class counts over the labelled ones, in one pass by dask."""
    windows = [(pair, window) for pair in pairs for window in partition(pair.scene.grid.shape, SURVEY_WINDOW)]
    classes = len(pairs[0].labels.legend)
    total = Survey(BandStats.empty(len(pairs[0].scene.bands)), ClassCounts.empty(classes))
    for some in batched(windows, SURVEY_BATCH):  # a sum a batch, so that memory does not grow with the scenes
        total = sum(
            dask.compute(*(dask.delayed(partial(_survey, pair), pure=False)(window) for pair, window in some)),
            start=total,
        )
    return total


def _survey(pair: Pair, window: Window) -> Survey:
    chip = pair.scene.read(window)
    ids = pair.labels.read(window)
    classes = len(pair.labels.legend)
    return Survey(BandStats.of(chip.pixels, chip.valid), ClassCounts.of(ids[chip.valid], classes))
