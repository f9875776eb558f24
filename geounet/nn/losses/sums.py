"""Weighted sums of losses, as modules that hold their options and class weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ...core.legend import IGNORE
from ...errors import ConfigError
from .entropy import border_cross_entropy, cross_entropy, focal_loss
from .pixels import precise
from .regions import Per, dice_loss, generalised_dice_loss, lovasz_softmax, tversky_loss

LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal_loss,
    "border": border_cross_entropy,
    "dice": dice_loss,
    "generalised_dice": generalised_dice_loss,
    "tversky": tversky_loss,
    "lovasz": lovasz_softmax,
}
"""Losses that can be summed, by name."""


class WeightedSum(nn.Module):
    """Sum of losses, each by its weight: ``Σ weight · loss(logits, labels)``.

    Parameters
    ----------
    terms : mapping of str to float
        Weight of each loss: ``cross_entropy``, ``focal``, ``border`` (`border_cross_entropy`), ``dice``,
        ``generalised_dice``, ``tversky`` and ``lovasz``. A loss of weight 0 is not computed.
    class_weights : sequence of float, optional
        (K,), as `geounet.core.stats.ClassCounts.weights` finds them; (2,) for logits of one channel. They weigh the
        pixels of ``cross_entropy``, ``focal`` and ``border``; the losses of regions give every class that occurs the
        same say already.
    ignore_index : int
        Label of pixels that take no part.
    label_smoothing : float
        Of ``cross_entropy``, from 0 to 1.
    gamma : float
        Of ``focal``, from 0.
    alpha, beta : float
        What ``tversky`` takes for pixels too many and for pixels missed, from 0, not both 0.
    smooth : float
        Pixels, of ``dice`` and ``tversky``.
    per : {"batch", "sample"}
        What the losses of regions take for one image.
    w0 : float
        Of ``border``, from 0.
    sigma : float
        Pixels, of ``border``, above 0.
    background : int, optional
        Class id that makes up no objects for ``border``; None if all classes do.

    Raises
    ------
    ConfigError
        A loss is unknown, a weight or an option is out of its bounds, or no term weighs anything.

    Examples
    --------
    >>> loss = WeightedSum({"dice": 1.0, "focal": 0.5}, gamma=2.0)
    >>> float(loss(torch.tensor([[[[30.0, -30.0]]]]), torch.tensor([[[1, 0]]])))
    0.0
    """

    class_weights: Tensor | None

    def __init__(
        self,
        terms: Mapping[str, float],
        *,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORE,
        label_smoothing: float = 0.0,
        gamma: float = 2.0,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 0.0,
        per: Per = "batch",
        w0: float = 10.0,
        sigma: float = 5.0,
        background: int | None = 0,
    ) -> None:
        super().__init__()
        for name in terms:
            if name not in LOSSES:
                raise ConfigError(f"{name} is no loss; there are {', '.join(LOSSES)}.")
        _refuse_weights(" and ".join(terms) or "terms", list(terms.values()))
        if class_weights is not None:
            _refuse_weights("class_weights", class_weights)
        _refuse_weights("alpha and beta", [alpha, beta])
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing is a share from 0 to 1, not {label_smoothing}.")
        for name, value in (("gamma", gamma), ("smooth", smooth), ("w0", w0)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} is a number from 0, not {value}.")
        if not 0 < sigma < math.inf:
            raise ConfigError(f"sigma is a number of pixels above 0, not {sigma}.")
        if per not in get_args(Per):
            raise ConfigError(f"per is {' or '.join(get_args(Per))}, not {per}.")
        self.terms = dict(terms)
        self.ignore_index = ignore_index
        region = {"per": per}
        self.options: dict[str, dict[str, Any]] = {
            "cross_entropy": {"label_smoothing": label_smoothing},
            "focal": {"gamma": gamma},
            "border": {"w0": w0, "sigma": sigma, "background": background},
            "dice": {"smooth": smooth, **region},
            "generalised_dice": region,
            "tversky": {"alpha": alpha, "beta": beta, "smooth": smooth, **region},
            "lovasz": region,
        }
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss, (), of logits (N, K, H, W) against labels (N, H, W)."""
        loss = logits.new_zeros((), dtype=precise(logits.dtype))
        for name, weight in self.terms.items():
            if weight:
                loss = loss + weight * self.term(name, logits, labels)
        return loss

    def term(self, name: str, logits: Tensor, labels: Tensor) -> Tensor:
        """One loss of the sum, (), before it is weighed."""
        options = self.options[name]
        if name in ("cross_entropy", "focal", "border"):
            options = options | {"weight": self._weights(logits)}
        return LOSSES[name](logits, labels, ignore_index=self.ignore_index, **options)

    def _weights(self, logits: Tensor) -> Tensor | None:
        classes = max(logits.shape[1], 2)
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ConfigError(
                f"there are {len(self.class_weights)} class_weights for {classes} classes: give one a class."
            )
        return self.class_weights


class DiceCrossEntropy(WeightedSum):
    """``dice · dice_loss + cross_entropy · cross_entropy``: Dice for the shape of rare classes, entropy for its calm.

    Parameters
    ----------
    dice, cross_entropy : float
        Weight of each term; a term of weight 0 is not computed.
    class_weights, ignore_index, label_smoothing
        As `WeightedSum`.

    Raises
    ------
    ConfigError
        A weight is negative or not finite, or both terms weigh nothing.
    """

    def __init__(
        self,
        dice: float = 1.0,
        cross_entropy: float = 1.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORE,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            {"dice": dice, "cross_entropy": cross_entropy},
            class_weights=class_weights,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
        )


def _refuse_weights(what: str, weights: Sequence[float]) -> None:
    """Raise unless weights are finite, none is negative and one is above 0."""
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ConfigError(f"{what} are weights from 0, at least one above it; found {list(weights)}.")
