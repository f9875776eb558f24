"""Scenes that hold the same pixels, wherever they say they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import dask
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.windows import partition
from ..sampler import Pair, batched
from .leaks import Overlap

Hashes = NDArray[np.uint64]
Layer = Literal["image", "labels"]

WINDOW = 1024
"""Side, in pixels, of the windows in which scenes are read."""
WINDOW_BATCH = 32
EVERY = {"image": 32, "labels": 4}
"""One patch in so many is kept: the one whose hash it divides, whatever its place."""
PATCH = 8
"""Side, in pixels, of a patch."""
CHANGES = {"image": 0.5, "labels": 0.12}
"""Changes from a pixel to its neighbour, as part of all neighbours in a patch, below which it tells nothing."""
VOTES = {"image": 3, "labels": 4}
"""Patches that two scenes must share at one shift."""
AGREEMENT = 0.9
"""Cohen's κ of two label maps over what they share: two places may have a few patches of classes in common."""
CROWD = 64
"""Of a patch that more scenes hold, each is compared with the next alone; clusters come out the same."""
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Odd constants of splitmix64 (Steele, Lea, Flood 2014)."""


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Patches that were kept, (P,) each."""

    hashes: Hashes
    scene: NDArray[np.int64]
    row: NDArray[np.int64]
    """Of a patch's upper-left pixel in its scene."""
    col: NDArray[np.int64]


def repeated(pairs: Sequence[tuple[int, Pair]], layer: Layer) -> Iterator[Overlap]:
    """Pairs of scenes in which the same pixels stand, at any shift by whole pixels.

    Each scene is known by the hashes of some of its patches, chosen by their content, so that two scenes choose the
    same patches of what they share [1]_. Overlaps of 32 × 32 pixels are found all but surely. Copies that were turned,
    resampled or rescaled are not: their pixels differ.

    Parameters
    ----------
    pairs : sequence of (int, Pair)
        Places of scenes, ascending, and the scenes.
    layer : {'image', 'labels'}
        What to compare. A static label map shows that two images of different dates are of one place.

    References
    ----------
    .. [1] U. Manber, Finding similar files in a large file system, USENIX Winter 1994.
    """
    prints = _fingerprints(pairs, layer)
    known = dict(pairs)
    links = np.concatenate(list(_links(prints)) or [np.empty((0, 4), np.int64)])
    links, votes = np.unique(links, axis=0, return_counts=True)
    order = np.lexsort((-votes, links[:, 1], links[:, 0]))  # the best shift of each pair first
    links, votes = links[order], votes[order]
    _, first = np.unique(links[:, :2], axis=0, return_index=True)
    for (one, two, down, right), count in zip(links[first].tolist(), votes[first].tolist(), strict=True):
        if count >= VOTES[layer] and (layer == "image" or _agree(known[one], known[two], (down, right))):
            shared, _ = _shared(known[one], known[two], (down, right))
            pixels = min(pair.scene.grid.shape[0] * pair.scene.grid.shape[1] for pair in (known[one], known[two]))
            yield Overlap(one, two, shared.height * shared.width / pixels, layer, shift=(down, right))


def patches(
    pixels: NDArray[Any], valid: NDArray[np.bool_], layer: Layer
) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Hashes, rows and columns of the patches of an array that are kept.

    Parameters
    ----------
    pixels : array (C, H, W)
    valid : array (H, W) of bool
        A patch with a pixel that cannot be used is not kept.
    """
    side = PATCH
    if min(valid.shape) < side:
        nothing = np.empty(0, np.int64)
        return nothing.astype(np.uint64), nothing, nothing
    value = np.zeros(valid.shape, np.uint64)
    for band in pixels.astype(np.float32) + np.float32(0):  # there is one zero
        value = _mixed((value + MIX[0]) ^ band.view(np.uint32).astype(np.uint64))
    hashes = _mixed(_rolled(_rolled(value, side, MIX[1]).T, side, MIX[2]).T)
    row, col = np.nonzero(hashes % np.uint64(EVERY[layer]) == 0)
    differs = np.zeros(valid.shape, np.int64)
    differs[:, 1:] += value[:, 1:] != value[:, :-1]
    differs[1:] += value[1:] != value[:-1]
    told = _sums(differs[1:, 1:], row, col, side - 1) >= CHANGES[layer] * 2 * (side - 1) ** 2
    told &= _sums(~valid, row, col, side) == 0
    return hashes[row[told], col[told]], row[told], col[told]


def _fingerprints(pairs: Sequence[tuple[int, Pair]], layer: Layer) -> Fingerprints:
    """Fingerprints of all scenes, by dask."""
    if not pairs:
        nothing = np.empty(0, np.int64)
        return Fingerprints(nothing.astype(np.uint64), nothing, nothing, nothing)
    windows = [(place, pair, window) for place, pair in pairs for window in partition(pair.scene.grid.shape, WINDOW)]
    scenes, parts = [], []
    for some in batched(windows, WINDOW_BATCH):
        # a partial hides the pair from dask, which would look into it
        tasks = [dask.delayed(partial(_read, pair, layer=layer), pure=False)(window) for _, pair, window in some]
        for (place, _, _), part in zip(some, dask.compute(*tasks), strict=True):
            scenes.append(np.full(len(part[0]), place))
            parts.append(part)
    hashes, row, col = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Fingerprints(hashes, np.concatenate(scenes), row, col)


def _read(pair: Pair, window: Window, layer: Layer) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Patches whose upper-left pixel is in a window."""
    (height, width), more = pair.scene.grid.shape, PATCH - 1
    row, col = window.row_off, window.col_off
    wider = Window(col, row, min(window.width + more, width - col), min(window.height + more, height - row))
    if layer == "image":
        chip = pair.scene.read(wider)
        hashes, rows, cols = patches(chip.pixels, chip.valid, layer)
    else:
        ids = pair.truth.read(wider)
        hashes, rows, cols = patches(ids[None], ids < len(pair.truth.legend), layer)
    return hashes, rows + row, cols + col


def _links(prints: Fingerprints) -> Iterator[NDArray[np.int64]]:
    """Scene, other scene and shift of each two patches alike in two scenes, (L, 4)."""
    order = np.lexsort((prints.scene, prints.hashes))
    hashes = prints.hashes[order]
    rows = np.column_stack([prints.scene, prints.row, prints.col])[order]
    starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else np.empty(0, np.int64)
    crowd = np.repeat(np.diff(np.append(starts, len(hashes))), np.diff(np.append(starts, len(hashes))))
    for step in range(1, CROWD):
        one, two = np.flatnonzero(hashes[:-step] == hashes[step:]), None
        if not len(one):
            return
        if step > 1:
            one = one[crowd[one] <= CROWD]
        two = one + step
        apart = rows[one, 0] != rows[two, 0]
        a, b = rows[one[apart]], rows[two[apart]]
        yield np.column_stack([a[:, 0], b[:, 0], a[:, 1:] - b[:, 1:]])


def _shared(one: Pair, two: Pair, shift: tuple[int, int]) -> tuple[Window, Window]:
    """What two scenes share when the second is shifted, in pixels of each."""
    (top, height), (left, width) = (
        (max(0, by), min(a, by + b) - max(0, by))
        for a, b, by in zip(one.scene.grid.shape, two.scene.grid.shape, shift, strict=True)
    )
    return Window(left, top, width, height), Window(left - shift[1], top - shift[0], width, height)


def _agree(one: Pair, two: Pair, shift: tuple[int, int]) -> bool:
    """Tell whether two label maps are the same in what they share, or in the middle of it, beyond chance."""
    first, second = (
        pair.truth.read(_middle(window)) for pair, window in zip((one, two), _shared(one, two, shift), strict=True)
    )
    classes = len(one.truth.legend)
    both = (first < classes) & (second < classes)
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (first[both], second[both]), 1)
    total = confusion.sum()
    chance = confusion.sum(axis=0) @ confusion.sum(axis=1)
    return bool(np.trace(confusion) * total - chance >= AGREEMENT * (total**2 - chance) > 0)


def _middle(window: Window) -> Window:
    """The middle of a window that is larger than one read."""
    height, width = min(window.height, WINDOW), min(window.width, WINDOW)
    return Window(
        window.col_off + (window.width - width) // 2, window.row_off + (window.height - height) // 2, width, height
    )


def _mixed(value: Hashes) -> Hashes:
    """Each number's bits spread over all of it."""
    value = (value ^ (value >> np.uint64(30))) * MIX[1]
    value = (value ^ (value >> np.uint64(27))) * MIX[2]
    return value ^ (value >> np.uint64(31))


def _rolled(value: Hashes, side: int, base: np.uint64) -> Hashes:
    """Polynomial hash of `side` neighbours along the last axis, modulo 2⁶⁴."""
    found = value[:, : value.shape[1] - side + 1].copy()
    for step in range(1, side):
        found *= base
        found += value[:, step : value.shape[1] - side + 1 + step]
    return found


def _sums(values: NDArray[Any], row: NDArray[np.int64], col: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Sums of squares of an array, each from its upper-left corner."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int64)
    table[1:, 1:] = values.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    return table[row + side, col + side] - table[row, col + side] - table[row + side, col] + table[row, col]
