"""Samples seen from the eight sides of a square, to the pixel."""

import torch
from torch import Generator, Tensor

from ..sides import seen_from


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
            turned_image[sample] = seen_from(image[sample], side)
            turned_labels[sample] = seen_from(labels[sample], side)
        return turned_image, turned_labels
