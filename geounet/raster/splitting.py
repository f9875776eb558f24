"""Share scenes with labels out between train, validation and test."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import dask
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ..core.split import Blocks, BlockSplit, assign, roles, search
from ..core.stats import ClassCounts
from ..core.windows import partition
from ..errors import SplitError
from .labels.region import BlockRegion, RegionLabels, lonlat
from .sampler import Pair, batched

SHARES: Mapping[str, float] = {"train": 0.7, "validate": 0.15, "test": 0.15}
"""Part of the labelled pixels of each class that each split gets, unless one says otherwise."""
READ = 512
"""Side, in pixels, of the windows in which labels are counted."""
READ_BATCH = 64
"""Windows counted before their sums are added."""

Rows = NDArray[np.int64]


def split_pairs(
    pairs: Sequence[Pair],
    *,
    by: Literal["scene", "group", "block"] = "group",
    shares: Mapping[str, float] | None = None,
    folds: int | None = None,
    fold: int = 0,
    size: float | None = None,
    buffer: float = 0.0,
    seed: int = 0,
) -> dict[str, list[Pair]]:
    """Scenes of each split, every class in its share in all of them as far as its pixels allow.

    The labels are read once to count them. Pairs without a labelled pixel in a split are left out of it.

    Parameters
    ----------
    pairs : sequence of Pair
        Scenes with labels of one legend.
    by : {'scene', 'group', 'block'}
        What stays whole: each scene; all scenes of a group, where a scene without one stands alone; or blocks of
        ground, by which one scene is shared between splits, and the same ground of many scenes is in one of them.
    shares : mapping of str to float, optional
        Part of the labelled pixels of each class that each split is to have; 0.7 to train, 0.15 to validate and 0.15
        to test by default. A split with none is not made.
    folds, fold : int, optional
        Instead of shares: cut into `folds` parts alike, validate with part `fold`, from 0, and train with the others.
    size, buffer : float
        Of blocks: metres from side to side, and metres that labelled pixels of two splits lie apart at least. Chips of
        one split may still show unlabelled ground of another at their edges, as far as a chip reaches; a buffer of
        half a chip's side leaves little of it.
    seed : int
        Equal seeds give equal splits.

    Returns
    -------
    dict of str to list of Pair
        By split, in the order of `shares`. By block, a pair's labels are seen in the blocks of its split alone.

    Raises
    ------
    SplitError
        Shares or folds do not make splits; there are fewer scenes, groups or blocks with labels than splits; a scene
        that is to be split by block has no place on Earth; a split got no labelled pixel.
    LegendError, LabelError
        The labels cannot be read.
    """
    if shares is not None and folds is not None:
        raise SplitError("splits are made by shares or by folds, and both were given: leave one of them out.")
    if (by == "block") != (size is not None) or (buffer and by != "block"):
        raise SplitError(
            f"by={by!r} was given with size={size} and buffer={buffer}: blocks need a size, others neither."
        )
    if folds is not None:
        parts = roles(folds, fold)
        cut = {str(number): 1 / folds for number in range(folds)}
    else:
        cut = {name: share for name, share in (shares or SHARES).items() if share}
        parts = {name: [place] for place, name in enumerate(cut)}
    rng = np.random.default_rng(seed)
    if size is not None:
        found = _by_block(pairs, Blocks(size, buffer), cut, parts, rng)
    else:
        found = _by_group(pairs, by, cut, parts, rng)
    if empty := [name for name, some in found.items() if not some]:
        raise SplitError(
            f"no labelled pixel is left for {', '.join(empty)}: the {len(pairs)} scenes have too few "
            f"{'blocks' if size else 'groups'} with labels; give more scenes"
            f"{', smaller blocks or a smaller buffer' if size else ', or split by block'}."
        )
    return found


def _by_group(
    pairs: Sequence[Pair], by: str, cut: Mapping[str, float], parts: Mapping[str, list[int]], rng: np.random.Generator
) -> dict[str, list[Pair]]:
    """Scenes of each split, groups whole."""
    counts = np.zeros((len(pairs), _classes(pairs)), np.int64)
    for index, ids in _labelled(pairs, _count):
        counts[index] += ids
    chosen = np.flatnonzero(counts.any(axis=1))
    groups = [(by == "group" and pairs[index].group) or index for index in chosen.tolist()]
    found = assign(counts[chosen], cut, rng, groups=groups)
    return {name: [pairs[index] for index in chosen[np.isin(found, of)].tolist()] for name, of in parts.items()}


def _by_block(
    pairs: Sequence[Pair],
    blocks: Blocks,
    cut: Mapping[str, float],
    parts: Mapping[str, list[int]],
    rng: np.random.Generator,
) -> dict[str, list[Pair]]:
    """Scenes of each split, their labels seen in its blocks alone."""
    classes = _classes(pairs)
    found = [(index, rows) for index, rows in _labelled(pairs, partial(_rest, blocks=blocks)) if len(rows)]
    scene = np.concatenate([np.full(len(rows), index) for index, rows in found] or [np.empty(0, np.int64)])
    rows = np.concatenate([rows for _, rows in found] or [np.empty((0, 9), np.int64)])
    numbers, places = np.unique(rows[:, :-2], return_inverse=True)
    members, which = np.unique(places.reshape(len(rows), -1), axis=0, return_inverse=True)
    if len(np.unique(members[:, 0])) < len(cut):
        raise SplitError(
            f"the labelled pixels lie in {len(np.unique(members[:, 0]))} blocks of {blocks.size:g} m, which cannot fill "
            f"{len(cut)} parts: make the blocks smaller, or give more labels."
        )
    weights = np.zeros((len(members), classes))
    np.add.at(weights, (which.ravel(), rows[:, -2]), rows[:, -1])
    part = np.empty(len(cut), np.int64)
    for place, of in enumerate(parts.values()):
        part[of] = place
    ground = BlockSplit(blocks, numbers, part[search(weights, members, cut, rng)], tuple(parts))
    near = ground.splits[members[which.ravel()]]
    kept = np.where((near == near[:, :1]).all(axis=1), near[:, 0], -1)
    return {
        name: [
            Pair(pair.scene, RegionLabels.of(pair.truth, BlockRegion(pair.scene.grid, ground, place)), pair.group)
            for index, pair in enumerate(pairs)
            if (kept[scene == index] == place).any()
        ]
        for place, name in enumerate(parts)
    }


def _classes(pairs: Sequence[Pair]) -> int:
    if not pairs:
        raise SplitError("there are no scenes to split.")
    return len(pairs[0].truth.legend)


def _labelled(pairs: Sequence[Pair], count: Callable[[Pair, Window], Rows]) -> Iterator[tuple[int, Rows]]:
    """What is counted in each window of each pair's labels, by dask, in order."""
    windows = [(index, window) for index, pair in enumerate(pairs) for window in partition(pair.scene.grid.shape, READ)]
    for some in batched(windows, READ_BATCH):
        # a partial hides the pair from dask, which would look into it
        tasks = [dask.delayed(partial(count, pairs[index]), pure=False)(window) for index, window in some]
        yield from zip((index for index, _ in some), dask.compute(*tasks), strict=True)


def _count(pair: Pair, window: Window) -> Rows:
    """Labelled pixels of each class, (K,)."""
    ids = pair.truth.read(window)
    return ClassCounts.of(ids, len(pair.truth.legend)).counts


def _rest(pair: Pair, window: Window, blocks: Blocks) -> Rows:
    """On which blocks labelled pixels rest: own block, six near ones in order, class, number of pixels; (R, 9)."""
    ids = pair.truth.read(window)
    here = ids < len(pair.truth.legend)
    if not here.any():
        return np.empty((0, 9), np.int64)
    lon, lat = lonlat(pair.scene.grid, window)[:, here]
    near = np.sort(np.broadcast_to(blocks.near(lon, lat), (6, len(lon))), axis=0)
    there = near[0] >= 0
    rows = np.vstack([blocks.at(lon, lat), near, ids[here]])[:, there]
    _, places = np.unique(rows[:-1], return_inverse=True)
    key = np.zeros(rows.shape[1], np.int64)
    for line in [*places.reshape(7, -1), rows[-1]]:  # one number for each kind of column: sorting those is quick
        key = np.unique(key * (line.max(initial=0) + 1) + line, return_inverse=True)[1]
    _, first, count = np.unique(key, return_index=True, return_counts=True)
    return np.vstack([rows[:, first], count]).T
