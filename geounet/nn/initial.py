"""What a network starts from: weights drawn by a rule, and how common the classes are."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .blocks import Residual

Scheme = Literal["he", "xavier", "orthogonal", "gaussian"]

RAREST = 1e-6
"""Share that `set_prior` takes for a class that was never seen."""


def initialise(network: nn.Module, scheme: Scheme = "he") -> None:
    """Draw all weights anew, from torch's own generator; biases become 0, normalisations as new.

    Parameters
    ----------
    network : Module
        Of convolutions and ReLU; changed in place. Its `head`, or `heads`, are followed by no ReLU.
    scheme : {'he', 'xavier', 'orthogonal', 'gaussian'}
        With N the values that come into a neuron and M those that go out of it (for the 2 × 2 transposed convolution
        of stride 2, where one tap meets each pixel, its channels), a weight's standard deviation is

        * ``he`` [1]_: √(2/N) before a ReLU, √(1/N) where none follows (transposed convolutions, heads). The mean
          square of what passes a layer stays as it is; two convolutions that a residual block adds have half the
          variance each, so that it does there as well.
        * ``xavier`` [2]_: √(2/(N + M)), made for tanh: each ReLU halves the mean square.
        * ``orthogonal`` [3]_: √2 (no ReLU: 1) times a random matrix of orthonormal rows, or columns if there are fewer;
          variances as with ``he`` unless N < M, and no direction is stretched more than another.
        * ``gaussian`` [4]_: √(2/N) in every layer, as in the paper of the U-Net; mean squares double with each
          transposed convolution.

    Raises
    ------
    ConfigError
        The scheme is unknown.

    References
    ----------
    .. [1] K. He et al., Delving deep into rectifiers, ICCV 2015, arXiv:1502.01852.
    .. [2] X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.
    .. [3] A. Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear neural networks, ICLR
       2014, arXiv:1312.6120.
    .. [4] O. Ronneberger et al., U-Net, MICCAI 2015, arXiv:1505.04597, section 3.
    """
    if scheme not in get_args(Scheme):
        raise ConfigError(f"weights are drawn as {', '.join(get_args(Scheme))}, not {scheme!r}.")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # Nothing follows a transposed convolution but another convolution.
            _draw(module, scheme, rectified=isinstance(module, nn.Conv2d))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            module.reset_parameters()
    for head in _heads(network):
        _draw(head, scheme, rectified=False)
    if scheme in ("he", "orthogonal"):
        _share_sums(network)


def set_prior(network: nn.Module, frequencies: Sequence[float]) -> None:
    """Let a new network start from how common the classes are, so that the first epochs need not learn it [1]_.

    Parameters
    ----------
    network : Module
        With a `head` of one bias a class, such as `UNet`, or one in all where `sigmoid` tells two classes apart;
        changed in place, as are all its `heads` where it has several.
    frequencies : sequence of float
        Pixels or shares of each class, (K,), any positive scale; unseen classes (0) count as one in a million.

    Raises
    ------
    ConfigError
        There are not as many frequencies as classes, or they are negative, not finite, or all zero.

    References
    ----------
    .. [1] T.-Y. Lin et al., Focal loss for dense object detection, ICCV 2017, arXiv:1708.02002, section 4.1.
    """
    biases = [head.bias for head in _heads(network) if head.bias is not None]
    if not biases:
        raise ConfigError(f"{type(network).__name__} has no head with a bias, so class frequencies cannot be set.")
    binary = bool(getattr(network, "sigmoid", False))
    classes = 2 if binary else len(biases[0])
    shares = torch.as_tensor(frequencies, dtype=torch.float64)
    total = shares.sum()
    if shares.shape != (classes,) or not bool(torch.isfinite(total)) or bool((shares < 0).any()) or not total > 0:
        raise ConfigError(f"{classes} class frequencies, none negative, were expected; found {list(frequencies)}.")
    logits = (shares / total).clamp_min(RAREST).log()
    with torch.no_grad():
        for bias in biases:
            bias.copy_(logits[1:] - logits[:1] if binary else logits)


def _heads(network: nn.Module) -> list[nn.Conv2d]:
    heads = getattr(network, "heads", [getattr(network, "head", None)])
    return [head for head in heads if isinstance(head, nn.Conv2d)]


def _draw(module: nn.Conv2d | nn.ConvTranspose2d, scheme: Scheme, *, rectified: bool) -> None:
    weight = module.weight
    gain = math.sqrt(2) if rectified else 1.0
    match scheme:
        case "he":
            nn.init.normal_(weight, std=gain / math.sqrt(_incoming(module)))
        case "gaussian":
            nn.init.normal_(weight, std=math.sqrt(2 / _incoming(module)))
        case "xavier":
            nn.init.normal_(weight, std=math.sqrt(2 / (_incoming(module) + _outgoing(module))))
        case "orthogonal":
            _draw_orthogonal(weight, gain, transposed=isinstance(module, nn.ConvTranspose2d))


def _draw_orthogonal(weight: Tensor, gain: float, *, transposed: bool) -> None:
    if not transposed:
        nn.init.orthogonal_(weight, gain)
        return
    for row in range(weight.shape[2]):  # each tap is the matrix that one pixel of the doubled image is made with
        for col in range(weight.shape[3]):
            tap = torch.empty(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
            with torch.no_grad():
                weight[:, :, row, col] = nn.init.orthogonal_(tap, gain).T


def _incoming(module: nn.Conv2d | nn.ConvTranspose2d) -> int:
    return module.in_channels // module.groups * _taps(module)


def _outgoing(module: nn.Conv2d | nn.ConvTranspose2d) -> int:
    return module.out_channels // module.groups * (math.prod(module.kernel_size) // math.prod(module.stride))


def _taps(module: nn.Conv2d | nn.ConvTranspose2d) -> int:
    """Pixels that come into one: of a transposed convolution, those whose kernels overlap there."""
    taps = math.prod(module.kernel_size)
    return taps // math.prod(module.stride) if isinstance(module, nn.ConvTranspose2d) else taps


def _share_sums(network: nn.Module) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Residual):
                for convolution in module.summands:
                    convolution.weight.mul_(math.sqrt(0.5))
