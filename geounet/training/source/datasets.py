"""Scenes as torch and Lightning know data: chips one by one, and batches of every split."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning
import torch
from torch.utils.data import IterableDataset

from ...raster.sampler import Pair, Sample
from ..options import Sampling
from .batches import Batches
from .data import PairSource

MOST_WORKERS = 1024
"""Workers of a `DataLoader`, each with a count of its own."""


class ChipDataset(IterableDataset[dict[str, Any]]):
    """Chips of labelled scenes, drawn anew each pass, as torchgeo's samples: for a loop or a `DataLoader` of others.

    Each sample has ``image`` (C, H, W) float32, values as stored and NaN where there is no data; ``mask`` (H, W)
    int64, class ids with the legend's `ignore_index` where there is no label; ``crs`` of the scene, and ``bounds``, its
    slices of x and y in units of that CRS with the pixel size as step. Reading ahead is the sampler's own, so a
    `DataLoader` needs no workers. With some, each gives its part of the samples; start them with
    ``multiprocessing_context="spawn"``, as GDAL does not survive a fork of a process whose threads are reading.

    Parameters
    ----------
    pairs : sequence of Pair
        Scenes with the same bands.
    sampler : Sampling
        Windows a pass, their size, class shares and seed; reading, retries and cache.
    batch_size : int
        Chips read together.

    Examples
    --------
    ``DataLoader(ChipDataset(pairs, Sampling(chip_size=256)), batch_size=16, collate_fn=stack_samples)``, with
    `torchgeo.datasets.stack_samples`.
    """

    def __init__(self, pairs: Sequence[Pair], sampler: Sampling, *, batch_size: int = 16) -> None:
        self._source = PairSource({"train": pairs, "validate": pairs})
        self._pairs, self._sampler, self._batch_size = pairs, sampler, batch_size
        self._epochs = self._source.batches(self._source.survey(sampler), sampler, batch_size)
        # a loader's workers are copies that end with the pass, so what they count is kept in memory that all share
        self._passes = torch.zeros(MOST_WORKERS, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        place, among = (worker.id, worker.num_workers) if worker else (0, 1)
        number = int(self._passes[place])
        self._passes[place] += 1
        for sample, chip in self._epochs.samples(number, slice(place, None, among)):
            yield {**chip, **_place(self._pairs[sample.scene], sample)}


def _place(pair: Pair, sample: Sample) -> dict[str, Any]:
    """Where a chip lies, as torchgeo tells it."""
    grid = pair.scene.grid.crop(sample.window)
    west, south, east, north = grid.bounds
    height, width = grid.shape
    bounds = slice(west, east, (east - west) / width), slice(south, north, (north - south) / height)
    return {"crs": grid.crs, "bounds": bounds}


class ChipDataModule(lightning.LightningDataModule):
    """Batches of training, validation and test scenes for any LightningModule, such as torchgeo's tasks.

    Parameters
    ----------
    pairs : mapping of str to sequence of Pair
        ``train`` and ``validate``, and if wanted ``test``; as `train` takes them.
    sampler : Sampling
    batch_size : int
        Chips a batch: ``image`` (N, C, H, W) float32, NaN where there is no data, ``mask`` (N, H, W) int64.
    fill : float, optional
        Value in place of NaN, for a network that does not know what to do with it.
    """

    def __init__(
        self,
        pairs: Mapping[str, Sequence[Pair]],
        sampler: Sampling,
        *,
        batch_size: int = 16,
        fill: float | None = None,
    ) -> None:
        super().__init__()
        self._source = PairSource(pairs)
        self._sampler, self.batch_size, self._fill = sampler, batch_size, fill

    def train_dataloader(self) -> Batches:
        """Windows drawn at random, anew each pass."""
        return self._source.batches(self._source.survey(self._sampler), self._sampler, self.batch_size)

    def val_dataloader(self) -> Batches:
        """Windows side by side."""
        return self._source.chips(self._sampler, self.batch_size)

    def test_dataloader(self) -> Batches:
        """Windows side by side over the test scenes."""
        return self._source.chips(self._sampler, self.batch_size, "test")

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """Batch without NaN, if `fill` says what to write for it."""
        if self._fill is None:
            return batch
        return batch | {"image": batch["image"].nan_to_num(self._fill)}
