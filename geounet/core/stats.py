"""What accumulates, adds: band statistics and class counts, the same in a loop, a dask tree or two GPUs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAMMA = 1.02
"""Ratio of neighbouring edges of the sketch's bins: quantiles come back within 1 % of their value [1]_."""
SMALLEST = 1e-9
"""Magnitudes below this count as zero in the sketch."""
FEW = 2**16
"""Range of whole numbers that are counted one by one."""


@dataclass(frozen=True)
class BandStats:
    """Moments and quantiles of each band over the pixels seen so far; two of them add.

    Means and deviations are merged by the update of Chan et al. [2]_; quantiles come from a histogram with
    logarithmic bins, whose sum is exact and whose relative error is bounded [1]_.

    References
    ----------
    .. [1] C. Masson, J. E. Rim, H. K. Lee, DDSketch: a fast and fully-mergeable quantile sketch with
       relative-error guarantees, PVLDB 12(12), 2019.
    .. [2] T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for computing
       sample variances, COMPSTAT 1982.
    """

    count: int
    """Valid pixels."""
    pixels: int
    """Pixels, valid or not."""
    mean: NDArray[np.float64]
    """(C,), units of the band."""
    m2: NDArray[np.float64]
    """Sum of squared differences from the mean, (C,)."""
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    sketch: tuple[Mapping[int, int], ...] = field(repr=False)
    """Pixels a logarithmic bin, one mapping a band; negative bins hold negative values, 0 the zeros."""

    @classmethod
    def empty(cls, bands: int) -> "BandStats":
        """Statistics of no pixels, the zero of the sum."""
        nothing = np.zeros(bands)
        return cls(0, 0, nothing, nothing, np.full(bands, np.inf), np.full(bands, -np.inf), ({},) * bands)

    @classmethod
    def of(cls, pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> "BandStats":
        """Statistics of one array.

        Parameters
        ----------
        pixels : array (C, ...)
            Any real type; computed in float64.
        valid : array (...) of bool, optional
            True where the pixel counts; by default everywhere.
        """
        flat = np.asarray(pixels).reshape(len(pixels), -1)
        keep = None if valid is None or np.all(valid) else np.asarray(valid).ravel()
        count = flat.shape[1] if keep is None else int(np.count_nonzero(keep))
        if not count:
            return cls(**{**vars(cls.empty(len(flat))), "pixels": flat.shape[1]})
        bands = [_of_band(band if keep is None else band[keep]) for band in flat]  # one at a time: caches are small
        mean, m2, low, high, sketch = zip(*bands, strict=True)
        return cls(count, flat.shape[1], np.array(mean), np.array(m2), np.array(low), np.array(high), sketch)

    def __add__(self, other: "BandStats") -> "BandStats":
        count, pixels = self.count + other.count, self.pixels + other.pixels
        part = other.count / count if count else 0.0
        gap = other.mean - self.mean
        return BandStats(
            count,
            pixels,
            self.mean + gap * part,
            self.m2 + other.m2 + gap**2 * self.count * part,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            tuple(
                {b: one.get(b, 0) + two.get(b, 0) for b in one.keys() | two.keys()}
                for one, two in zip(self.sketch, other.sketch, strict=True)
            ),
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of each band, (C,); NaN before any pixel."""
        return np.sqrt(self.m2 / self.count) if self.count else np.full_like(self.mean, np.nan)

    @property
    def valid_share(self) -> float:
        """Part of the pixels that are valid; NaN before any pixel."""
        return self.count / self.pixels if self.pixels else float("nan")

    def quantiles(self, q: Sequence[float]) -> NDArray[np.float64]:
        """Quantiles of each band, (C, len(q)), within 1 % of their value; NaN before any pixel."""
        found = np.full((len(self.sketch), len(q)), np.nan)
        if not self.count:
            return found
        for row, bins, low, high in zip(found, self.sketch, self.minimum, self.maximum, strict=True):
            order = sorted(bins)
            reached = np.cumsum([bins[b] for b in order])
            place = np.searchsorted(reached, np.asarray(q) * (self.count - 1), side="right")
            row[:] = np.clip([_value(order[min(p, len(order) - 1)]) for p in place], low, high)
        return found

    def histogram(self, edges: Sequence[float]) -> NDArray[np.int64]:
        """Pixels of each band between edges, (C, len(edges) - 1), after `numpy.histogram`; values are known to 1 %.

        Parameters
        ----------
        edges : sequence of float
            Ascending, in units of the bands; the last bin holds its upper edge.
        """
        found = np.zeros((len(self.sketch), len(edges) - 1), np.int64)
        for row, bins, low, high in zip(found, self.sketch, self.minimum, self.maximum, strict=True):
            values = np.clip([_value(bin_) for bin_ in bins], low, high)
            row[:] = np.histogram(values, edges, weights=np.array(list(bins.values()), np.int64))[0]
        return found


def _of_band(values: NDArray[Any]) -> tuple[float, float, float, float, dict[int, int]]:
    """Mean, sum of squared differences, minimum, maximum and sketch of the values of one band, at least one."""
    found, times = _distinct(values)
    mean = float((found * times).sum() / len(values))
    m2 = float(((found - mean) ** 2 * times).sum())
    return mean, m2, float(found.min()), float(found.max()), _sketch(found, times)


def _distinct(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Values and how often each occurs; as they are, once each, unless they are whole numbers of a small range.

    As most bands are, which then cost a tenth.
    """
    low, high = float(values.min()), float(values.max())
    if low >= -(2.0**31) and high < 2**31 and high - low < FEW:
        whole = values.astype(np.int32)
        if (whole == values).all():
            counts = np.bincount(whole - int(low))
            there = np.flatnonzero(counts)
            return (there + low).astype(np.float64), counts[there].astype(np.int64)
    return values.astype(np.float64), np.ones(len(values), np.int64)


def _sketch(values: NDArray[np.float64], times: NDArray[np.int64]) -> dict[int, int]:
    """Pixels a logarithmic bin."""
    size = np.abs(values)
    bins = np.ceil(np.log(np.maximum(size, SMALLEST) / SMALLEST) / np.log(GAMMA)).astype(np.int64)
    found, place = np.unique(np.where(values < 0, -bins, bins), return_inverse=True)
    counts = np.bincount(place, times).astype(np.int64)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _value(bin_: int) -> float:
    """Value in the middle of a bin."""
    size = SMALLEST * GAMMA ** abs(bin_) * 2 / (1 + GAMMA) if bin_ else 0.0
    return float(np.copysign(size, bin_))


@dataclass(frozen=True)
class ClassCounts:
    """Labelled pixels of each class; two of them add."""

    counts: NDArray[np.int64]
    """(K,), by id."""
    ignored: int = 0
    """Pixels without a label."""

    @classmethod
    def empty(cls, classes: int) -> "ClassCounts":
        """Counts of no pixels."""
        return cls(np.zeros(classes, np.int64))

    @classmethod
    def of(cls, ids: NDArray[Any], classes: int) -> "ClassCounts":
        """Count the ids 0 … ``classes - 1``; all others are ignored."""
        flat = np.asarray(ids).ravel()
        counts = np.bincount(flat[(flat >= 0) & (flat < classes)].astype(np.int64), minlength=classes)
        return cls(counts.astype(np.int64), int(flat.size - counts.sum()))

    def __add__(self, other: "ClassCounts") -> "ClassCounts":
        return ClassCounts(self.counts + other.counts, self.ignored + other.ignored)

    def weights(self, rule: str) -> NDArray[np.float64]:
        """Weight of each class in a loss, (K,), mean 1 over the classes that occur; 0 for those that do not.

        Parameters
        ----------
        rule : {'none', 'inverse', 'median', 'effective'}
            One for all; total over class pixels; median of the frequencies over a class's own [1]_; the
            inverse of the effective number of samples, with β = 1 - 1/total [2]_.

        References
        ----------
        .. [1] D. Eigen, R. Fergus, Predicting depth, surface normals and semantic labels with a common
           multi-scale convolutional architecture, ICCV 2015, arXiv:1411.4734.
        .. [2] Y. Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019,
           arXiv:1901.05555.
        """
        seen = self.counts > 0
        counts = np.where(seen, self.counts, 1).astype(np.float64)
        total = max(counts[seen].sum(), 2.0)
        match rule:
            case "none":
                weight = np.ones_like(counts)
            case "inverse":
                weight = total / counts
            case "median":
                weight = (np.median(counts[seen]) if seen.any() else 1.0) / counts
            case "effective":
                beta = 1 - 1 / total
                weight = (1 - beta) / -np.expm1(counts * np.log(beta))
            case _:
                raise ValueError(f"class weights are none, inverse, median or effective, not {rule!r}")
        weight = np.where(seen, weight, 0.0)
        return weight / weight[seen].mean() if seen.any() else weight
