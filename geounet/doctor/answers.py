"""How far one band alone goes: a band that already tells a class may hold the answer."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import Cases
from .findings import Finding
from .samples import Samples

SKILL = 0.95
"""Part of the way from guessing to perfect IoU. People and sensors disagree on more pixels than the rest."""
FEW = 200
"""Pixels of a class, drawn, below which its rule is not told."""
CODES = 64
"""Different values of a band up to which each is tried alone."""
BITS = 24
"""Bits of a whole number that float32 holds."""


@dataclass(frozen=True)
class Rule:
    """The best that one band does for one class."""

    class_name: str
    band: str
    rule: str
    """Such as ``nir < 812``, ``fmask = 5`` or ``qa bit 3 = 1``."""
    iou: float
    """On the pixels drawn."""
    guess: float
    """IoU of calling every pixel this class: its share."""

    @property
    def skill(self) -> float:
        """0 for a guess, 1 for perfect."""
        return (self.iou - self.guess) / max(1 - self.guess, 1e-9)


def rules(cases: Cases, samples: Samples) -> tuple[Rule, ...]:
    """Best rule of each class and band, on pixels of the training scenes."""
    drawn = [samples.drawn[case.row] for case in cases.learnt if case.row in samples.drawn]
    if not drawn:
        return ()
    values = np.concatenate([one.labelled for one in drawn], axis=1)
    ids = np.concatenate([one.ids for one in drawn])
    found = []
    for place, class_name in enumerate(cases.learnt[0].pair.truth.legend.names):
        there = ids == place
        if FEW <= np.count_nonzero(there) <= len(ids) - FEW:
            found += [
                _best(class_name, band, values[b], there, continuous=b in cases.continuous)
                for b, band in enumerate(cases.bands)
            ]
    return tuple(found)


def _best(
    class_name: str, band: str, values: NDArray[np.float32], there: NDArray[np.bool_], *, continuous: bool
) -> Rule:
    """The best of all rules on one band."""
    share = float(there.mean())
    found, place = np.unique(values, return_inverse=True)
    hits = np.bincount(place, there).astype(np.float64)
    misses = np.bincount(place, ~there).astype(np.float64)
    tried = [*_single(band, found, hits, misses)]
    tried += _thresholds(band, found, hits, misses) if continuous else _bits(band, found, hits, misses)
    rule, iou = max(tried, key=lambda one: one[1], default=("none", share))
    return Rule(class_name, band, rule, iou, share)


Counts = NDArray[np.float64]


def _thresholds(band: str, found: NDArray[np.float32], hits: Counts, misses: Counts) -> Iterator[tuple[str, float]]:
    """Best threshold on either side; hits and misses are pixels of the class, and others, that have each value."""
    if len(found) < 2:
        return
    total = hits.sum()
    below_hits, below_misses = hits.cumsum()[:-1], misses.cumsum()[:-1]
    below = below_hits / (total + below_misses)
    above = (total - below_hits) / (total + misses.sum() - below_misses)
    for sign, iou in (("<", below), (">", above)):
        best = int(iou.argmax())
        yield f"{band} {sign} {(float(found[best]) + float(found[best + 1])) / 2:.5g}", float(iou[best])


def _single(band: str, found: NDArray[np.float32], hits: Counts, misses: Counts) -> Iterator[tuple[str, float]]:
    """Best single value, of a band that has few."""
    if 1 < len(found) <= CODES:
        iou = hits / (hits.sum() + misses)
        best = int(iou.argmax())
        yield f"{band} = {found[best]:g}", float(iou[best])


def _bits(band: str, found: NDArray[np.float32], hits: Counts, misses: Counts) -> Iterator[tuple[str, float]]:
    """Best bit, set or not, of whole numbers."""
    if (found != np.round(found)).any() or np.abs(found).max() >= 2**BITS:
        return
    words = found.astype(np.int64)
    for bit in range(BITS):
        is_set = (words >> bit & 1).astype(bool)
        if is_set.any() and not is_set.all():
            for state, which in ((1, is_set), (0, ~is_set)):
                yield f"{band} bit {bit} = {state}", float(hits[which].sum() / (hits.sum() + misses[which].sum()))


def told(found: Sequence[Rule]) -> Iterator[Finding]:
    """Bands that tell a class all but alone, each once."""
    for band in dict.fromkeys(rule.band for rule in found):
        sure = [rule for rule in found if rule.band == band and rule.skill >= SKILL]
        if sure:
            yield Finding(
                "answer-band", "warning", band,
                f"{'; '.join(f'{rule.rule} alone finds {rule.class_name} with IoU {rule.iou:.3f}' for rule in sure)}. Either "
                "the band was made from the labels, or they from it: leave it out (scenes.bands) if it will not be there to "
                "predict from. If it is a measurement, this rule is all the map that these labels need.",
                {"rules": [asdict(rule) for rule in sure]},
            )  # fmt: skip


def facts(found: Sequence[Rule]) -> dict[str, Any]:
    """Best rule of each class."""
    best: dict[str, Rule] = {}
    for rule in found:
        if rule.class_name not in best or rule.iou > best[rule.class_name].iou:
            best[rule.class_name] = rule
    return {name: {"rule": rule.rule, "iou": rule.iou, "guess": rule.guess} for name, rule in best.items()}
