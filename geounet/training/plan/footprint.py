"""What memory a training step takes, found without computing it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FLOAT = 4
"""Bytes of a number."""
STATES = 4
"""Numbers kept for a weight: itself, its gradient and two moments of AdamW."""
LOSS_MAPS = 6
"""Maps of the size of the logits that a loss holds at once: logarithms, probabilities, their gradients."""
SLACK = 1.25
"""What is alive beside the activations that wait for the way back: measured, see `StepMemory`."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a step of training takes in float32.

    For five networks (plain, deep, nested, on a ResNet, with group normalisation) and batches that take some 0.4 GB,
    the peak that was measured on a CPU is between 0.6 and 1.1 times `of`.
    """

    fixed: int
    """Whatever the batch: weights, gradients and moments."""
    sample: int
    """More for each sample."""

    def of(self, batch_size: int) -> int:
        """Bytes of a batch."""
        return self.fixed + self.sample * batch_size

    def fits(self, memory: float) -> int:
        """Samples a batch that so many bytes hold; 0 if not even one."""
        return max(0, int((memory - self.fixed) // self.sample))


def step_memory(network: nn.Module, channels: int, classes: int, side: int) -> StepMemory:
    """Bytes of a training step, from what autograd would keep of a pass of square images.

    Parameters
    ----------
    network : Module
        On torch's ``meta`` device, where tensors have shapes and no values.
    channels, classes : int
        Of its input and of its logits.
    side : int
        Of the images, pixels.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor  # held, so that no other storage takes its place
        return tensor

    images = 2  # batch normalisation wants more than one value a channel
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        supervised = getattr(network.train(), "supervised", lambda image: [network(image)])
        answers = len(supervised(torch.empty(images, channels, side, side, device="meta")))
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // images
    loss = LOSS_MAPS * answers * classes * side**2 * FLOAT
    weights = sum(parameter.numel() for parameter in network.parameters())
    return StepMemory(STATES * FLOAT * weights, int(SLACK * (activations + loss)))
