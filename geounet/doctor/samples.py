"""Chips looked at for what counts cannot tell: single pixels, and how labels lie on the image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.opening import Row
from ..raster.sampler import Pair, Sample, plan_grid, plan_random, read_batches
from .cases import Case, Cases
from .registration import Fit, fit

CHIP = 128
"""Side, in pixels."""
CHIPS = 512
"""Looked at in all."""
CHIPS_A_SCENE = 8
PIXELS = 200_000
"""Kept in all."""
LEAST = 64
"""Pixels of each scene, however small."""
SEED = 0
"""Equal data give equal findings."""

Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pixels of one scene."""

    values: Values
    """Of all bands at valid pixels, (C, N)."""
    labelled: Values
    """At valid pixels with a label, (C, M)."""
    ids: NDArray[np.int64]
    """Their classes, (M,)."""
    fit: Fit
    """How well labels fit the image, shifted by some pixels."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What was drawn, by row of the config."""

    drawn: Mapping[Row, Drawn]

    def values(self, band: int, row: Row | None = None) -> Values:
        """Values of a band at valid pixels, (N,), of one scene or all."""
        return _joined([one.values[band] for one in self._of(row)])

    def zeros(self, bands: Sequence[int], row: Row | None = None) -> float:
        """Share of the valid pixels that are 0 in all of some bands; 0 where none were drawn."""
        empty = _joined([(one.values[list(bands)] == 0).all(axis=0) for one in self._of(row)])
        return float(empty.mean()) if len(empty) else 0.0

    def _of(self, row: Row | None) -> list[Drawn]:
        return list(self.drawn.values()) if row is None else [d for key, d in self.drawn.items() if key == row]


def draw(cases: Cases, tell: Callable[[float], None]) -> Samples:
    """Look at chips of all scenes, or of some evenly chosen where there are very many."""
    there = [case for case in cases.scenes if case.labelled]
    there = [there[i] for i in np.unique(np.linspace(0, len(there) - 1, min(CHIPS, len(there))).astype(int))]
    each = min(CHIPS_A_SCENE, max(1, CHIPS // max(1, len(there))))
    plans = [_plan(case, each) for case in there]
    total = sum(case.labelled for case in there)
    found = {}
    for place, (case, plan) in enumerate(zip(there, plans, strict=True)):
        kept = max(LEAST, round(PIXELS * case.labelled / total)) // len(plan) + 1  # each scene by its labels
        found[case.row] = _look(case.pair, plan, kept, cases.continuous)
        tell((place + 1) / len(there))
    return Samples(found)


def _plan(case: Case, count: int) -> list[Sample]:
    """Windows with labels: all of a small scene, side by side, or some at random."""
    some_label = 1 / CHIP**2
    plan = plan_grid([case.pair], CHIP, cells=case.survey.cells, min_valid=some_label)
    if len(plan) > count:
        rng = np.random.default_rng(SEED)
        plan = plan_random([case.pair], CHIP, count, rng, cells=case.survey.cells, min_valid=some_label)
    return plan


def _look(pair: Pair, plan: Sequence[Sample], kept: int, continuous: Sequence[int]) -> Drawn:
    """Read the windows of a scene."""
    rng = np.random.default_rng(SEED)
    values: list[Values] = []
    labelled: list[Values] = []
    ids = []
    total = Fit.nothing()
    classes = len(pair.truth.legend)
    for batch in read_batches([pair], plan, 1):
        assert batch.mask is not None
        image, mask = batch.image[0], batch.mask[0]
        valid = ~np.isnan(image).any(axis=0)
        for kind, into in ((valid, values), (mask < classes, labelled)):
            chosen = _some(kind, kept, rng)
            into.append(image.reshape(len(image), -1)[:, chosen])
        ids.append(mask.ravel()[chosen])
        total += fit(image[list(continuous)], mask, classes)
    return Drawn(np.concatenate(values, axis=1), np.concatenate(labelled, axis=1), np.concatenate(ids), total)


def _some(which: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Places of at most `count` true pixels."""
    there = np.flatnonzero(which)
    return there if len(there) <= count else rng.choice(there, count, replace=False)


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
