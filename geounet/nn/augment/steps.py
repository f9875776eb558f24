"""What an augmentation is, and several of them one after the other."""

from collections.abc import Sequence
from typing import Protocol

from torch import Generator, Tensor


class Augment(Protocol):
    """A change to a batch under which the labels stay true."""

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Changed image (N, C, H, W) and labels (N, H, W); what was given stays as it is."""
        ...


class Compose:
    """Augmentations one after the other.

    Parameters
    ----------
    steps : sequence of Augment
        In the order they are applied; an empty sequence changes nothing.
    """

    def __init__(self, steps: Sequence[Augment]) -> None:
        self.steps = tuple(steps)

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Image (N, C, H, W) and labels (N, H, W) after all steps."""
        for step in self.steps:
            image, labels = step(image, labels, generator)
        return image, labels
