"""How far a U-Net looks, and how an image is extended so that every pixel of it gets a score."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

TAPER = 2
"""Pixels that the two 3 × 3 convolutions of a level take off each side, if the image is not padded."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What the scores of a U-Net are made from, in pixels; all of it follows from three arguments."""

    depth: int
    """Halvings of the image."""
    interpolated: bool
    """Doubled by interpolation, which looks at one doubled pixel to either side, rather than by transposed convolution."""
    valid: bool = False
    """Convolutions do not pad."""

    @property
    def stride(self) -> int:
        """Side of the deepest level's pixels."""
        return int(2**self.depth)

    @property
    def receptive_field(self) -> int:
        """Side of the square that a score is made from, the largest over the pixels of the deepest level's pixel."""
        sights = map(self.sight, range(self.stride))
        return max(last - first + 1 for first, last in sights)

    @property
    def margin(self) -> int:
        """Pixels that a score looks to one side at most."""
        return max(
            max(pixel - first, last - pixel) for pixel in range(self.stride) for first, last in [self.sight(pixel)]
        )

    @property
    def border(self) -> int:
        """Pixels by which unpadded convolutions make the image smaller on each side; 0 where they pad."""
        if not self.valid:
            return 0
        level = 2 * TAPER + self._reach  # going down, and up again without what interpolation has to guess
        return TAPER * self.stride + level * (self.stride - 1)

    @property
    def lost(self) -> list[int]:
        """Pixels that each level but the deepest loses on each side until it is laid beside; finest first."""
        borders = [Extent(below, self.interpolated, self.valid).border for below in range(self.depth)]
        return [2 * border + int(self.valid) * self._reach for border in reversed(borders)]

    @property
    def frame(self) -> int:
        """Pixels by which an image is extended on each side so that no score of it is lost.

        A little more than `border`, so that the image is halved between the same pixels as by convolutions that pad.
        """
        return self.border + (-TAPER - self.border) % self.stride if self.valid else 0

    def fits(self, side: int) -> bool:
        """Whether a side of an image that is not extended can be halved so often, and something is left."""
        taken = TAPER * 2 if self.valid else 0
        return side > 2 * self.border and (side + taken) % self.stride == 0

    def sight(self, pixel: int) -> tuple[int, int]:
        """First and last pixel of a row that the scores of a pixel are made from.

        Followed back through the deepest level, which sees farther than any shorter way.
        """
        first = last = pixel
        for _ in range(self.depth):  # from the head down: two convolutions, then doubling
            first, last = (first - TAPER - self._reach) // 2, (last + TAPER + self._reach) // 2
        first, last = first - TAPER, last + TAPER
        for _ in range(self.depth):  # and back up to the image: halving, then two convolutions
            first, last = 2 * first - TAPER, 2 * last + 1 + TAPER
        return first, last

    @property
    def _reach(self) -> int:
        return int(self.interpolated)


def pad_to(image: Tensor, stride: int) -> Tensor:
    """Image (N, C, H, W) whose last row and column are repeated until its sides are multiples of `stride`."""
    below, right = -image.shape[-2] % stride, -image.shape[-1] % stride
    return functional.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def mirror(image: Tensor, frame: int, stride: int) -> Tensor:
    """Image (N, C, H, W) mirrored at its outermost pixels: `frame` more on each side, after sides are multiples of `stride`.

    As `numpy.pad` with ``reflect``: mirrored again and again where the image is smaller than the frame, and a single
    pixel is repeated. Sizes may be symbols of a trace: nothing branches on them.
    """
    for axis in (-2, -1):
        image = image.index_select(axis, _mirrored(image.shape[axis], frame, stride, image.device))
    return image


def _mirrored(side: int, frame: int, stride: int, device: torch.device) -> Tensor:
    places = torch.arange(-frame, side + -side % stride + frame, device=device)
    period = torch.clamp(torch.as_tensor(2 * side - 2, device=device), min=1)  # there and back, ends met once
    places = places.remainder(period)
    return torch.minimum(places, period - places)


def crop(image: Tensor, pixels: int) -> Tensor:
    """Image (N, C, H, W) without so many pixels on each side."""
    return image[..., pixels:-pixels, pixels:-pixels] if pixels else image
