"""Learning rates, as a part of the full one, by the step of the optimiser.

A step is one of the optimiser: of several batches, where gradients are accumulated.
"""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau

from ..options import Fitting

CLIMB, CYCLE_CLIMB = 0.1, 0.3
"""Part of all steps that climb if nothing is said; one cycle climbs as long as in torch."""
POWER = 0.9
"""Of the polynomial decay, as in DeepLab."""
FIRST, LAST = 1 / 25, 1 / 25e4
"""Parts of the full rate at which one cycle begins and ends, as in torch."""


def schedulers(optimizer: Optimizer, fitting: Fitting, steps: int) -> list[dict[str, Any]]:
    """Schedulers of an optimiser, as Lightning takes them, for so many steps of it.

    One of plateaus follows the validation mIoU by the epoch; all others know the rate of every step beforehand.
    """
    part = climbing(fitting)
    if fitting.schedule != "plateau":
        known = LambdaLR(optimizer, lambda step: rate(fitting.schedule, step, part, steps))
        return [{"scheduler": known, "interval": "step"}]
    warm = warm_steps(part, steps)
    climb = LinearLR(optimizer, 1 / warm, total_iters=warm - 1)
    # torch waits for one bad epoch more than its patience; that of early stopping, and ours, is the number of them
    fall = ReduceLROnPlateau(
        optimizer,
        "max",
        factor=fitting.plateau_factor,
        patience=fitting.plateau_patience - 1,
        threshold=0.0,
        eps=0.0,
    )
    return [
        {"scheduler": climb, "interval": "step"},
        {"scheduler": fall, "interval": "epoch", "monitor": "val_miou"},
    ]


def climbing(fitting: Fitting) -> float:
    """Part of all steps in which the learning rate climbs."""
    if fitting.warmup is not None:
        return fitting.warmup
    return CYCLE_CLIMB if fitting.schedule == "one-cycle" else CLIMB


def warm_steps(part: float, steps: int) -> int:
    """Steps of a climb, one at least, which is the full rate already."""
    return max(1, round(part * steps))


def rate(schedule: str, step: int, part: float, steps: int) -> float:
    """Part of the full learning rate at a step.

    Parameters
    ----------
    schedule : {'cosine', 'one-cycle', 'poly', 'constant'}
        All but one cycle begin with a straight climb [1]_, then decay as the function of that name says.
    step, steps : int
        From 0, and how many there are; after the last one the rate stays.
    part : float
        Of all steps, in which the rate climbs.

    References
    ----------
    .. [1] P. Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, arXiv:1706.02677, section 2.2.

    Examples
    --------
    >>> [round(rate("cosine", step, 0.2, 10), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if schedule == "one-cycle":
        return one_cycle(step, part, steps)
    warm = warm_steps(part, steps)
    if step < warm:
        return (step + 1) / warm
    return DECAYS[schedule](min(1.0, (step - warm) / max(1, steps - warm)))


def cosine(way: float) -> float:
    """Part of the full learning rate after a part of the way, 0 to 1: half a cosine, from 1 to 0 [1]_.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017,
       arXiv:1608.03983.

    Examples
    --------
    >>> [round(cosine(way), 2) for way in (0, 0.5, 1)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * way))


def poly(way: float) -> float:
    """Part of the full learning rate after a part of the way, 0 to 1: ``(1 - way)^0.9``, from 1 to 0 [1]_.

    References
    ----------
    .. [1] L.-C. Chen et al., DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution,
       and fully connected CRFs, TPAMI 2018, arXiv:1606.00915, section 4.1.

    Examples
    --------
    >>> [round(poly(way), 3) for way in (0, 0.5, 1)]
    [1.0, 0.536, 0.0]
    """
    return float((1 - way) ** POWER)


def constant(_: float) -> float:
    """Full learning rate, whatever the part of the way."""
    return 1.0


def one_cycle(step: int, part: float, steps: int) -> float:
    """Part of the full learning rate at a step of one cycle, as `torch.optim.lr_scheduler.OneCycleLR` has it [1]_.

    Parameters
    ----------
    step, steps : int
        From 0, and how many there are.
    part : float
        Of all steps, that climbs from 1/25 to 1; the others fall to 1/250000, both along half a cosine.

    References
    ----------
    .. [1] L. N. Smith, N. Topin, Super-convergence: very fast training of neural networks using large learning rates,
       2018, arXiv:1708.07120.

    Examples
    --------
    >>> [round(one_cycle(step, 0.3, 11), 2) for step in (0, 3, 10)]
    [0.04, 0.98, 0.0]
    """
    top, last = part * steps - 1, steps - 1
    step = min(step, last)
    if step <= top:
        return _between(FIRST, 1.0, step / top if top > 0 else 1.0)
    return _between(1.0, LAST, (step - top) / (last - top))


def _between(start: float, end: float, way: float) -> float:
    return end + (start - end) * cosine(way)


DECAYS: dict[str, Callable[[float], float]] = {"cosine": cosine, "poly": poly, "constant": constant}
