"""Losses of single pixels: the cross-entropy, also focused on hard pixels or on the borders between objects."""

import torch
from torch import Tensor
from torch.nn import functional

from ...core.legend import IGNORE
from .borders import border_weights
from .pixels import labelled, or_one, paired


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy, averaged over the labelled pixels, each counting as its class weighs.

    As `torch.nn.functional.cross_entropy`, but 0 instead of NaN where no pixel has a label, deaf to what stands at
    ignored pixels, and always in float32 or better. One channel is the binary cross-entropy of its sigmoid.

    Parameters
    ----------
    logits, labels, ignore_index
        As `dice_loss`.
    weight : Tensor (K,), optional
        Of each class, by its id; (2,) for one channel. By default all alike.
    label_smoothing : float
        Share of each pixel's label that is spread over all classes, 0 to 1.

    Returns
    -------
    Tensor (), float32 (float64 for float64 logits)
        Nats.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, valid = labelled(paired(logits), labels, ignore_index)
        weight = None if weight is None else weight.to(logits)
        each = functional.cross_entropy(  # summed by hand: torch's own sum is not deterministic on a GPU
            logits, labels, weight, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
        )
        return each.sum() / or_one(_counts(labels, valid, weight).sum().to(each))


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Cross-entropy in which a pixel counts by ``(1 - p)^gamma``, p the probability of its label [1]_.

    Parameters
    ----------
    logits, labels, weight, ignore_index
        As `cross_entropy`; the weights are the α of [1]_.
    gamma : float
        How little pixels count that are right already; 0 is the cross-entropy.

    Returns
    -------
    Tensor (), float32 (float64 for float64 logits)
        Nats, averaged over the labelled pixels, each counting as its class weighs.

    References
    ----------
    .. [1] T.-Y. Lin et al., Focal loss for dense object detection, ICCV 2017, arXiv:1708.02002.
    """
    with torch.autocast(logits.device.type, enabled=False):
        each, counts = _entropies(logits, labels, weight, ignore_index)
        doubt = -torch.expm1(-each)
        # where nothing is left to learn the power of less than 1 would have an endless slope
        focus = doubt.clamp_min(torch.finfo(doubt.dtype).eps) ** gamma
        return (focus * each * counts).sum() / or_one(counts.sum())


def border_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    background: int | None = 0,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Cross-entropy in which pixels between two objects count more, as in the first U-Net [1]_.

    Each pixel counts by the weight of its class plus `border_weights`, and the sum is divided by what all count.

    Parameters
    ----------
    logits, labels, weight, ignore_index
        As `cross_entropy`.
    w0, sigma, background
        As `border_weights`.

    Returns
    -------
    Tensor (), float32 (float64 for float64 logits)
        Nats.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI
       2015, arXiv:1505.04597.
    """
    with torch.autocast(logits.device.type, enabled=False):
        each, counts = _entropies(logits, labels, weight, ignore_index)
        border = border_weights(labels, w0=w0, sigma=sigma, background=background, ignore_index=ignore_index)
        counts = counts + border.to(each)
        return (each * counts).sum() / or_one(counts.sum())


def _entropies(logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each pixel, 0 where ignored, and how much it counts, both (N, H, W)."""
    logits, valid = labelled(paired(logits), labels, ignore_index)
    each = functional.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    return each, _counts(labels, valid, None if weight is None else weight.to(logits)).to(each)


def _counts(labels: Tensor, valid: Tensor, weight: Tensor | None) -> Tensor:
    """How much each pixel counts, (N, H, W): its class's weight, or 1; 0 where ignored."""
    counted = valid.squeeze(1)
    return counted if weight is None else weight[torch.where(counted, labels, 0)] * counted
