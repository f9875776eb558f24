"""Where labels fit the image best: class boundaries against the steps of what single pixels look like, shift by shift."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import Cases
from .findings import Finding

REACH = 8
"""Pixels that labels are shifted by at most, each way."""
BOUNDARY = 100
"""Pixels of class boundary from which a fit says something."""
DISTANCE = 2.5
"""Pixels that the labels of one scene are off by at least: outlines by hand are off by one or two as often as not."""
SLIP = 1
"""The same for all scenes together, whose slips by hand even out."""
SURE = 6.0
"""Best fit over the spread of far shifts, in deviations of these; labels of other scenes reach three or four."""
LEAD = 3.5
"""Deviations by which the best fit is ahead of the labels as they are."""
KEPT = 0.75
"""Part of the best fit that labels of all scenes have as they are, at most: the edges of land are soft."""
FEW = 50
"""Pixels of a class in a chip from which it is known what it looks like there."""

Surface = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """How well class boundaries meet the steps of the image, for each shift of the labels; two of them add."""

    surface: Surface
    """Steps across the boundary in the right direction, as parts of certainty, summed; (2 · REACH + 1,) · 2, by rows
    and columns that the labels are moved by, from -REACH."""
    boundary: int
    """Pairs of neighbours of two classes."""

    @classmethod
    def nothing(cls) -> "Fit":
        """The zero of the sum."""
        return cls(np.zeros((2 * REACH + 1, 2 * REACH + 1)), 0)

    def __add__(self, other: "Fit") -> "Fit":
        return Fit(self.surface + other.surface, self.boundary + other.boundary)

    @property
    def best(self) -> tuple[int, int]:
        """Rows and columns to move the labels by, so that they fit best."""
        row, col = np.unravel_index(int(self.surface.argmax()), self.surface.shape)
        return int(row) - REACH, int(col) - REACH

    @property
    def kept(self) -> float:
        """What the labels as they are have of the best fit, above that of far shifts; 1 where they fit best."""
        return float((self.surface[REACH, REACH] - self._far) / max(self.surface.max() - self._far, 1e-9))

    @property
    def sureness(self) -> float:
        """Best fit above that of far shifts, in deviations of these."""
        return float((self.surface.max() - self._far) / max(float(self._ring.std()), 1e-9))

    @property
    def near(self) -> float:
        """Best fit within two pixels above that of far shifts, in deviations of these."""
        middle = self.surface[REACH - 2 : REACH + 3, REACH - 2 : REACH + 3]
        return float((middle.max() - self._far) / max(float(self._ring.std()), 1e-9))

    def shifted(self, distance: float = DISTANCE) -> bool:
        """Tell whether the labels clearly fit better elsewhere, so many pixels off at least."""
        return (
            self.boundary >= BOUNDARY
            and hypot(*self.best) >= distance
            and max(map(abs, self.best)) < REACH
            and self.sureness >= SURE
            and (1 - self.kept) * self.sureness >= LEAD
        )

    @property
    def _ring(self) -> NDArray[np.float64]:
        edge = self.surface
        return np.concatenate([edge[0], edge[-1], edge[1:-1, 0], edge[1:-1, -1]])

    @property
    def _far(self) -> float:
        return float(np.median(self._ring))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of too short a boundary, its length alone."""
        rows, cols = self.best if self.boundary >= BOUNDARY else (None, None)
        return {
            "rows": rows,
            "columns": cols,
            "kept": self.kept if self.boundary >= BOUNDARY else None,
            "sureness": self.sureness if self.boundary >= BOUNDARY else None,
            "boundary": self.boundary,
        }


def fit(image: NDArray[np.floating[Any]], ids: NDArray[np.integer], classes: int) -> Fit:
    """Fit of one chip.

    A linear discriminant of the chip's own classes says how much each pixel looks like each of them. Across a boundary,
    that should step up for the class that begins and down for the one that ends. Boundaries and steps are both taken
    between neighbours, so that they lie on the same lattice; the sum over all boundaries at every shift is a
    cross-correlation, by the fast Fourier transform.

    Parameters
    ----------
    image : array (C, H, W)
        NaN where a pixel cannot be used.
    ids : array (H, W) of integers
        All but 0 … ``classes - 1`` are no class.
    """
    total = Fit.nothing()
    known = np.isfinite(image).all(axis=0)
    here = [k for k in range(classes) if np.count_nonzero((ids == k) & known) >= FEW]
    if min(ids.shape) <= 2 * REACH + 1 or len(here) < 2 or not len(image):
        return total
    looks = _looks(image, np.where(known, ids, classes), here)
    for axis in (0, 1):
        first, second = (np.take(ids, range(start, stop), axis) for start, stop in _neighbours(ids.shape[axis]))
        boundary = np.zeros(first.shape, bool)
        inner = slice(REACH, -REACH)
        boundary[inner, inner] = ((first != second) & (first < classes) & (second < classes))[inner, inner]
        surface = np.zeros_like(total.surface)
        for place, k in enumerate(here):
            begins = ((second == k).astype(np.float64) - (first == k)) * boundary
            steps = np.nan_to_num(np.diff(looks[place], axis=axis))
            product = np.conj(np.fft.rfft2(begins)) * np.fft.rfft2(steps)
            sums = np.roll(np.fft.irfft2(product, s=steps.shape), (REACH, REACH), axis=(0, 1))
            surface += sums[: 2 * REACH + 1, : 2 * REACH + 1]
        total += Fit(surface, int(boundary.sum()))
    return total


def _neighbours(length: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Range of the first, and of the second, of each two neighbours along an axis."""
    return (0, length - 1), (1, length)


def _looks(image: NDArray[np.floating[Any]], ids: NDArray[np.integer], here: Sequence[int]) -> NDArray[np.float64]:
    """How much each pixel looks like each class of `here`, 0 to 1, (K, H, W); NaN where it cannot be used.

    By normal distributions of one covariance, all classes as likely beforehand.
    """
    pixels = image.reshape(len(image), -1).astype(np.float64)
    flat = ids.ravel()
    means = np.array([pixels[:, flat == k].mean(axis=1) for k in here])
    centred = np.concatenate(
        [pixels[:, flat == k] - mean[:, None] for k, mean in zip(here, means, strict=True)], axis=1
    )
    covariance = centred @ centred.T / centred.shape[1]
    covariance += np.diag(1e-6 * covariance.diagonal() + 1e-12 * max(covariance.trace(), 1e-12))
    weights = means @ np.linalg.pinv(covariance)
    score = weights @ pixels - 0.5 * (weights * means).sum(axis=1)[:, None]
    score = np.exp(score - score.max(axis=0))
    looks: NDArray[np.float64] = (score / score.sum(axis=0)).reshape(len(here), *ids.shape)
    return looks


def misregistered(cases: Cases, fits: Sequence[Fit]) -> Iterator[Finding]:
    """Labels that lie beside what they mean: over all scenes together, or in some.

    Parameters
    ----------
    cases : Cases
    fits : sequence of Fit
        One a scene, in the order of ``cases.scenes``.
    """
    pooled = sum(fits, Fit.nothing())
    everywhere = pooled.shifted(SLIP) and pooled.kept <= KEPT
    if everywhere:
        yield _finding(f"labels of all {len(fits)} scenes", pooled)
    for case, one in zip(cases.scenes, fits, strict=True):
        alike = hypot(*np.subtract(one.best, pooled.best)) < DISTANCE
        if one.shifted() and not (everywhere and alike):
            yield _finding(case.name, one)


def _finding(about: str, one: Fit) -> Finding:
    rows, cols = one.best
    way = [f"{abs(rows)} {'down' if rows > 0 else 'up'}"] if rows else []
    way += [f"{abs(cols)} to the {'right' if cols > 0 else 'left'}"] if cols else []
    return Finding(
        "misregistered", "warning", about,
        f"Class boundaries follow the image best when the labels are moved by {' and '.join(way)} (pixels); as they are, "
        f"they have {max(one.kept, 0):.0%} of that fit. Lay them over the image: if it shows the shift, correct the "
        "georeference; if not, the labels may be coarse, or of another date than the image.",
        one.to_dict(),
    )  # fmt: skip
