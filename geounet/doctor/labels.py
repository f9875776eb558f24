"""Codes that nobody declared, classes that are rare or missing, scenes without labels."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..config import LoadedConfig
from ..core.windows import partition
from ..errors import ConfigError, GeoUNetError
from ..raster.labels import Labels, RasterLabels
from ..raster.sampler import plan_random, plan_shares
from .cases import Case, Cases, Opened
from .findings import Finding, Level

READ = 1024
"""Side, in pixels, of the windows in which codes are counted."""
RARE = 0.01
"""Share of the labelled pixels below which a class is rare: most batches of some dozen chips hold none of it."""
ASKED = 0.05
"""Share that the advice on a rare class is worked out for."""
DRAWN = 512
"""Windows drawn to see what asking for a share would do."""


def undeclared(loaded: LoadedConfig, opened: Sequence[Opened]) -> Iterator[Finding]:
    """Codes that are in neither the legend nor the list of those to ignore, each label file once."""
    options = loaded.config.labels
    level: Level = "note" if options is not None and options.unknown == "ignore" else "error"
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    about: dict[str, Opened] = {}
    for one in {one.row[:2]: one for one in opened}.values():
        path = one.row[1]
        if isinstance(one.labels, RasterLabels):
            if strange := _strange(one.labels):
                counts[path] += strange
                about.setdefault(path, one)
        elif one.labels is not None and (why := _refusal(loaded, one)):
            yield Finding("undeclared-codes", level, one.row[0], why, {"labels": path})
    for path, one in about.items():
        told = ", ".join(f"{code} on {count:,} pixels" for code, count in counts[path].items())
        known = ", ".join(f"{info.code} {info.name}" for info in loaded.legend.classes)
        yield Finding(
            "undeclared-codes", level, one.row[0],
            f"{path} has the code {told}, which the legend does not know ({known}). Correct the file, add the code to "
            "labels.legend, or list it under labels.ignore.",
            {"labels": path, "codes": dict(counts[path])},
        )  # fmt: skip


def _strange(labels: RasterLabels) -> Counter[str]:
    """Pixels of each code that has no meaning, on the image's pixels."""
    known = np.array([*labels.legend.codes, *labels.ignore], np.float64)
    counts: Counter[str] = Counter()
    try:
        for window in partition(labels.grid.shape, READ):
            (codes,), there = labels.codes.read(window)
            values, times = np.unique(codes[there], return_counts=True)
            for value, count in zip(values.astype(np.float64).tolist(), times.tolist(), strict=True):
                if not (np.isnan(value) or value in known):
                    counts[f"{value:g}"] += count
    except GeoUNetError:  # told when its pixels are counted
        return Counter()
    return counts


def _refusal(loaded: LoadedConfig, one: Opened) -> str | None:
    """What is said of labels in colours or polygons when nothing unknown is let through."""
    try:
        labels: Labels = loaded.open_row(one.row, unknown="raise").truth
        for window in partition(labels.grid.shape, READ):
            labels.read(window)
    except GeoUNetError as error:
        return str(error)
    return None


def balance(cases: Cases, chip_size: int) -> Iterator[Finding]:
    """Classes that are rare or missing, and splits and scenes without labels."""
    for case in cases.all:
        if not case.labelled and case.survey.stats.count:
            yield Finding(
                "few-labels", "note", case.name,
                f"It has no labelled pixel with data, so it adds nothing to {case.split}. Look at its labels if it should.",
                {"split": case.split},
            )  # fmt: skip
    for split in cases.splits:
        yield from _split(cases, split, chip_size)


def _split(cases: Cases, split: str, chip_size: int) -> Iterator[Finding]:
    counts = cases.counts(split)
    total = int(counts.sum())
    names = cases.of(split)[0].pair.truth.legend.names
    learnt = split == "train"
    if not total:
        yield Finding(
            "few-labels", "error" if learnt else "warning", split,
            f"None of the {len(cases.of(split))} scenes has a labelled pixel with data. Look at labels, nodata and ignored "
            "codes.",
        )  # fmt: skip
        return
    for place, (name, count) in enumerate(zip(names, counts.tolist(), strict=True)):
        figures = {"split": split, "class": name, "pixels": count, "share": count / total}
        if not count:
            why = (
                "It cannot be learnt: take it out of labels.legend (and its code under labels.ignore), or add scenes."
                if learnt
                else "It will have no score there: take it out, or move a scene that has it."
            )
            yield Finding(
                "missing-class", "error" if learnt else "warning", name,
                f"Declared in the legend, but without a pixel in {split}. {why}", figures,
            )  # fmt: skip
        elif learnt and count < RARE * total:
            yield Finding(
                "imbalance", "warning", name,
                f"Only {count:,} of {total:,} labelled pixels of {split} ({count / total:.2%}) are of this class. "
                f"{_advice(cases.of(split), place, name, chip_size)}",
                figures,
            )  # fmt: skip


def _advice(cases: Sequence[Case], place: int, name: str, chip_size: int) -> str:
    """What asking for a larger share would do."""
    cells = [case.survey.cells[0] for case in cases]
    shares: Mapping[Any, float] = {name: ASKED}
    try:
        plan = plan_random(
            [case.pair for case in cases], chip_size, DRAWN, np.random.default_rng(0), cells=cells, shares=shares
        )
    except ConfigError:  # the other classes are not there to give way
        return "Add scenes that have more of it."
    reached = plan_shares(plan, cells)[place]
    return (
        f"With sampler.shares: {{{name}: {ASKED}}}, chips of {chip_size} pixels would bring it to {reached:.1%} of what is "
        "drawn; if that repeats too few places, add scenes or merge it with another class."
    )
