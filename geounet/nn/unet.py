"""U-Net: class scores of every pixel, from what is near it and what is around it."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError

Norm = Literal["batch", "group", "none"]
Upsample = Literal["transposed", "bilinear"]

DEEPEST = 8
"""Most halvings of the image; at 8 a chip is a multiple of 256 pixels."""
WIDEST = 2**14
"""Most channels of a layer; larger numbers are slips of the pen."""
GROUP = 16
"""Channels that share their statistics under group normalisation [2]_ (see `UNet`)."""
RAREST = 1e-6
"""Share that `set_prior` takes for a class that was never seen."""


class UNet(nn.Module):
    """U-Net [1]_ with convolutions that keep the image's size.

    A level is twice (3 × 3 convolution, normalisation, ReLU). Going down, the image is halved by 2 × 2 maxima and the
    channels doubled; going up, the image is doubled, the channels halved, and what the same level saw on the way down
    is laid beside. Weights are drawn as He et al. [3]_ say.

    Parameters
    ----------
    in_channels, classes : int
        Bands C that come in, classes K that go out.
    depth : int
        Halvings of the image, 1 to 8. The paper has 4.
    width : int
        Channels of the first level; the paper has 64. Level l has ``min(width * 2**l, max_width)``.
    norm : {'batch', 'group', 'none'}
        Group normalisation (16 channels a group, [2]_) does not need large batches, but its statistics are the
        chip's own, so a pixel's class then depends a little on where chips are cut.
    upsample : {'transposed', 'bilinear'}
        Learnt 2 × 2 transposed convolution as in the paper, or 1 × 1 convolution and bilinear interpolation.
    dropout : float
        Share of the deepest level's channels that are zeroed in training, 0 to below 1.
    max_width : int, optional
        Upper bound for the channels of any level.

    Attributes
    ----------
    arguments : dict
        What the network was made with, as plain values for JSON; ``UNet(**arguments)`` has the same layers.
    stride : int
        ``2**depth`` pixels, the side of the deepest level's pixels.
    receptive_field : int
        Pixels: side of the square around a pixel beyond which nothing can change its scores (largest over where
        the pixel lies in the deepest level's pixel).
    head : torch.nn.Conv2d
        Last layer, 1 × 1, whose bias `set_prior` sets.

    Raises
    ------
    ConfigError
        An argument is of the wrong type or out of range.

    Notes
    -----
    =====  ===============  =============  =============
    depth  receptive field  parameters     parameters
           (transposed)     for width 32   for width 64
    =====  ===============  =============  =============
    2      44               468 297        1 866 377
    3      100              1 928 137      7 702 409
    4      204              7 764 169      31 039 881
    5      412              31 101 641     124 376 457
    =====  ===============  =============  =============

    Parameters are for 6 bands, 9 classes, batch normalisation and transposed convolutions; each level more has four
    times as many, unless `max_width` bounds it.

    Images of any size, one pixel at least, are padded on the right and below to a multiple of `stride` and the logits
    cropped back. The padding repeats the last row and column: reflection would need more pixels than it adds, and
    zeros would be an edge that is not there. A traced network (`torch.jit.trace`) has no padding: give it multiples
    of `stride`.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation,
       MICCAI 2015, arXiv:1505.04597.
    .. [2] Y. Wu, K. He, Group normalization, ECCV 2018, arXiv:1803.08494.
    .. [3] K. He et al., Delving deep into rectifiers, ICCV 2015, arXiv:1502.01852.

    Examples
    --------
    >>> network = UNet(6, 9, depth=2, width=8)
    >>> network(torch.zeros(1, 6, 50, 70)).shape
    torch.Size([1, 9, 50, 70])
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        depth: int = 4,
        width: int = 64,
        norm: Norm = "batch",
        upsample: Upsample = "transposed",
        dropout: float = 0.0,
        max_width: int | None = None,
    ) -> None:
        super().__init__()
        most = WIDEST if max_width is None else _whole("max_width", max_width, 1, WIDEST)
        _whole("in_channels", in_channels, 1, WIDEST)
        _whole("classes", classes, 1, 2**16)
        _whole("depth", depth, 1, DEEPEST)
        _whole("width", width, 1, WIDEST)
        _one_of("norm", norm, get_args(Norm))
        _one_of("upsample", upsample, get_args(Upsample))
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ConfigError(f"dropout is a share from 0 to below 1, not {dropout!r}.")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels, "classes": classes, "depth": depth, "width": width, "norm": norm,
            "upsample": upsample, "dropout": float(dropout), "max_width": max_width,
        }  # fmt: skip
        self.stride = 2**depth
        self.receptive_field = _receptive_field(depth, upsample)

        widths = [min(width * 2**level, most) for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _level(before, after, norm) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.rise = nn.ModuleList(_rise(below, here, upsample) for here, below in pairwise(widths))
        self.up = nn.ModuleList(_level(2 * here, here, norm) for here in widths[:-1])
        self.head = nn.Conv2d(widths[0], classes, kernel_size=1)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores of every pixel.

        Parameters
        ----------
        image : Tensor (N, C, H, W), float
            Standardised bands, finite.

        Returns
        -------
        Tensor (N, K, H, W), float
            Logits: before softmax.
        """
        # Sizes are symbols in a trace, and a branch on them would be frozen into the graph.
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return self._logits(image)
        height, width = image.shape[-2:]
        return self._logits(pad_to(image, self.stride))[..., :height, :width]

    def _logits(self, image: Tensor) -> Tensor:
        seen = []
        for level in self.down[:-1]:
            image = level(image)
            seen.append(image)
            image = functional.max_pool2d(image, 2)
        image = self.dropout(self.down[-1](image))
        for rise, level, beside in zip(reversed(self.rise), reversed(self.up), reversed(seen), strict=True):
            image = level(torch.cat([beside, rise(image)], dim=1))
        return self.head(image)  # type: ignore[no-any-return]


def pad_to(image: Tensor, stride: int) -> Tensor:
    """Image (N, C, H, W) whose last row and column are repeated until its sides are multiples of `stride`."""
    below, right = -image.shape[-2] % stride, -image.shape[-1] % stride
    return functional.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def set_prior(network: nn.Module, frequencies: Sequence[float]) -> None:
    """Let a new network start from how common the classes are, so that the first epochs need not learn it [1]_.

    Parameters
    ----------
    network : Module
        With a `head` of one bias a class, such as `UNet`; changed in place.
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
    head = network.head
    bias = head.bias if isinstance(head, nn.Conv2d) else None
    if bias is None:
        raise ConfigError(f"{type(network).__name__} has no head with a bias, so class frequencies cannot be set.")
    shares = torch.as_tensor(frequencies, dtype=torch.float64)
    total = shares.sum()
    if shares.shape != bias.shape or not bool(torch.isfinite(total)) or bool((shares < 0).any()) or not total > 0:
        raise ConfigError(f"{len(bias)} class frequencies, none negative, were expected; found {list(frequencies)}.")
    with torch.no_grad():
        bias.copy_((shares / total).clamp_min(RAREST).log())


def _level(before: int, after: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(*_step(before, after, norm), *_step(after, after, norm))


def _step(before: int, after: int, norm: Norm) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=norm == "none")
    match norm:
        case "batch":
            return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        case "group":
            return [convolution, nn.GroupNorm(after // math.gcd(after, GROUP), after), nn.ReLU(inplace=True)]
        case "none":
            return [convolution, nn.ReLU(inplace=True)]


def _rise(below: int, here: int, upsample: Upsample) -> nn.Module:
    if upsample == "transposed":
        return nn.ConvTranspose2d(below, here, kernel_size=2, stride=2)
    # The two commute, and the convolution is four times cheaper on the smaller image.
    return nn.Sequential(
        nn.Conv2d(below, here, kernel_size=1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    )


def _initialise(network: UNet) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.ConvTranspose2d):  # each pixel is reached by one tap: its inputs are the channels
            nn.init.normal_(module.weight, std=math.sqrt(1 / module.in_channels))
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.kaiming_normal_(network.head.weight, nonlinearity="linear")  # no ReLU follows


def _receptive_field(depth: int, upsample: Upsample) -> int:
    """Largest side, over the pixels of the deepest level's pixel, of what a pixel can see."""
    reach = 0 if upsample == "transposed" else 1  # doubled pixels that interpolation looks to either side
    return max(_sight(pixel, depth, reach) for pixel in range(2**depth))


def _sight(pixel: int, depth: int, reach: int) -> int:
    """Side of what the logits of a pixel of a row are made from, followed back through the deepest level."""
    first = last = pixel
    for _ in range(depth):  # from the head down: two convolutions, then doubling
        first, last = (first - 2 - reach) // 2, (last + 2 + reach) // 2
    first, last = first - 2, last + 2
    for _ in range(depth):  # and back up to the image: halving, then two convolutions
        first, last = 2 * first - 2, 2 * last + 1 + 2
    return last - first + 1


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} is a whole number from {least} to {most}, not {value!r}.")
    return value


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is one of {', '.join(known)}, not {value!r}.")
