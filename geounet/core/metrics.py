"""How far a map agrees with labels, from one table of counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

Array: TypeAlias = Any


@dataclass(frozen=True)
class Confusion:
    """Pixels by true and predicted class; two of them add."""

    counts: NDArray[np.int64]
    """(K, K), rows true, columns predicted."""
    ignored: int = 0
    """Pixels without a label, or without a prediction."""

    @classmethod
    def empty(cls, classes: int) -> "Confusion":
        """Count no pixels."""
        return cls(np.zeros((classes, classes), np.int64))

    @classmethod
    def of(cls, true: NDArray[Any], predicted: NDArray[Any], classes: int) -> "Confusion":
        """Compare two arrays of ids of one shape; a pixel where either is not in 0 … ``classes - 1`` is ignored."""
        t, p = np.asarray(true).ravel(), np.asarray(predicted).ravel()
        if t.shape != p.shape:
            raise ValueError(f"true and predicted ids differ in shape: {np.shape(true)} and {np.shape(predicted)}")
        both = (t >= 0) & (t < classes) & (p >= 0) & (p < classes)
        pairs = t[both].astype(np.int64) * classes + p[both]
        counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.int64)
        return cls(counts, int(t.size - both.sum()))

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.counts + other.counts, self.ignored + other.ignored)

    def report(self, names: Sequence[str]) -> dict[str, Any]:
        """Scores as plain values for JSON (``metrics.json``); None where a score is undefined.

        A class that neither labels nor map hold has no IoU, and does not enter the macro means.
        """
        scores = {
            "iou": iou(self.counts),
            "f1": f1(self.counts),
            "precision": precision(self.counts),
            "recall": recall(self.counts),
        }
        support = self.counts.sum(axis=1)
        hits, total = int(np.trace(self.counts)), int(self.counts.sum())
        return {
            "classes": {
                name: {key: _plain(values[k]) for key, values in scores.items()} | {"support": int(support[k])}
                for k, name in enumerate(names)
            },
            "macro": {key: _plain(_mean(scores[key])) for key in ("iou", "f1")},
            "micro": {
                "accuracy": hits / total if total else None,
                "iou": hits / (2 * total - hits) if total else None,
            },
            "confusion": self.counts.tolist(),
            "pixels": total,
            "ignored": self.ignored,
        }


def iou(confusion: Array) -> Array:
    """Intersection over union of each class, (K,), from counts (true, predicted); NaN if never seen."""
    hit, true, predicted = _margins(confusion)
    return _ratio(hit, true + predicted - hit)


def f1(confusion: Array) -> Array:
    """Harmonic mean of precision and recall of each class, (K,); NaN if never seen."""
    hit, true, predicted = _margins(confusion)
    return _ratio(2 * hit, true + predicted)


def precision(confusion: Array) -> Array:
    """Share of the pixels mapped as a class that are of it, (K,); NaN if none is mapped."""
    hit, _, predicted = _margins(confusion)
    return _ratio(hit, predicted)


def recall(confusion: Array) -> Array:
    """Share of a class's pixels that are mapped as it, (K,); NaN if there are none."""
    hit, true, _ = _margins(confusion)
    return _ratio(hit, true)


def mean_iou(confusion: Array) -> float:
    """Mean IoU over the classes that labels or map hold; NaN if there are none."""
    return _mean(np.asarray(iou(confusion)))


def _margins(confusion: Array) -> tuple[Array, Array, Array]:
    xp = array_namespace(confusion)
    counts = xp.astype(confusion, xp.float64)
    return xp.linalg.diagonal(counts), xp.sum(counts, axis=1), xp.sum(counts, axis=0)


def _ratio(part: Array, whole: Array) -> Array:
    xp = array_namespace(part)
    return xp.where(whole > 0, part / xp.where(whole > 0, whole, xp.ones_like(whole)), xp.nan)


def _mean(values: NDArray[np.float64]) -> float:
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if seen.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
