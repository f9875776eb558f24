"""What is examined: scenes with their labels, opened one by one so that a bad one does not hide the others."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import SPLITS, LoadedConfig
from ..config.opening import ALL, Row
from ..core.bands import canonical
from ..core.bandtypes import BandType
from ..errors import GeoUNetError, LabelError
from ..raster.gdal import is_remote
from ..raster.labels import Labels
from ..raster.labels.region import RegionLabels
from ..raster.sampler import Pair, Survey, survey
from .findings import Finding


@dataclass(frozen=True)
class Opened:
    """A row of the config, and what came of opening it."""

    split: str
    row: Row
    pair: Pair | None
    why: GeoUNetError | None
    """Why there is no pair."""

    @property
    def labels(self) -> Labels | None:
        """The labels as the file has them, whatever area or blocks they are seen in."""
        labels = self.pair.labels if self.pair else None
        while isinstance(labels, RegionLabels):
            labels = labels.labels
        return labels


@dataclass(frozen=True)
class Case:
    """A scene with labels in a split, and what its pixels are like."""

    split: str
    row: Row
    pair: Pair
    survey: Survey

    @property
    def name(self) -> str:
        """What messages call the scene."""
        return self.pair.scene.source

    @property
    def labelled(self) -> int:
        """Pixels with data and a label."""
        return int(self.survey.counts.counts.sum())


@dataclass(frozen=True)
class Cases:
    """All scenes that can be read, all with the same bands."""

    all: tuple[Case, ...]
    types: frozenset[str]
    """Bands that hold codes, bits or angles, in geounet's spelling."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.all[0].pair.scene.bands if self.all else ()

    @property
    def continuous(self) -> list[int]:
        """Places, from 0, of the bands that hold amounts."""
        return [place for place, name in enumerate(self.bands) if name.lower() not in self.types]

    @cached_property
    def scenes(self) -> tuple[Case, ...]:
        """One case a scene, where blocks have shared scenes between splits."""
        return tuple({case.row: case for case in reversed(self.all)}.values())[::-1]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, what is trained on first."""
        there = {case.split for case in self.all}
        return tuple(split for split in (*SPLITS, ALL) if split in there)

    def of(self, split: str) -> list[Case]:
        """Cases of a split."""
        return [case for case in self.all if case.split == split]

    @property
    def learnt(self) -> list[Case]:
        """Cases to train on; all where they could not be divided."""
        return self.of("train") or list(self.all)

    def counts(self, split: str) -> NDArray[np.int64]:
        """Labelled pixels of each class, (K,)."""
        counts: NDArray[np.int64] = np.sum([case.survey.counts.counts for case in self.of(split)], axis=0)
        return counts


def open_rows(loaded: LoadedConfig) -> tuple[Opened, ...]:
    """Open every row that can be; codes that the legend does not know are passed over here, and counted elsewhere."""
    return tuple(_open(loaded, split, row) for split, rows in loaded.rows().items() for row in rows)


def _open(loaded: LoadedConfig, split: str, row: Row) -> Opened:
    try:
        return Opened(split, row, loaded.open_row(row, unknown="ignore"), None)
    except GeoUNetError as error:
        return Opened(split, row, None, error)


def refused(opened: Iterable[Opened]) -> Iterator[Finding]:
    """Scenes and labels that cannot be opened."""
    for one in opened:
        scene, labels, _ = one.row
        if one.why is None:
            continue
        if isinstance(one.why, LabelError) and not (is_remote(labels) or Path(labels).exists()):
            yield Finding(
                "missing-labels", "error", scene,
                f"There is no label file {labels}. Make it, correct its name, or leave the scene out.",
                {"labels": labels},
            )  # fmt: skip
        else:
            yield Finding("unreadable", "error", scene, str(one.why), {"labels": labels})


def counted(
    loaded: LoadedConfig, opened: Sequence[Opened], tell: Callable[[float], None]
) -> tuple[Cases, tuple[Finding, ...]]:
    """Read all pixels of what was opened, divide it as the config says, and count it.

    Returns
    -------
    Cases, tuple of Finding
        Scenes that cannot be read, or whose bands are not those of the others, are in the findings alone.
    """
    findings: list[Finding] = []
    cases: list[Case] = []
    agreed = _with_the_bands_of_most(opened, findings)
    for place, one in enumerate(agreed):
        assert one.pair is not None
        try:
            cases.append(Case(one.split, one.row, one.pair, survey([one.pair])))
        except GeoUNetError as error:
            findings.append(Finding("unreadable", "error", one.row[0], str(error), {"labels": one.row[1]}))
        tell((place + 1) / len(agreed))
    pool = [case for case in cases if case.split == ALL]
    if pool:
        try:
            cases = [*_divided(loaded, pool), *(case for case in cases if case.split != ALL)]
        except GeoUNetError as error:
            findings.append(Finding("indivisible", "error", str(loaded.path), str(error)))
    types = loaded.config.scenes.types if loaded.config.scenes else {}
    typed = [name for given, name in zip(types, canonical(list(types)), strict=True) if BandType.of(types[given]).typed]
    return Cases(tuple(cases), frozenset(name.lower() for name in typed)), tuple(findings)


def _with_the_bands_of_most(opened: Sequence[Opened], findings: list[Finding]) -> list[Opened]:
    """What was opened and has the bands that most scenes have."""
    there = [one for one in opened if one.pair is not None]
    ranked = Counter(one.pair.scene.bands for one in there if one.pair).most_common(1)
    kept = []
    for one in there:
        assert one.pair is not None
        bands = one.pair.scene.bands
        if bands == ranked[0][0]:
            kept.append(one)
            continue
        findings.append(
            Finding(
                "band-mismatch", "error", one.row[0],
                f"It has the bands {', '.join(bands)}; most scenes have {', '.join(ranked[0][0])}. List the bands to "
                "train on under scenes.bands, or name those of the files under scenes.names.",
                {"bands": list(bands), "expected": list(ranked[0][0])},
            )
        )  # fmt: skip
    return kept


def _divided(loaded: LoadedConfig, cases: Sequence[Case]) -> list[Case]:
    """Cases by split; where blocks share a scene between splits, its labels are counted for each anew."""
    by_scene = {id(case.pair.scene): case for case in cases}
    found = [case for case in cases if case.split != ALL]
    for split, pairs in loaded.divided([case.pair for case in cases if case.split == ALL]).items():
        for pair in pairs:
            known = by_scene[id(pair.scene)]
            found.append(Case(split, known.row, pair, known.survey if pair is known.pair else survey([pair])))
    return found
