"""Where training batches come from: labelled scenes, or whatever else gives images and masks."""

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.bands import canonical
from ..core.bandtypes import BandType, Kind
from ..core.cells import Cells
from ..core.legend import Legend
from ..errors import ConfigError
from ..evaluation import Evaluation, evaluate
from ..inference import predict
from ..nn.segmenter import Segmenter
from ..raster.labels.region import BlockRegion, RegionLabels
from ..raster.sampler import (
    Batch,
    DiskStore,
    MemoryStore,
    Pair,
    Sample,
    Store,
    Survey,
    cached,
    plan_grid,
    plan_random,
    plan_shares,
    read_batches,
    survey,
)
from ..raster.scene import Scene
from ..record import fingerprint
from .options import Sampling

Tensors: TypeAlias = dict[str, Tensor]
DISK_GB = 20.0
"""Most that decoded blocks take on disk, if nothing is said."""


class Batches:
    """Batches of tensors, pass after pass, and how long each pass kept its user waiting.

    Parameters
    ----------
    make : callable
        The batches of a pass, told its number from 0. Equal numbers give equal batches.
    length : int
        Batches a pass.
    """

    def __init__(self, make: Callable[[int], Iterator[Tensors]], length: int) -> None:
        self._make, self._length = make, length
        self._passes = 0
        self.waited = 0.0
        """Seconds that the latest pass was waited for."""
        self.shares: NDArray[np.float64] | None = None
        """Share of the labelled pixels that each class has in the batches, (K,), where it is not that of the ground."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Tensors]:
        number, self._passes = self._passes, self._passes + 1
        return self._timed(self._make(number))

    def _timed(self, batches: Iterator[Tensors]) -> Iterator[Tensors]:
        self.waited = 0.0
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch


class Source(ABC):
    """What a network learns from and is scored on."""

    bands: tuple[str, ...]
    legend: Legend
    types: Mapping[str, BandType]
    """How the numbers of a band are to be taken; continuous where nothing is said."""
    splits: tuple[str, ...]
    """Of ``train``, ``validate``, ``test``: those that there are."""

    @abstractmethod
    def survey(self, sampler: Sampling) -> Survey:
        """What the training pixels are like."""

    @abstractmethod
    def batches(self, seen: Survey, sampler: Sampling, batch_size: int) -> Batches:
        """Training batches, drawn anew each pass."""

    @abstractmethod
    def chips(self, sampler: Sampling, batch_size: int) -> Batches:
        """Validation batches, every pixel once."""

    @abstractmethod
    def rehearse(self, model: Segmenter, mapping: Mapping[str, Any]) -> None:
        """Find out, before the first epoch, whether `evaluate` can be had on this machine.

        Raises
        ------
        DeviceError
            It can not.
        """

    @abstractmethod
    def evaluate(self, model: Segmenter, split: str, mapping: Mapping[str, Any]) -> Evaluation:
        """Scores on a split, mapped with the keyword arguments of `predict`."""

    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """What the data of each split are, and a hash of their content, as plain values."""

    @property
    def pixel_size(self) -> float | None:
        """Metres, of the training images; None where they have no place."""
        return None


class PairSource(Source):
    """Labelled scenes, by split.

    Raises
    ------
    ConfigError
        There is nothing to train on or to validate with, or scenes differ in their bands or labels in their legend.
    """

    def __init__(self, pairs: Mapping[str, Sequence[Pair]], types: Mapping[str, BandType | Kind] | None = None) -> None:
        self.pairs = pairs
        self._store: Store | None = None
        self._kept_scenes: dict[int, Scene] = {}
        self.bands, self.legend = _agree(pairs)
        self.types = types_of(self.bands, types or {})
        self.splits = tuple(split for split, chosen in pairs.items() if chosen)

    @property
    def all_pairs(self) -> list[Pair]:
        """Scenes of all splits."""
        return [pair for chosen in self.pairs.values() for pair in chosen]

    def survey(self, sampler: Sampling) -> Survey:
        """What the valid pixels of the training scenes are like, and where the labels lie.

        Raises
        ------
        ConfigError
            There is nothing to validate with.
        """
        # named bits are looked at too: a word of more bits than float32 holds would lose them unnoticed
        typed = [name for name, kind in self.types.items() if not kind.complete or kind.kind == "bitmask"]
        cache = None if sampler.cache_folder is None else Path(sampler.cache_folder) / "surveys"
        seen = survey(self.pairs["train"], values_of=typed, cache=cache)
        if seen.counts.counts.any() and not survey(self.pairs["validate"], cache=cache).counts.counts.any():
            raise ConfigError(
                "the validation scenes have no valid, labelled pixel: look at nodata, labels, the area of interest and ignored "
                "codes."
            )
        return seen

    def batches(self, seen: Survey, sampler: Sampling, batch_size: int) -> "Epochs":
        """Windows drawn at random, read ahead; their blocks are kept as `sampler` says."""
        return Epochs(self._kept("train", sampler), sampler, batch_size, seen.cells)

    def chips(self, sampler: Sampling, batch_size: int, split: str = "validate") -> Batches:
        """Windows of a split, side by side."""
        return Chips(self._kept(split, sampler), sampler, batch_size)

    def _kept(self, split: str, sampler: Sampling) -> Sequence[Pair]:
        """Pairs whose blocks stay in a store that training and validation share."""
        if self._store is None:
            self._store = _store(sampler)
        store = self._store
        if store is None:
            return self.pairs[split]
        kept = [replace(pair, scene=self._kept_scene(pair.scene, store)) for pair in self.pairs[split]]
        if isinstance(store, MemoryStore):  # on disk there are scenes alone
            kept = [replace(pair, labels=cached(pair.truth, store)) for pair in kept]
        return kept

    def _kept_scene(self, scene: Scene, store: Store) -> Scene:
        """Scene from the store; one for all splits that share it, so that its blocks are kept once."""
        if id(scene) not in self._kept_scenes:
            self._kept_scenes[id(scene)] = cached(scene, store)
        return self._kept_scenes[id(scene)]

    def rehearse(self, model: Segmenter, mapping: Mapping[str, Any]) -> None:
        """Plan a map of the first validation scene, and read nothing."""
        predict(self.pairs["validate"][0].scene, model, **mapping)

    def evaluate(self, model: Segmenter, split: str, mapping: Mapping[str, Any]) -> Evaluation:
        """Scores of whole scenes, by sliding window."""
        return evaluate(model, self.pairs[split], **mapping)

    def origin(self) -> dict[str, Any]:
        """Scenes, groups and hash of each split, and of all."""
        hashes = {split: _hash(chosen) for split, chosen in self.pairs.items()}
        return {
            "split": {
                split: {
                    "scenes": len(chosen),
                    "groups": len({pair.group or pair.scene.source for pair in chosen}),
                    "hash": hashes[split],
                }
                for split, chosen in self.pairs.items()
            },
            "data_hash": hashlib.sha256("".join(hashes.values()).encode()).hexdigest(),
        }

    @property
    def pixel_size(self) -> float | None:
        """Median of the training scenes, in metres."""
        sizes = [size for pair in self.pairs["train"] if (size := pair.scene.grid.pixel_size_m) is not None]
        return float(np.median(sizes)) if sizes else None


def _store(sampler: Sampling) -> Store | None:
    limit = None if sampler.cache_gb is None else round(sampler.cache_gb * 1e9)
    if sampler.cache == "disk":
        assert sampler.cache_folder is not None
        return DiskStore(Path(sampler.cache_folder) / "blocks", round(DISK_GB * 1e9) if limit is None else limit)
    return MemoryStore(limit) if sampler.cache == "memory" else None


class Epochs(Batches):
    """Training batches; each pass over them draws anew, and equal seeds draw alike."""

    def __init__(
        self, pairs: Sequence[Pair], sampler: Sampling, batch_size: int, cells: Sequence[Cells] | None = None
    ) -> None:
        self._pairs, self._sampler, self._batch_size, self._cells = pairs, sampler, batch_size, cells or None
        self._count = sampler.chips_per_epoch or _tiles(pairs, sampler, self._cells)
        super().__init__(self._draw, math.ceil(self._count / batch_size))
        if sampler.shares is not None and cells:
            self.shares = plan_shares(self.plan(0), cells)

    def plan(self, epoch: int) -> list[Sample]:
        """Windows of a pass, from 0."""
        sampler, rng = self._sampler, np.random.default_rng([self._sampler.seed, epoch])
        return plan_random(
            self._pairs, sampler.chip_size, self._count, rng, group_power=sampler.group_power, cells=self._cells,
            min_valid=sampler.min_valid, shares=sampler.shares,
        )  # fmt: skip

    def samples(self, epoch: int, part: slice) -> Iterator[tuple[Sample, Tensors]]:
        """Samples of a part of a pass one by one, ``image`` (C, H, W) and ``mask`` (H, W)."""
        for batch in _read(self._pairs, self.plan(epoch)[part], self._batch_size, self._sampler):
            tensors = to_tensors(batch)
            for place, sample in enumerate(batch.samples):
                yield sample, {key: value[place] for key, value in tensors.items()}

    def _draw(self, epoch: int) -> Iterator[Tensors]:
        return map(to_tensors, _read(self._pairs, self.plan(epoch), self._batch_size, self._sampler))


def _tiles(pairs: Sequence[Pair], sampler: Sampling, cells: Sequence[Cells] | None) -> int:
    """Windows that tile the scenes, or what is labelled in them where windows with little of that are left out."""
    if not (cells and sampler.min_valid):
        return len(plan_grid(pairs, sampler.chip_size))
    labelled = sum(int(one.totals[:-1].sum()) for one in cells)
    return max(1, math.ceil(labelled / sampler.chip_size**2))


class Chips(Batches):
    """Validation batches: every pixel once."""

    def __init__(self, pairs: Sequence[Pair], sampler: Sampling, batch_size: int) -> None:
        plan = plan_grid(pairs, sampler.chip_size)
        super().__init__(
            lambda _: map(to_tensors, _read(pairs, plan, batch_size, sampler)), math.ceil(len(plan) / batch_size)
        )


def _read(pairs: Sequence[Pair], plan: Sequence[Sample], batch_size: int, sampler: Sampling) -> Iterator[Batch]:
    return read_batches(
        pairs, plan, batch_size, ahead=sampler.ahead, retries=sampler.retries, on_error=sampler.on_error
    )


def to_tensors(batch: Batch) -> Tensors:
    """Batch under torchgeo's keys: ``image`` (N, C, H, W) float32, ``mask`` (N, H, W) int64."""
    image = torch.from_numpy(batch.image).contiguous(memory_format=torch.channels_last)
    return {"image": image} | ({} if batch.mask is None else {"mask": torch.from_numpy(batch.mask)})


def _agree(pairs: Mapping[str, Sequence[Pair]]) -> tuple[tuple[str, ...], Legend]:
    """Bands and legend that all scenes and labels share."""
    for split in ("train", "validate"):
        if not pairs.get(split):
            raise ConfigError(f"there are no scenes to {split} with: name some under scenes.{split}, or in the table.")
    flat = [pair for split in pairs.values() for pair in split]
    bands, legend = flat[0].scene.bands, flat[0].truth.legend
    check_classes(legend)
    for pair in flat:
        if pair.scene.bands != bands:
            raise ConfigError(
                f"{pair.scene.source} has bands {', '.join(pair.scene.bands)}, but {flat[0].scene.source} has "
                f"{', '.join(bands)}: list the bands to train on under scenes.bands."
            )
        if pair.truth.legend != legend:
            raise ConfigError(f"{pair.truth.source} and {flat[0].truth.source} have different legends.")
    return bands, legend


def types_of(bands: Sequence[str], types: Mapping[str, BandType | Kind]) -> dict[str, BandType]:
    """Types by the names that scenes give their bands, whatever the case or sensor's spelling of those given.

    Raises
    ------
    ConfigError
        A type is given for a band that is not there, or twice.
    """
    spelt = {name.lower(): name for name in bands}
    found = {}
    for given, name in zip(types, canonical(list(types)), strict=True):
        band = spelt.get(name.lower())
        if band is None:
            raise ConfigError(
                f"a type is given for {given}, but the scenes have {', '.join(bands)}: name a band that is read."
            )
        if band in found:
            raise ConfigError(f"band {band} is given two types, under two spellings; leave one of them out.")
        found[band] = BandType.of(types[given])
    return found


def check_classes(legend: Legend) -> None:
    """Refuse a legend of one class.

    Raises
    ------
    ConfigError
        Saying what to add.
    """
    if len(legend) < 2:
        raise ConfigError(
            f"the legend has one class ({legend.names[0]}), and a map of one class says nothing: name what the rest is as "
            "well. For polygons, labels.background is the code of all ground outside of them."
        )


def _hash(pairs: Sequence[Pair]) -> str:
    """Hash of the content of all files of scenes and labels; of what is no local file, of its name.

    Where splits share a scene by blocks, of the blocks as well.
    """
    parts = []
    for pair in pairs:
        parts += [
            fingerprint(file) or file for part in (pair.scene, pair.truth) for file in part.paths or (part.source,)
        ]
        if isinstance(pair.truth, RegionLabels) and isinstance(pair.truth.region, BlockRegion):
            parts.append(pair.truth.region.fingerprint)
    return hashlib.sha256("".join(parts).encode()).hexdigest()
