"""Where objects nearly touch: the weight map of the first U-Net, from class ids, on the device of the labels."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from ...core.legend import IGNORE

FAR = 2**30
"""Squared distance of what is out of reach, pixels²; leaves room to add to it in int32."""
NEIGHBOURS = ((-1, 1), (-1, 2), (1, 1), (1, 2))
"""Step and axis of (N, H, W) to the pixels beyond each side."""


def border_weights(
    labels: Tensor, *, w0: float = 10.0, sigma: float = 5.0, background: int | None = 0, ignore_index: int = IGNORE
) -> Tensor:
    """Extra weight of the pixels between two objects, ``w0 · exp(-(d1 + d2)² / (2 sigma²))``, equation 2 of [1]_.

    d1 and d2 are the distances, between pixel centres, to the borders of the nearest and of the second nearest object
    of the same sample. An object is what holds together side by side in one class other than the background, so that
    objects of two classes that touch are two, and those that touch at a corner alone are two as well. Its border is
    its pixels beside a labelled pixel that is not its own: the edge of the sample and ignored pixels hide what lies
    beyond, and are no border.

    Parameters
    ----------
    labels : Tensor (N, H, W), int64
        Class ids, or `ignore_index`.
    w0 : float
        Weight on a border that two objects share.
    sigma : float
        Pixels. Distances are looked for up to 6 sigma, beyond which nothing is left of the weight in float32.
    background : int, optional
        Class id that makes up no objects; None if all classes do.
    ignore_index : int
        Label of pixels that belong to nothing; their weight is 0.

    Returns
    -------
    Tensor (N, H, W), float32
        From 0 to `w0`; 0 in a sample of fewer than two objects.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI
       2015, arXiv:1505.04597.
    """
    valid = labels != ignore_index
    inside = valid if background is None else valid & (labels != background)
    first, second = _two_nearest(_borders(_objects(labels, inside), valid), math.ceil(6 * sigma))
    distance = first.to(torch.float32).sqrt() + second.to(torch.float32).sqrt()
    return w0 * torch.exp(-(distance**2) / (2 * sigma**2)) * valid


def _objects(labels: Tensor, inside: Tensor) -> Tensor:
    """Number of the object of each pixel, (N, H, W), int64: the place of its first pixel in the batch; -1 outside.

    All pixels of a piece point at its first pixel. In each round that one comes to point at the first pixel of a piece
    beside it, so that it takes about the logarithm of the longest way through an object, not the way itself.
    """
    joined = [inside & _shifted(inside, *at, False) & (labels == _shifted(labels, *at, -1)) for at in NEIGHBOURS]
    first = torch.arange(labels.numel(), device=labels.device).view_as(labels)
    while True:
        lowest = first
        for at, same in zip(NEIGHBOURS, joined, strict=True):
            lowest = torch.where(same, torch.minimum(lowest, _shifted(first, *at, 0)), lowest)
        if torch.equal(lowest, first):
            return torch.where(inside, first, -1)
        pointers = first.flatten().scatter_reduce(0, first.flatten(), lowest.flatten(), "amin")
        while not torch.equal(ahead := pointers[pointers], pointers):
            pointers = ahead
        first = pointers.view_as(first)


def _borders(objects: Tensor, valid: Tensor) -> Tensor:
    """Numbers (N, H, W) of objects on their borders, beside a labelled pixel that is not theirs; -1 elsewhere."""
    border = torch.zeros_like(valid)
    for at in NEIGHBOURS:
        border |= _shifted(valid, *at, False) & (_shifted(objects, *at, -1) != objects)
    return torch.where(border, objects, -1)


def _two_nearest(marks: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest mark and to the nearest of another number, up to `reach` along each axis.

    Marks (N, H, W) are numbers, or -1 for none. Columns first, then rows: of each column only its two nearest can be
    among the two nearest of all.
    """
    number = marks.to(torch.int32)
    first = torch.where(number >= 0, 0, torch.full_like(number, FAR))
    second = torch.full_like(first, FAR)
    for axis in (1, 2):
        first, number, second = _two_along(first, number, second, axis, min(reach, marks.shape[axis] - 1))
    return first, second


def _two_along(first: Tensor, number: Tensor, second: Tensor, axis: int, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances to the two nearest along an axis, of what each pixel knew alone; the number of the first.

    The number of a second is never asked for: where it is that of the nearest of all, the first beside it is nearer
    than it and of another number.
    """
    nearest, one, following = torch.full_like(first, FAR), torch.full_like(number, -1), torch.full_like(first, FAR)
    for step in range(-reach, reach + 1):
        distance, who = _shifted(first, step, axis, FAR) + step**2, _shifted(number, step, axis, -1)
        farther = torch.where(who != one, torch.maximum(nearest, distance), FAR)
        following = torch.minimum(following, torch.minimum(farther, _shifted(second, step, axis, FAR) + step**2))
        one = torch.where(distance < nearest, who, one)
        nearest = torch.minimum(nearest, distance)
    return nearest, one, following


def _shifted(values: Tensor, step: int, axis: int, beyond: float) -> Tensor:
    """What stands `step` pixels further along an axis of (N, H, W), and `beyond` outside."""
    padding = [0, 0] * (2 - axis) + [max(-step, 0), max(step, 0)]
    return functional.pad(values, padding, value=beyond).narrow(axis, max(step, 0), values.shape[axis])
