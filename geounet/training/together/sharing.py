"""Batches shared out among the processes that learn one model, so that together they see what one alone would."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from ...errors import SceneError
from ...raster.sampler import MemoryStore
from ..options import Sampling
from ..source.batches import Batches, Tensors, unlabelled
from .team import Team


class Shared(Batches):
    """Of every batch the samples of one process; as many batches in each, and what goes wrong in one goes wrong in all.

    Parameters
    ----------
    whole : Batches
        As one process alone would see them.
    team : Team
        Processes that go through the batches side by side.
    ignore_index : int
        Label of the pixels of a batch that is there only to keep step.
    seed : int
        Of sources that draw from torch's own chance: each pass draws alike in all processes, whatever their networks draw.
    """

    def __init__(self, whole: Batches, team: Team, ignore_index: int, seed: int) -> None:
        super().__init__(self._agreed, len(whole))
        self.passes = whole.passes
        self._whole, self._team, self._ignore_index, self._seed = whole, team, ignore_index, seed

    def _agreed(self, number: int) -> Iterator[Tensors]:
        """Own part of each batch, handed out once all processes have theirs."""
        own = _alike(self._whole.share(number, self._team, self._ignore_index), seed_of(self._seed, number))
        batch: Tensors = {}
        for _ in range(len(self)):
            failure = None
            try:
                batch = self._next(own, batch)
            except Exception as error:  # noqa: BLE001  raised in all processes, this one among them
                failure = error
            self._team.agree(failure)
            yield batch

    def _next(self, own: Iterator[Tensors], before: Tensors) -> Tensors:
        """The next batch; where so much could not be read that there is none, the one before, which says no more."""
        batch = next(own, None)
        if batch is not None:
            return batch
        if not before:
            raise SceneError("none of the windows could be read that one of the processes was to learn from.")
        return unlabelled(before, self._ignore_index)


def cache_of_one(sampler: Sampling, processes: int) -> Sampling:
    """Sampling of one of several processes on this machine, which share the memory for blocks between them."""
    if processes == 1 or sampler.cache != "memory":
        return sampler
    limit = MemoryStore().limit_bytes / 1e9 if sampler.cache_gb is None else sampler.cache_gb
    return replace(sampler, cache_gb=limit / processes)


def seed_of(*parts: int) -> int:
    """Seed of one of several chances that come from one."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _alike(batches: Iterator[Tensors], seed: int) -> Iterator[Tensors]:
    """Batches that draw from a chance of their own, and leave torch's where it was."""
    state = torch.Generator().manual_seed(seed).get_state()
    while True:
        with torch.random.fork_rng([]):
            torch.set_rng_state(state)
            batch = next(batches, None)
            state = torch.get_rng_state()
        if batch is None:
            return
        yield batch
