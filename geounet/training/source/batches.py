"""Batches pass after pass: of any kind, and those cut from labelled scenes."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor

from ...core.cells import Cells
from ...raster.sampler import Batch, Pair, Sample, plan_grid, plan_random, plan_shares, read_batches
from ..options import Sampling
from ..together.team import Team

Tensors: TypeAlias = dict[str, Tensor]


class Place(NamedTuple):
    """Where a chip was cut."""

    name: str
    """Of the scene; where scenes have none, the number of the chip."""
    window: Window | None = None


class Batches:
    """Batches of tensors, pass after pass, and how long each pass kept its user waiting.

    Parameters
    ----------
    make : callable
        The batches of a pass, told its number, from 1 as epochs are. Equal numbers give equal batches.
    length : int
        Batches a pass.
    """

    def __init__(self, make: Callable[[int], Iterator[Tensors]], length: int) -> None:
        self._make, self._length = make, length
        self.passes = 0
        """Passes begun, and so the number of the latest."""
        self.waited = 0.0
        """Seconds that the latest pass was waited for."""
        self.shares: NDArray[np.float64] | None = None
        """Share of the labelled pixels that each class has in the batches, (K,), where it is not that of the ground."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Tensors]:
        # runs when the first batch is asked for: Lightning makes an iterator more than it reads from
        self.passes += 1
        yield from self._timed(self._make(self.passes))

    def placed(self) -> Iterator[tuple[Tensors, Sequence[Place]]]:
        """Batches of the first pass once more, and where each chip of them was cut."""
        count = 0
        for batch in self._make(1):
            chips = len(batch["image"])
            yield batch, [Place(f"chip {number}") for number in range(count + 1, count + chips + 1)]
            count += chips

    def share(self, number: int, team: Team, ignore_index: int) -> Iterator[Tensors]:
        """Own samples of each batch of a pass, for one of several processes; see `Batches`.

        As many batches as of the pass. One that has too few samples for all processes comes with a sample of another
        one's, none of whose pixels has a label. This reads whole batches, and drops what is not its own.
        """
        for batch in self._make(number):
            if len(own := team.part(batch["image"])):
                yield {"image": own, "mask": team.part(batch["mask"])}
            else:
                yield unlabelled({key: batch[key][:1] for key in ("image", "mask")}, ignore_index)

    def _timed(self, batches: Iterator[Tensors]) -> Iterator[Tensors]:
        self.waited = 0.0
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch


class Epochs(Batches):
    """Training batches; each pass over them draws anew, and equal seeds draw alike."""

    def __init__(
        self, pairs: Sequence[Pair], sampler: Sampling, batch_size: int, cells: Sequence[Cells] | None = None
    ) -> None:
        self._pairs, self._sampler, self._batch_size, self._cells = pairs, sampler, batch_size, cells or None
        self._count = sampler.chips or _tiles(pairs, sampler, self._cells)
        super().__init__(self._draw, math.ceil(self._count / batch_size))
        if sampler.shares is not None and cells:
            self.shares = plan_shares(self.plan(1), cells)

    def plan(self, epoch: int) -> list[Sample]:
        """Windows of a pass, numbered from 1."""
        sampler, rng = self._sampler, np.random.default_rng([self._sampler.seed, epoch])
        return plan_random(
            self._pairs, sampler.side, self._count, rng, group_power=sampler.group_power, cells=self._cells,
            min_valid=sampler.min_valid, shares=sampler.shares,
        )  # fmt: skip

    def samples(self, epoch: int, part: slice) -> Iterator[tuple[Sample, Tensors]]:
        """Samples of a part of a pass one by one, ``image`` (C, H, W) and ``mask`` (H, W)."""
        for batch in _read(self._pairs, self.plan(epoch)[part], self._batch_size, self._sampler):
            tensors = to_tensors(batch)
            for place, sample in enumerate(batch.samples):
                yield sample, {key: value[place] for key, value in tensors.items()}

    def placed(self) -> Iterator[tuple[Tensors, Sequence[Place]]]:
        """Batches of the first pass once more, and the scene and window of each chip."""
        return (_placed(self._pairs, batch) for batch in self._read(1))

    def share(self, number: int, team: Team, ignore_index: int) -> Iterator[Tensors]:
        """Own samples of each batch of a pass; no others are read."""
        return _share(self._pairs, self.plan(number), self._batch_size, self._sampler, team, ignore_index)

    def _draw(self, epoch: int) -> Iterator[Tensors]:
        return map(to_tensors, self._read(epoch))

    def _read(self, epoch: int) -> Iterator[Batch]:
        return _read(self._pairs, self.plan(epoch), self._batch_size, self._sampler)


def _tiles(pairs: Sequence[Pair], sampler: Sampling, cells: Sequence[Cells] | None) -> int:
    """Windows that tile the scenes, or what is labelled in them where windows with little of that are left out."""
    if not (cells and sampler.min_valid):
        return len(plan_grid(pairs, sampler.side))
    labelled = sum(int(one.totals[:-1].sum()) for one in cells)
    return max(1, math.ceil(labelled / sampler.side**2))


class Chips(Batches):
    """Validation batches: every pixel once."""

    def __init__(self, pairs: Sequence[Pair], sampler: Sampling, batch_size: int) -> None:
        self._pairs, self._plan = pairs, plan_grid(pairs, sampler.side)
        self._batch_size, self._sampler = batch_size, sampler
        super().__init__(lambda _: map(to_tensors, self._read()), math.ceil(len(self._plan) / batch_size))

    def placed(self) -> Iterator[tuple[Tensors, Sequence[Place]]]:
        """Batches, and the scene and window of each chip; one that could not be read is left out of both."""
        return (_placed(self._pairs, batch) for batch in self._read())

    def share(self, number: int, team: Team, ignore_index: int) -> Iterator[Tensors]:  # noqa: ARG002
        """Own samples of each batch; no others are read."""
        return _share(self._pairs, self._plan, self._batch_size, self._sampler, team, ignore_index)

    def _read(self) -> Iterator[Batch]:
        return _read(self._pairs, self._plan, self._batch_size, self._sampler)


def _read(pairs: Sequence[Pair], plan: Sequence[Sample], batch_size: int, sampler: Sampling) -> Iterator[Batch]:
    return read_batches(
        pairs, plan, batch_size, ahead=sampler.ahead, retries=sampler.retries, on_error=sampler.on_error
    )


def _share(
    pairs: Sequence[Pair], plan: Sequence[Sample], batch_size: int, sampler: Sampling, team: Team, ignore_index: int
) -> Iterator[Tensors]:
    """Batches of one of several processes; see `Batches.share`."""
    whole = [plan[start : start + batch_size] for start in range(0, len(plan), batch_size)]
    own = [sample for batch in whole for sample in team.part(batch)]
    yield from map(to_tensors, _read(pairs, own, len(team.part(range(batch_size))), sampler))
    if whole and not team.part(whole[-1]):  # the last batch alone can be that small
        yield from (unlabelled(to_tensors(one), ignore_index) for one in _read(pairs, whole[-1][:1], 1, sampler))


def unlabelled(batch: Tensors, ignore_index: int) -> Tensors:
    """Batch that teaches nothing and counts for nothing."""
    return batch | {"mask": torch.full_like(batch["mask"], ignore_index)}


def _placed(pairs: Sequence[Pair], batch: Batch) -> tuple[Tensors, list[Place]]:
    return to_tensors(batch), [Place(pairs[sample.scene].scene.source, sample.window) for sample in batch.samples]


def to_tensors(batch: Batch) -> Tensors:
    """Batch under torchgeo's keys: ``image`` (N, C, H, W) float32, ``mask`` (N, H, W) int64."""
    image = torch.from_numpy(batch.image).contiguous(memory_format=torch.channels_last)
    return {"image": image} | ({} if batch.mask is None else {"mask": torch.from_numpy(batch.mask)})
