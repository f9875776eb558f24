"""Which pixels count, and how likely each class is there: what all losses begin with."""

import torch
from torch import Tensor


def labelled(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Logits (N, K, H, W) in full precision and 0 where ignored, and where they count, (N, 1, H, W)."""
    valid = (labels != ignore_index).unsqueeze(1)
    return torch.where(valid, logits.to(precise(logits.dtype)), 0), valid


def paired(logits: Tensor) -> Tensor:
    """Logits of two classes, (N, 2, H, W), for one channel: the sigmoid of z is the softmax of 0 and z."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def memberships(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of each class, 0 where ignored, and whether it is the label, (N, K, H, W); where pixels count.

    One channel is the sigmoid of class 1, which stands alone.
    """
    logits, valid = labelled(logits, labels, ignore_index)
    single = logits.shape[1] == 1
    probs = (logits.sigmoid() if single else logits.softmax(dim=1)) * valid
    classes = torch.arange(single, logits.shape[1] + single, device=labels.device).view(1, -1, 1, 1)
    return probs, (labels.unsqueeze(1) == classes) & valid, valid


def precise(dtype: torch.dtype) -> torch.dtype:
    """Type to compute in: float32, or better where the logits are."""
    return torch.promote_types(dtype, torch.float32)


def or_one(total: Tensor) -> Tensor:
    """Divisor that leaves an empty sum at zero."""
    return torch.where(total > 0, total, 1)
