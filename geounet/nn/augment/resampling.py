"""Pixels fetched from where they were, image and labels together: one rule for every bend of a batch."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ...core.bandtypes import BandType
from ...core.legend import IGNORE

Outside: TypeAlias = Literal["nodata", "reflect"]
"""What lies beyond the edges of a chip: nothing, or the chip itself, mirrored at its outermost pixels."""


def resample(
    image: Tensor,
    labels: Tensor,
    places: Tensor,
    *,
    types: Sequence[BandType] | None = None,
    outside: Outside = "nodata",
    ignore_index: int = IGNORE,
) -> tuple[Tensor, Tensor]:
    """Image and labels as they are at the places, quantities bilinear, the rest nearest.

    A pixel has data where the nearest pixel of the source has, band by band. Quantities are then the mean of those of
    the four pixels around that have data, by their bilinear weights: no data spreads nowhere, and neither does it
    shrink. Labels, codes, flags and angles are those of the nearest pixel, since nothing lies between two of them.

    Parameters
    ----------
    image : Tensor (N, C, H, W), float
        NaN or inf where there is no data.
    labels : Tensor (N, H, W), int
    places : Tensor (N, 2, h, w), float32
        Row and column in the source that each pixel is fetched from, in pixels, whole at pixel centres.
    types : sequence of BandType, optional
        What each band holds; by default all are continuous.
    outside : {"nodata", "reflect"}
        What is found more than half a pixel beyond the outermost centres: NaN and `ignore_index`, or the mirror image.
    ignore_index : int
        Label of pixels from outside.

    Returns
    -------
    image : Tensor (N, C, h, w)
        Of the type given; at whole places it is the source's values bit by bit. NaN where there is no data.
    labels : Tensor (N, h, w)
        Of the type given.
    """
    size = (labels.shape[-2], labels.shape[-1])
    nearest = (places + 0.5).floor().long()
    index, inside = _found(nearest, size, outside)
    fetched_labels = torch.where(inside, _fetch(labels.unsqueeze(1), index).squeeze(1), ignore_index)
    fetched = _fetch(image, index)
    there = inside.unsqueeze(1) & fetched.isfinite()
    typed = torch.tensor([kind.typed for kind in types or [BandType()] * image.shape[1]], device=image.device)
    if not typed.all():
        fetched = torch.where(typed.view(1, -1, 1, 1), fetched, _bilinear(image, places, size, outside))
    return fetched.where(there, torch.nan), fetched_labels


def _bilinear(image: Tensor, places: Tensor, size: tuple[int, int], outside: Outside) -> Tensor:
    """Mean (N, C, h, w) of the four pixels around that have data, by bilinear weight; 0 where none has."""
    first = places.floor()
    beyond = places - first
    rows, cols = (1 - beyond[:, 0], beyond[:, 0]), (1 - beyond[:, 1], beyond[:, 1])
    total = weight = torch.zeros((), device=image.device)
    for down in (0, 1):
        for right in (0, 1):
            corner = first.long() + torch.tensor([down, right], device=image.device).view(1, 2, 1, 1)
            index, inside = _found(corner, size, outside)
            value = _fetch(image, index)
            there = value.isfinite()
            share = (rows[down] * cols[right] * inside).unsqueeze(1) * there
            total = total + value.where(there, 0) * share
            weight = weight + share
    return (total / weight.where(weight > 0, 1)).to(image.dtype)


def _found(places: Tensor, size: tuple[int, int], outside: Outside) -> tuple[Tensor, Tensor]:
    """Flat index (N, h, w) of pixels at whole places (N, 2, h, w), and whether there is anything at them."""
    within, inside = [], torch.ones((), dtype=torch.bool, device=places.device)
    for place, length in zip(places.unbind(dim=1), size, strict=True):
        if outside == "reflect":
            back = place.remainder(max(2 * length - 2, 1))  # there and back, the two ends once each
            within.append(torch.minimum(back, 2 * length - 2 - back))
        else:
            within.append(place.clamp(0, length - 1))
            inside = inside & (place >= 0) & (place < length)
    return within[0] * size[1] + within[1], inside.expand_as(within[0])


def _fetch(source: Tensor, index: Tensor) -> Tensor:
    """Values (N, C, h, w) of a source (N, C, H, W) at flat indices (N, h, w)."""
    samples, bands = source.shape[:2]
    flat = index.flatten(1).unsqueeze(1).expand(-1, bands, -1)
    return source.flatten(2).gather(2, flat).view(samples, bands, *index.shape[1:])
