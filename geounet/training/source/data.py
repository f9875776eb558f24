"""Where training batches come from: labelled scenes, or whatever else gives images and masks."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...core.bands import canonical
from ...core.bandtypes import BandType, Kind
from ...core.legend import Legend
from ...errors import ConfigError
from ...evaluation import Evaluation, evaluate
from ...inference import predict
from ...nn.segmenter import Segmenter
from ...raster.labels.region import BlockRegion, RegionLabels
from ...raster.sampler import (
    DiskStore,
    MemoryStore,
    Pair,
    Store,
    Survey,
    cached,
    survey,
)
from ...raster.scene import Scene
from ...record import fingerprint
from ..options import Sampling
from .batches import Batches, Chips, Epochs

DISK_GB = 20.0
"""Most that decoded blocks take on disk, if nothing is said."""


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
