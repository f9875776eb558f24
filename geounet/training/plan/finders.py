"""Searches for a learning rate and a batch size, by trying: plain values come back, with the curve that they are read from."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

LOWEST, HIGHEST = 1e-5, 1.0
"""Learning rates that are tried: what AdamW can use lies well between."""
STEPS = 90
"""Rates tried, one a step."""
WINDOW = 7
"""Steps over which the loss is smoothed, as batches differ: some third of a decade."""
DIVERGED = 3.0
"""Times the lowest smoothed loss, above its height over 0, at which a test is over."""
SAFETY = 10.0
"""How far the rate that is taken stays below the one at which the loss is lowest."""
NEAR_BEST = 0.9
"""Part of the best speed that a batch size has to reach."""


@dataclass(frozen=True)
class RateSearch:
    """A learning rate, and the range test that it comes from."""

    rates: tuple[float, ...]
    """Tried one after the other, each for a step."""
    losses: tuple[float, ...]
    """Of the batch before each step."""
    smoothed: tuple[float, ...]
    chosen: float
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``run.json`` keeps them."""
        return asdict(self)


@dataclass(frozen=True)
class BatchSearch:
    """A batch size, and the speeds that it comes from."""

    sizes: tuple[int, ...]
    """Tried, in samples."""
    speeds: tuple[float, ...]
    """Samples a second, of those that fitted into memory."""
    too_large: int | None
    """First size that did not; None if all did."""
    chosen: int
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``run.json`` keeps them."""
        return asdict(self)


Search: TypeAlias = RateSearch | BatchSearch


def rates_between(low: float = LOWEST, high: float = HIGHEST, steps: int = STEPS) -> list[float]:
    """Learning rates that grow by one factor from `low` to `high`.

    Examples
    --------
    >>> [f"{rate:.3g}" for rate in rates_between(1e-4, 1e-1, 4)]
    ['0.0001', '0.001', '0.01', '0.1']
    """
    return [float(rate) for rate in np.geomspace(low, high, steps)]


def find_learning_rate(step: Callable[[float], float], rates: Sequence[float], *, default: float = 1e-3) -> RateSearch:
    """Learning rate by an exponential range test [1]_: a tenth of the one at which the smoothed loss is lowest.

    While the rate grows, the loss first stands, then falls, and climbs again where steps are too long to be stable. Its
    lowest place lies at the edge of that, and a tenth of it is well inside: a quadratic loss of curvature L is lowest
    at 2/L, above which gradient descent diverges.

    Parameters
    ----------
    step : callable
        Makes one step at a rate and returns the loss before it.
    rates : sequence of float
        In growing order; the test ends early where the loss is not finite, or is far above the lowest so far.
    default : float
        What is chosen where the loss does not fall at any rate.

    References
    ----------
    .. [1] L. N. Smith, Cyclical learning rates for training neural networks, WACV 2017, arXiv:1506.01186.
    """
    losses: list[float] = []
    for rate in rates:
        loss = step(rate)
        if not math.isfinite(loss):
            break
        losses.append(loss)
        recent = float(np.mean(losses[-WINDOW:]))
        if len(losses) > 2 * WINDOW and recent > DIVERGED * min(smooth(losses[:-WINDOW])):
            break
    tried = tuple(float(rate) for rate in rates[: len(losses)])
    smoothed = smooth(losses)
    lowest = int(np.argmin(smoothed)) if losses else 0
    if lowest == 0:
        why = f"the loss did not fall at any rate tried, and {default:g} is what is taken without a test"
        return RateSearch(tried, tuple(losses), tuple(smoothed.tolist()), default, why)
    chosen = float(f"{tried[lowest] / SAFETY:.2g}")
    why = f"a tenth of {tried[lowest]:.2g}, at which the smoothed loss is lowest before steps get too long"
    return RateSearch(tried, tuple(losses), tuple(smoothed.tolist()), chosen, why)


def smooth(losses: Sequence[float]) -> NDArray[np.float64]:
    """Mean over `WINDOW` steps around each, (N,), over fewer at the ends: what is lowest is not shifted.

    Examples
    --------
    >>> smooth([7.0] * 3 + [0.0] * 5).round(1).tolist()
    [5.2, 4.2, 3.5, 3.0, 2.0, 1.2, 0.0, 0.0]
    """
    half = WINDOW // 2
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    places = np.arange(len(losses))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(losses))
    return np.asarray((sums[last] - sums[first]) / np.maximum(last - first, 1))


def sizes_up_to(most: int, least: int = 1) -> list[int]:
    """Powers of two up to a number, smallest first; none is below `least`, and there is one in any case.

    Examples
    --------
    >>> sizes_up_to(20)
    [1, 2, 4, 8, 16]
    >>> sizes_up_to(20, 3), sizes_up_to(2, 3)
    ([4, 8, 16], [4])
    """
    first = (least - 1).bit_length()
    return [1 << power for power in range(first, max(first + 1, most.bit_length()))]


def find_batch_size(seconds: Callable[[int], float], sizes: Sequence[int]) -> BatchSearch:
    """Batch size: of those that fit into memory, the smallest whose speed is within a tenth of the best.

    Larger ones would make an epoch no shorter, and leave it fewer steps.

    Parameters
    ----------
    seconds : callable
        Time of a step of so many samples; `torch.OutOfMemoryError`, or a `RuntimeError` of torch's that says the same of
        a CPU, if they do not fit.
    sizes : sequence of int
        In growing order; none is tried after the first that does not fit.

    Raises
    ------
    torch.OutOfMemoryError
        Not even the first fits.
    """
    speeds: list[float] = []
    too_large = None
    for size in sizes:
        try:
            speeds.append(size / seconds(size))
        except RuntimeError as error:
            if not is_out_of_memory(error) or not speeds:
                raise
            too_large = size
            break
    best = max(speeds)
    place = next(place for place, speed in enumerate(speeds) if speed >= NEAR_BEST * best)
    why = f"the smallest batch within a tenth of the best speed, {best:.3g} samples a second"
    if too_large is not None:
        why += f"; {too_large} do not fit into memory"
    elif place == len(speeds) - 1 and len(speeds) > 1:
        why += "; larger ones were not tried, for the steps of an epoch or for memory"
    return BatchSearch(tuple(sizes[: len(speeds)]), tuple(speeds), too_large, sizes[place], why)


def is_out_of_memory(error: RuntimeError) -> bool:
    """True if a GPU, or a CPU, had not enough memory; torch has a class of its own for the former only."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
