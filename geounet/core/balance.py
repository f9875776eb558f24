"""Draw windows so that each class has the share asked for, and nothing else changes more than it must."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 256
"""Windows that a draw is spread over at least, in the sense of Kish's effective number, where there are that many."""
CLOSE = 0.01
"""A share is reached when it is this near, as a part of itself."""
HALVINGS = 10
"""Steps in which the nearest shares to be had are found, where those asked for are not."""

_FIRM, _SOFT, _SOFTER = 1e-9, 1e-2, 1e-1
# Ridges of the dual: missing a wish costs its squared miss over twice its ridge, in nats.


@dataclass(frozen=True, eq=False)
class Tilt:
    """How often to draw each window."""

    weights: NDArray[np.float64]
    """Probability of each window, (N,)."""
    shares: NDArray[np.float64]
    """Share of each class among the labelled pixels drawn, on average, (K,)."""
    reached: bool
    """False if the shares asked for are not to be had from these windows; then `shares` are as near as they come."""


def tilt(
    content: NDArray[np.floating],
    weights: NDArray[np.float64],
    target: NDArray[np.float64],
    firm: NDArray[np.bool_] | None = None,
    *,
    fewest: float = FEWEST,
) -> Tilt:
    """Probabilities nearest to `weights` under which the classes have the shares asked for.

    Of all distributions with those shares, the one of least relative entropy to `weights` is an exponential tilt,
    q ∝ w exp(λ·g), where g = n - t Σn is by how much a window exceeds the shares [1]_. λ is found by Newton's method
    on the convex dual, in which a ridge makes a wish soft [2]_: that windows keep their labelled pixels, and that the
    classes that are not firm keep their proportion. Where the firm shares cannot be reached, the way from the present
    shares towards them is gone as far as the windows lead.

    Parameters
    ----------
    content : array (N, K)
        Labelled pixels of each class in each window.
    weights : array (N,)
        Probability of each window as it is.
    target : array (K,)
        Shares of the classes, of sum 1.
    firm : array (K,) of bool, optional
        Shares to be met; the others are approached where that costs little. By default all are firm.
    fewest : float
        Effective number of windows that must remain, at most half of what there is: a class that only few windows
        hold is not had at the price of drawing the same ones over and over.

    References
    ----------
    .. [1] I. Csiszár, I-divergence geometry of probability distributions and minimization problems, Annals of
       Probability 3(1), 1975.
    .. [2] M. Dudík, S. J. Phillips, R. E. Schapire, Maximum entropy density estimation with generalized
       regularization, Journal of Machine Learning Research 8, 2007.
    """
    weights = weights / weights.sum()
    firm = np.ones(len(target), np.bool_) if firm is None else firm
    enough = min(fewest, effective(weights) / 2)

    def towards(soft: float) -> Tilt:
        return _towards(content, weights, target, firm, np.append(np.where(firm, _FIRM, soft), soft), enough)

    first = towards(_SOFT)
    if first.reached or firm.all():
        return first
    second = towards(_SOFTER)
    return second if second.reached else first


def _towards(
    content: NDArray[np.floating],
    weights: NDArray[np.float64],
    target: NDArray[np.float64],
    firm: NDArray[np.bool_],
    ridge: NDArray[np.float64],
    enough: float,
) -> Tilt:
    """Tilt on the way from the present shares to the target, as far as there are effectively `enough` windows."""
    mass = content.sum(axis=1)
    present = weights @ content / (weights @ mass)
    best, gone, limit = weights, 0.0, 1.0
    for trial in range(HALVINGS):
        part = 1.0 if trial == 0 else (gone + limit) / 2
        goal = present + part * (target - present)
        found = _solve(content, weights, goal, ridge)
        near = np.abs(found @ content / (found @ mass) - goal) <= CLOSE * np.maximum(goal, CLOSE)
        if near[firm].all() and effective(found) >= enough:
            best, gone = found, part
            if part == 1.0:
                break
        else:
            limit = part
    return Tilt(best, best @ content / (best @ mass), gone == 1.0)


def effective(weights: NDArray[np.float64]) -> float:
    """Kish's effective number of draws: (Σw)² / Σw², N where all weigh alike."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def spread(weights: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of `count` draws, (count,), in random order; each is drawn its expected number of times, up to rounding.

    Systematic resampling [1]_: what is drawn varies less around its mean than independent draws would.

    References
    ----------
    .. [1] G. Kitagawa, Monte Carlo filter and smoother for non-Gaussian nonlinear state space models, Journal of
       Computational and Graphical Statistics 5(1), 1996.
    """
    reached = np.cumsum(weights)
    marks = (np.arange(count) + rng.random()) / count * reached[-1]
    drawn = np.minimum(np.searchsorted(reached, marks, side="right"), len(weights) - 1)
    return rng.permutation(drawn)


def _solve(
    content: NDArray[np.floating], weights: NDArray[np.float64], goal: NDArray[np.float64], ridge: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Tilted probabilities, (N,), by Newton's method with halved steps on log Σ w exp(λ·g) + Σ ridge λ² / 2."""
    mass = content.sum(axis=1)
    mean = weights @ mass
    surplus = np.column_stack([(content - goal * mass[:, None]) / mean, mass / mean - 1])
    known = weights > 0
    start = np.full(len(weights), -np.inf)
    start[known] = np.log(weights[known])
    slope = np.zeros(len(ridge))

    def dual(slope: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        exponent = start + surplus @ slope
        top = exponent.max()
        raised = np.exp(exponent - top)
        total = raised.sum()
        return float(top + np.log(total) + (ridge * slope**2).sum() / 2), raised / total

    value, tilted = dual(slope)
    for _ in range(100):
        centre = tilted @ surplus
        gradient = centre + ridge * slope
        curved = (surplus * tilted[:, None]).T @ surplus - np.outer(centre, centre) + np.diag(ridge)
        step = np.linalg.lstsq(curved, -gradient, rcond=None)[0]
        descent = float(gradient @ step)
        if descent > -1e-12:
            break
        length = 1.0
        while length > 1e-6:
            then, probabilities = dual(slope + length * step)
            if then <= value + 1e-4 * length * descent:
                break
            length /= 2
        else:
            break
        slope, value, tilted = slope + length * step, then, probabilities
    return tilted
