"""Losses of whole regions: one minus the overlap of a class's probabilities with its pixels."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ...core.legend import IGNORE
from .pixels import memberships, or_one, paired

Per: TypeAlias = Literal["batch", "sample"]
SPACE: dict[Per, tuple[int, ...]] = {"batch": (0, 2, 3), "sample": (2, 3)}


def dice_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
    smooth: float = 0.0,
    per: Per = "batch",
) -> Tensor:
    """One minus the soft Dice coefficient [1]_, averaged over the classes that occur in the labels [2]_.

    For each class, ``(2 Σ p·y + smooth) / (Σ p + Σ y + smooth)`` with sums over the batch and space, where p are the
    probabilities (softmax over classes) and y is 1 on the class's pixels.

    Parameters
    ----------
    logits : Tensor (N, K, H, W), float
        Half precisions are computed in float32, also under autocast. What stands at ignored pixels does not matter,
        be it NaN. One channel, K = 1, is the sigmoid of class 1 against class 0; the overlap is then that of class 1
        alone.
    labels : Tensor (N, H, W), int64
        Ids 0 … K-1 (0 and 1 for one channel), or `ignore_index`.
    weight : Tensor (K,), optional
        Of each class in the average; by default all alike. For one channel there is nothing to weigh.
    ignore_index : int
        Label of pixels that take no part: no term, and a gradient of exactly zero.
    smooth : float
        Pixels added above and below the line, which damps classes of few pixels.
    per : {"batch", "sample"}
        One coefficient a class for the whole batch, or for each sample, then averaged over its classes and over the
        samples that have labels: small objects count as much as those of a sample full of them.

    Returns
    -------
    Tensor (), float32 (float64 for float64 logits)
        From 0 (all right) to 1; 0, with zero gradients, where no pixel has a label.

    References
    ----------
    .. [1] F. Milletari, N. Navab, S.-A. Ahmadi, V-Net: fully convolutional neural networks for volumetric medical
       image segmentation, 3DV 2016, arXiv:1606.04797.
    .. [2] C. H. Sudre et al., Generalised Dice overlap as a deep learning loss function for highly unbalanced
       segmentations, DLMIA 2017, arXiv:1707.03237.
    """
    with torch.autocast(logits.device.type, enabled=False):
        probs, here, _ = memberships(logits, labels, ignore_index)
        overlap = (probs * here).sum(dim=SPACE[per])
        pixels = here.sum(dim=SPACE[per])
        both = probs.sum(dim=SPACE[per]) + pixels
        dice = (2 * overlap + smooth) / torch.where(both > 0, both + smooth, 1)
        return _average(1 - dice, pixels, weight)


def generalised_dice_loss(logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORE, per: Per = "batch") -> Tensor:
    """One minus the generalised Dice coefficient [1]_, in which a class weighs by one over its pixels squared.

    ``2 Σ w Σ p·y / Σ w Σ (p + y)``, where the outer sums are over the classes that occur in the labels and
    ``w = 1 / (Σ y)²``, so that a class of few pixels has as much to say as a large one.

    Parameters
    ----------
    logits, labels, ignore_index
        As `dice_loss`, except that one channel is seen as two classes, 0 and 1, since a weight needs something to
        weigh against.
    per : {"batch", "sample"}
        One coefficient for the batch, or the average of one for each sample that has labels.

    Returns
    -------
    Tensor (), float32 (float64 for float64 logits)
        From 0 (all right) to 1; 0, with zero gradients, where no pixel has a label.

    References
    ----------
    .. [1] C. H. Sudre et al., Generalised Dice overlap as a deep learning loss function for highly unbalanced
       segmentations, DLMIA 2017, arXiv:1707.03237.
    """
    with torch.autocast(logits.device.type, enabled=False):
        probs, here, _ = memberships(paired(logits), labels, ignore_index)
        pixels = here.sum(dim=SPACE[per])
        weight = (pixels > 0) / or_one(pixels).to(probs) ** 2
        overlap = (weight * (probs * here).sum(dim=SPACE[per])).sum(-1, keepdim=True)
        both = (weight * (probs.sum(dim=SPACE[per]) + pixels)).sum(-1, keepdim=True)
        return _average(1 - 2 * overlap / or_one(both), pixels.sum(-1, keepdim=True))


def tversky_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
    smooth: float = 0.0,
    per: Per = "batch",
) -> Tensor:
    """One minus the Tversky index [1]_, averaged over the classes that occur in the labels.

    For each class, ``(TP + smooth) / (TP + alpha · FP + beta · FN + smooth)`` of the soft counts ``TP = Σ p·y``,
    ``FP = Σ p·(1 - y)`` and ``FN = Σ (1 - p)·y``. ``alpha = beta = 0.5`` is Dice, ``alpha = beta = 1`` the Jaccard
    index.

    Parameters
    ----------
    logits, labels, weight, ignore_index, per
        As `dice_loss`.
    alpha, beta : float
        What a pixel too many and a pixel missed cost. The default, from [1]_, favours finding rare classes.
    smooth : float
        Pixels added above and below the line.

    Returns
    -------
    Tensor (), float32 (float64 for float64 logits)
        From 0 (all right) to 1; 0, with zero gradients, where no pixel has a label.

    References
    ----------
    .. [1] S. S. M. Salehi, D. Erdogmus, A. Gholipour, Tversky loss function for image segmentation using 3D fully
       convolutional deep networks, MLMI 2017, arXiv:1706.05721.
    """
    with torch.autocast(logits.device.type, enabled=False):
        probs, here, _ = memberships(logits, labels, ignore_index)
        found = (probs * here).sum(dim=SPACE[per])
        extra = (probs * ~here).sum(dim=SPACE[per])
        missed = ((1 - probs) * here).sum(dim=SPACE[per])
        total = found + alpha * extra + beta * missed
        return _average(1 - (found + smooth) / torch.where(total > 0, total + smooth, 1), here.sum(SPACE[per]), weight)


def lovasz_softmax(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
    per: Per = "batch",
) -> Tensor:
    """Lovász extension of one minus the Jaccard index [1]_, averaged over the classes that occur in the labels.

    A convex stand-in for the IoU itself: each class's errors, ``1 - p`` on its pixels and ``p`` elsewhere, are sorted
    from large to small, and each weighs by how much the Jaccard index falls with it.

    Parameters
    ----------
    logits, labels, weight, ignore_index, per
        As `dice_loss`. One channel has the errors of the sigmoid, on class 1 alone.

    Returns
    -------
    Tensor (), float32 (float64 for float64 logits)
        From 0 (all right) to 1; 0, with zero gradients, where no pixel has a label.

    References
    ----------
    .. [1] M. Berman, A. Rannen Triki, M. B. Blaschko, The Lovász-Softmax loss: a tractable surrogate for the
       optimization of the intersection-over-union measure in neural networks, CVPR 2018, arXiv:1705.08790.
    """
    with torch.autocast(logits.device.type, enabled=False):
        probs, here, valid = memberships(logits, labels, ignore_index)
        errors = _lined_up(torch.where(here, 1 - probs, probs), per)
        truth = _lined_up(here, per)
        with torch.no_grad():
            slopes = _jaccard_slopes(torch.where(_lined_up(valid.expand_as(here), per), errors, -1), truth)
        return _average((errors * slopes).sum(-1), truth.sum(-1), weight)


def _lined_up(values: Tensor, per: Per) -> Tensor:
    """Values (N, K, H, W) as (1, K, N·H·W) of a batch or (N, K, H·W) of samples."""
    return values.transpose(0, 1).flatten(1).unsqueeze(0) if per == "batch" else values.flatten(2)


def _jaccard_slopes(errors: Tensor, truth: Tensor) -> Tensor:
    """How much the Jaccard index falls by each pixel as errors (…, P) come in from large to small, in their places.

    The differences of equation 9 in closed form, since those of float32 quotients would be lost in rounding.
    """
    order = errors.argsort(dim=-1, descending=True, stable=True)
    truth = truth.gather(-1, order)
    pixels = truth.sum(-1, keepdim=True)
    left = (pixels - truth.cumsum(-1)).to(errors)  # whole numbers until here: sums of floats vary on a GPU
    union = (pixels + (~truth).cumsum(-1)).to(errors)
    slopes = torch.where(truth, 1 / union, left / union / (union - 1).clamp_min(1))
    return torch.empty_like(slopes).scatter_(-1, order, slopes)


def _average(losses: Tensor, pixels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of losses ([N,] K) over the classes that have pixels, then over the samples that have any such class."""
    share = (pixels > 0).to(losses)
    if weight is not None:
        share = share * weight.to(losses)
    total = share.sum(-1)
    each = (losses * share).sum(-1) / or_one(total)
    return each.sum() / or_one((total > 0).sum().to(each))
