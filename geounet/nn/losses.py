"""How far logits are from labels: soft Dice, cross-entropy, and their sum."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.legend import IGNORE
from ..errors import ConfigError


def dice_loss(
    logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = IGNORE, smooth: float = 0.0
) -> Tensor:
    """One minus the soft Dice coefficient [1]_, averaged over the classes that occur in the labels [2]_.

    For each class, ``(2 Σ p·y + smooth) / (Σ p + Σ y + smooth)`` with sums over the batch and space, where p are the
    probabilities (softmax over classes) and y is 1 on the class's pixels.

    Parameters
    ----------
    logits : Tensor (N, K, H, W), float
        Half precisions are computed in float32, also under autocast. What stands at ignored pixels does not matter,
        be it NaN.
    labels : Tensor (N, H, W), int64
        Ids 0 … K-1, or `ignore_index`.
    weight : Tensor (K,), optional
        Of each class in the average; by default all alike.
    ignore_index : int
        Label of pixels that take no part: no term, and a gradient of exactly zero.
    smooth : float
        Pixels added above and below the line, which damps classes of few pixels.

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
        logits, valid = _labelled(logits, labels, ignore_index)
        probs = logits.softmax(dim=1) * valid
        classes = torch.arange(logits.shape[1], device=labels.device).view(1, -1, 1, 1)
        here = labels.unsqueeze(1) == classes
        overlap = (probs * here).sum(dim=(0, 2, 3))
        pixels = here.sum(dim=(0, 2, 3))
        both = probs.sum(dim=(0, 2, 3)) + pixels
        dice = (2 * overlap + smooth) / torch.where(both > 0, both + smooth, 1)
        share = (pixels > 0).to(dice) if weight is None else (pixels > 0) * weight.to(dice)
        return ((1 - dice) * share).sum() / _or_one(share.sum())


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
    ignored pixels, and always in float32 or better.

    Parameters
    ----------
    logits, labels, weight, ignore_index
        As `dice_loss`.
    label_smoothing : float
        Share of each pixel's label that is spread over all classes, 0 to 1.

    Returns
    -------
    Tensor (), float32 (float64 for float64 logits)
        Nats.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, valid = _labelled(logits, labels, ignore_index)
        weight = None if weight is None else weight.to(logits)
        each = functional.cross_entropy(  # summed by hand: torch's own sum is not deterministic on a GPU
            logits, labels, weight, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
        )
        counted = valid.squeeze(1)
        if weight is None:
            return each.sum() / _or_one(counted.sum().to(each))
        return each.sum() / _or_one((weight[torch.where(counted, labels, 0)] * counted).sum())


class DiceCrossEntropy(nn.Module):
    """``dice · dice_loss + cross_entropy · cross_entropy``: Dice for the shape of rare classes, entropy for its calm.

    Parameters
    ----------
    dice, cross_entropy : float
        Weight of each term; a term of weight 0 is not computed.
    class_weights : sequence of float, optional
        (K,), as `geounet.core.stats.ClassCounts.weights` finds them. They weigh the pixels of the cross-entropy; Dice
        gives every class that occurs the same say already.
    ignore_index : int
        Label of pixels that take no part.
    label_smoothing : float
        Of the cross-entropy.

    Raises
    ------
    ConfigError
        A weight is negative or not finite, or both terms weigh nothing.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        dice: float = 1.0,
        cross_entropy: float = 1.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORE,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        terms = torch.tensor([dice, cross_entropy], dtype=torch.float64)
        for what, values in (
            ("dice and cross_entropy", terms),
            ("class_weights", terms if weights is None else weights),
        ):
            if not bool(torch.isfinite(values).all()) or bool((values < 0).any()) or not bool((values > 0).any()):
                raise ConfigError(f"{what} are weights from 0, at least one above it; found {values.tolist()}.")
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing is a share from 0 to 1, not {label_smoothing}.")
        self.dice = dice
        self.cross_entropy = cross_entropy
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss, (), of logits (N, K, H, W) against labels (N, H, W)."""
        loss = logits.new_zeros((), dtype=_precise(logits.dtype))
        if self.dice:
            loss = loss + self.dice * dice_loss(logits, labels, ignore_index=self.ignore_index)
        if self.cross_entropy:
            loss = loss + self.cross_entropy * cross_entropy(
                logits,
                labels,
                weight=self.class_weights,
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
            )
        return loss


def _labelled(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Logits (N, K, H, W) in full precision and 0 where ignored, and where they count, (N, 1, H, W)."""
    valid = (labels != ignore_index).unsqueeze(1)
    return torch.where(valid, logits.to(_precise(logits.dtype)), 0), valid


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _or_one(total: Tensor) -> Tensor:
    """Divisor that leaves an empty sum at zero."""
    return torch.where(total > 0, total, 1)
