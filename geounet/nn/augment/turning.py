"""Samples seen from the eight sides of a square, to the pixel."""

import torch
from torch import Generator, Tensor


class FlipsAndTurns:
    """Each sample seen from one of the square's eight sides, drawn uniformly; labels turn along.

    Chips that are not square take the four sides that keep their shape.
    """

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Turned image (N, C, H, W) and labels (N, H, W)."""
        square = image.shape[-2] == image.shape[-1]
        sides = torch.randint(8 if square else 4, (len(image),), generator=generator, device=generator.device).tolist()
        turned_image, turned_labels = torch.empty_like(image), torch.empty_like(labels)
        for sample, side in enumerate(sides):
            turned_image[sample] = _seen_from(image[sample], side)
            turned_labels[sample] = _seen_from(labels[sample], side)
        return turned_image, turned_labels


def _seen_from(pixels: Tensor, side: int) -> Tensor:
    """Pixels (..., H, W) from one of eight sides: bits flip rows, flip columns, and swap rows with columns."""
    flips = [axis for bit, axis in ((1, -2), (2, -1)) if side & bit]
    pixels = pixels.flip(flips) if flips else pixels
    return pixels.transpose(-2, -1) if side & 4 else pixels
