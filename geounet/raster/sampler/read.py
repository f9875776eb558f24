"""Read the windows of a plan ahead, wherever dask is set to work, and stack them into batches."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.ordered import in_order
from ...errors import ConfigError, GeoUNetError, LegendError, SceneError
from .cache import CachedLabels, CachedScene, cached_labels, cached_scene
from .crew import Crew, crew
from .pairs import Batch, Pair, Sample, batched, check_bands
from .stores import Key, PlannedStore

PAUSE = 0.1
"""Seconds before a window is read for the second time; twice as long before each further time."""

_log = logging.getLogger(__name__)


def read_batch(pairs: Sequence[Pair], samples: Sequence[Sample]) -> Batch:
    """Read some samples as one batch; see `read_batches`."""
    return next(read_batches(pairs, samples, len(samples)))


def read_batches(
    pairs: Sequence[Pair],
    plan: Iterable[Sample],
    batch_size: int,
    *,
    ahead: int = 2,
    retries: int = 2,
    on_error: Literal["raise", "skip"] = "raise",
) -> Iterator[Batch]:
    """Batches of a plan in its order, the next `ahead` under way while one is used; the last may be smaller.

    Windows are read on the dask scheduler that is active: threads as a rule; processes, or the workers of a
    `distributed.Client`, which get the pairs once. All give the same batches. When threads read, a block of a file
    that the plan needs more than once is decoded once, and kept until the plan is done with it, in at most a quarter
    of the memory free at the start; scenes that are `cached` already are left to their own store. Processes and
    clusters read each batch in the order of scenes and blocks, and keep only what the pairs were told to.

    Parameters
    ----------
    pairs : sequence of Pair
        All of the same bands, in the same order.
    plan : iterable of Sample
        All windows of one size.
    batch_size : int
        Samples a batch.
    ahead : int
        Batches under way beside the one in use, at least 1: what bounds the memory.
    retries : int
        How often a window that cannot be read is tried again, after a pause.
    on_error : {"raise", "skip"}
        What to do when it still cannot: raise, or leave the sample out of its batch and say so in the log. A batch
        of which nothing is left is left out.

    Raises
    ------
    SceneError, LabelError
        A window cannot be read; the message names the batch, the file and the window. Of the type raised by the read.
    LegendError
        Labels hold a code that the legend does not know; it is never skipped.
    BandMismatchError
        The scenes differ in their bands, or in their order.
    ConfigError
        A number is out of range, or the dask scheduler cannot be used.
    """
    if min(batch_size, ahead) < 1 or retries < 0 or on_error not in ("raise", "skip"):
        raise ConfigError(
            f"batches need batch_size and ahead of 1 or more, retries of 0 or more, and on_error raise or skip, not "
            f"{batch_size}, {ahead}, {retries}, {on_error!r}."
        )
    check_bands(pairs)
    return _batches(pairs, list(plan), batch_size, ahead, retries, skip=on_error == "skip")


def _batches(
    pairs: Sequence[Pair], plan: Sequence[Sample], batch_size: int, ahead: int, retries: int, *, skip: bool
) -> Iterator[Batch]:
    fill = next((pair.labels.legend.ignore_index for pair in pairs if pair.labels is not None), None)

    def prepare(*, share_memory: bool) -> _Reader:
        return _Reader(keeping(pairs, plan) if share_memory else pairs, fill, retries)

    # the crew leaves first, so that the stacker never waits for what nobody reads
    with ThreadPoolExecutor(1, thread_name_prefix="geounet-stack") as stacker, crew(prepare) as hands:
        begun = (_begin(hands, pairs, fill, place, samples) for place, samples in enumerate(batched(plan, batch_size)))
        with closing(in_order(stacker, lambda batch: batch.stacked(skip), begun, ahead)) as stacked:
            for batch in stacked:
                if batch is not None:
                    yield batch


@dataclass(frozen=True)
class _Reader:
    """What each member of a crew needs to read samples."""

    pairs: Sequence[Pair]
    ignore_index: int | None
    """Of scenes without labels, beside others that have some; None where none has."""
    retries: int

    def read(self, sample: Sample, image: NDArray[np.float32], mask: NDArray[np.int64] | None) -> "_Failure | None":
        """Write a sample's image and mask into their places; why it cannot be read, if it cannot."""
        failure = None
        for again in range(self.retries + 1):
            if again:
                time.sleep(PAUSE * 2 ** (again - 1))
            try:
                self._write(self.pairs[sample.scene], sample.window, image, mask)
            except LegendError:
                raise
            except (GeoUNetError, OSError) as error:
                failure = _Failure(type(error) if isinstance(error, GeoUNetError) else SceneError, str(error))
            else:
                return None
        return failure

    def _write(self, pair: Pair, window: Window, image: NDArray[np.float32], mask: NDArray[np.int64] | None) -> None:
        valid = pair.scene.read(window, image).valid
        whole = valid.all()
        if not whole:
            np.copyto(image, np.nan, where=~valid)
        if mask is None or self.ignore_index is None:
            return
        if pair.labels is None:
            mask[...] = self.ignore_index
            return
        mask[...] = pair.labels.read(window)
        if not whole:
            mask[~valid] = pair.labels.legend.ignore_index


class _Failure(NamedTuple):
    """Why a sample cannot be read; the error itself may hold what cannot leave its process."""

    kind: type[GeoUNetError]
    why: str


class _Part(NamedTuple):
    """Some samples of a batch, read in one call."""

    failures: list[_Failure | None]
    """Why each cannot be read; None for one that was."""
    image: NDArray[np.float32] | None = None
    """(n, C, H, W); None where the samples are in their places in the batch already."""
    mask: NDArray[np.int64] | None = None


def _read_here(reader: _Reader, sample: Sample, image: NDArray[np.float32], mask: NDArray[np.int64] | None) -> _Part:
    """A sample, read into its place."""
    return _Part([reader.read(sample, image, mask)])


def _read_away(reader: _Reader, samples: Sequence[Sample], shape: tuple[int, int, int]) -> _Part:
    """Samples, read in another process."""
    image, mask = _empty(len(samples), shape, reader.ignore_index)
    masks = [None] * len(samples) if mask is None else mask
    return _Part([reader.read(*places) for places in zip(samples, image, masks, strict=True)], image, mask)


def _empty(
    count: int, shape: tuple[int, int, int], ignore_index: int | None
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Arrays of a batch, nothing in them yet."""
    mask = None if ignore_index is None else np.empty((count, *shape[1:]), np.int64)
    return np.empty((count, *shape), np.float32), mask


@dataclass(frozen=True)
class _Begun:
    """A batch whose samples are being read."""

    place: int
    """Of the batch in the plan, from 0."""
    samples: Sequence[Sample]
    sources: Sequence[str]
    """What messages call the scene of each sample."""
    image: NDArray[np.float32]
    mask: NDArray[np.int64] | None
    parts: Sequence[tuple[Sequence[int], Future[_Part]]]
    """Samples, by their place in the batch, that are read in one call, and what will come of it."""

    def stacked(self, skip: bool) -> Batch | None:
        """The batch, waited for; None if nothing of it could be read."""
        failures: dict[int, _Failure] = {}
        for places, future in self.parts:
            try:
                part = future.result()
            except Exception as error:  # a worker lost again and again, an unknown class code
                error.add_note("\n".join(self._told(place, "being read") for place in places))
                raise
            failures |= {place: failure for place, failure in zip(places, part.failures, strict=True) if failure}
            if part.image is not None:
                self.image[places] = part.image
                if self.mask is not None and part.mask is not None:
                    self.mask[places] = part.mask
        for place, failure in sorted(failures.items()):
            told = self._told(place, failure.why)
            if not skip:
                raise failure.kind(told)
            _log.warning("left out: %s", told)
        if not failures:
            return Batch(self.image, self.mask, tuple(self.samples))
        left = [place for place in range(len(self.samples)) if place not in failures]
        samples = tuple(self.samples[place] for place in left)
        return Batch(self.image[left], None if self.mask is None else self.mask[left], samples) if left else None

    def _told(self, place: int, why: str) -> str:
        window = self.samples[place].window
        return (
            f"batch {self.place + 1}, sample {place + 1} ({self.sources[place]}, rows {window.row_off} to "
            f"{window.row_off + window.height - 1}, columns {window.col_off} to {window.col_off + window.width - 1}): "
            f"{why}"
        )


def _begin(
    hands: Crew, pairs: Sequence[Pair], ignore_index: int | None, place: int, samples: Sequence[Sample]
) -> _Begun:
    """Hand the samples of a batch out, those that lie in the same blocks together."""

    def block(k: int) -> tuple[int, int, int]:
        scene, window = samples[k]
        height, width = pairs[scene].scene.block_shape
        return scene, window.row_off // height, window.col_off // width

    first = samples[0].window
    if any((window.height, window.width) != (first.height, first.width) for _, window in samples):
        raise ConfigError(f"the windows of batch {place + 1} have different sizes, and cannot be stacked.")
    shape = len(pairs[0].scene.bands), first.height, first.width
    image, mask = _empty(len(samples), shape, ignore_index)
    order = sorted(range(len(samples)), key=block)
    parts: list[tuple[Sequence[int], Future[_Part]]]
    if hands.shares_memory:
        masks = [None] * len(samples) if mask is None else mask
        parts = [([k], hands.submit(_read_here, samples[k], image[k], masks[k])) for k in order]
    else:  # a call elsewhere is worth its way only with several
        shares = batched(order, -(-len(order) // hands.size))
        parts = [(some, hands.submit(_read_away, [samples[k] for k in some], shape)) for some in shares]
    return _Begun(place, samples, [pairs[sample.scene].scene.source for sample in samples], image, mask, parts)


def keeping(pairs: Sequence[Pair], plan: Sequence[Sample]) -> list[Pair]:
    """Pairs that keep a block in memory while the plan needs it again.

    Scenes are kept where a block is needed twice; labels, where their blocks have fewer pixels than the windows.
    """
    asked: dict[int, list[tuple[int, Window]]] = defaultdict(list)
    for place, sample in enumerate(plan):
        asked[sample.scene].append((place, sample.window))
    store = PlannedStore()
    kept = list(pairs)
    for index, windows in asked.items():
        pair = pairs[index]
        scene = cached_scene(pair.scene, store)
        if isinstance(scene, CachedScene) and scene is not pair.scene:
            uses = _uses(scene, windows)
            if len(uses) < sum(map(len, uses.values())):
                store.expect(uses)
                pair = replace(pair, scene=scene)
        if pair.labels is not None and not isinstance(pair.labels, CachedLabels):
            labels = cached_labels(pair.labels, store)
            uses = _uses(labels, windows)
            if len(uses) * math.prod(labels.unit) < sum(window.height * window.width for _, window in windows):
                store.expect(uses)
                pair = replace(pair, labels=labels)
        kept[index] = pair
    return kept


def _uses(what: CachedScene | CachedLabels, windows: Iterable[tuple[int, Window]]) -> dict[Key, list[int]]:
    """When each block of a scene or labels is asked for."""
    uses: dict[Key, list[int]] = defaultdict(list)
    for place, window in windows:
        for key in what.keys(window):
            uses[key].append(place)
    return uses
