"""What bands are shifted and scaled by before a network sees them, from the statistics of the training pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.stats import BandStats
from ..options import Normalisation

MIDDLE = (0.05, 0.95)
"""Quantiles between which the middle of a band's values lies: what is outside may be cloud, glint or a dead sensor."""
NORMAL_MIDDLE = 3.2897
"""How many deviations lie between these quantiles of a normal distribution."""


def own_scale(stats: BandStats, rule: Normalisation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and deviation of each band by itself, (C,) each, in its unit: robust ones if the rule is, else the moments.

    The robust deviation is that of a normal distribution with the same middle 90 %; where the middle is of one value,
    that of all values stands in.
    """
    if rule != "robust":
        return stats.mean, stats.std
    low, centre, high = stats.quantiles([MIDDLE[0], 0.5, MIDDLE[1]]).T
    spread = (high - low) / NORMAL_MIDDLE
    return centre, np.where(spread > 0, spread, stats.std)


def normalised_by(
    stats: BandStats, rule: Normalisation, continuous: Sequence[bool]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is subtracted from each band, and what it is divided by then, (C,) each, in its unit.

    Parameters
    ----------
    stats : BandStats
        Of the valid training pixels.
    rule : {'standardise', 'robust', 'common', 'none'}
        ``common`` takes the mean and the deviation of the values of all continuous bands together.
    continuous : sequence of bool
        True for the bands that hold amounts; what comes back for the others means nothing.
    """
    if rule == "none":
        return np.zeros_like(stats.mean), np.ones_like(stats.mean)
    if rule == "common" and any(continuous):
        among = np.asarray(continuous)
        centre = stats.mean[among].mean()
        spread = np.sqrt((stats.std[among] ** 2 + (stats.mean[among] - centre) ** 2).mean())
        return np.full_like(stats.mean, centre), np.full_like(stats.mean, spread)
    return own_scale(stats, rule)


def tails(stats: BandStats) -> NDArray[np.float64]:
    """Deviation of each band over its robust one, (C,): 1 for a normal distribution, and for a constant."""
    _, spread = own_scale(stats, "robust")
    return np.divide(stats.std, spread, out=np.ones_like(spread), where=spread > 0)
