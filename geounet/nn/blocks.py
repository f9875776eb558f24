"""What the networks of the U-Net family are built from: levels, and ways from a level to the finer one."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from .extent import TAPER, crop

Norm = Literal["batch", "group", "none"]
Upsample = Literal["transposed", "bilinear"]
Convolutions = Literal["same", "valid"]

DEEPEST = 8
"""Most halvings of the image; at 8 a chip is a multiple of 256 pixels."""
WIDEST = 2**14
"""Most channels of a layer; larger numbers are slips of the pen."""
GROUP = 16
"""Channels that share their statistics under group normalisation (see `UNet`)."""

_MOST = {"in_channels": WIDEST, "classes": 2**16, "depth": DEEPEST, "width": WIDEST, "max_width": WIDEST}
_KNOWN = {"norm": get_args(Norm), "upsample": get_args(Upsample), "convolutions": get_args(Convolutions)}
_SWITCHES = ("residual", "sigmoid", "deep_supervision")


class Residual(nn.Module):
    """A level that adds what it was given to what it made of it, before the last ReLU [1]_.

    Where the number of channels changes, what was given passes a 1 × 1 convolution; where convolutions do not pad, its
    rim is cut off.

    References
    ----------
    .. [1] K. He et al., Deep residual learning for image recognition, CVPR 2016, arXiv:1512.03385.
    """

    def __init__(self, before: int, after: int, norm: Norm, convolutions: Convolutions) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_step(before, after, norm, convolutions), *_step(after, after, norm, convolutions)[:-1]
        )
        self.shortcut = nn.Sequential(*_step(before, after, norm, convolutions, side=1)[:-1] if before != after else [])
        self.rim = TAPER if convolutions == "valid" else 0

    @property
    def summands(self) -> list[nn.Conv2d]:
        """Convolutions whose results are added."""
        last = [module for module in self.body if isinstance(module, nn.Conv2d)][-1]
        return [last, *(module for module in self.shortcut if isinstance(module, nn.Conv2d))]

    def forward(self, image: Tensor) -> Tensor:
        """Channels (N, after, h, w) of channels (N, before, H, W)."""
        return functional.relu(self.body(image) + self.shortcut(crop(image, self.rim)))


def make_level(
    before: int, after: int, norm: Norm, convolutions: Convolutions = "same", *, residual: bool = False
) -> nn.Module:
    """Twice (3 × 3 convolution, normalisation, ReLU), with what came in added before the last ReLU if `residual`."""
    if residual:
        return Residual(before, after, norm, convolutions)
    return nn.Sequential(*_step(before, after, norm, convolutions), *_step(after, after, norm, convolutions))


def make_rise(below: int, here: int, upsample: Upsample) -> nn.Module:
    """From the channels of the level below to those of this one, at twice the size."""
    if upsample == "transposed":
        return nn.ConvTranspose2d(below, here, kernel_size=2, stride=2)
    # The two commute, and the convolution is four times cheaper on the smaller image.
    return nn.Sequential(
        nn.Conv2d(below, here, kernel_size=1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    )


def channels_of(depth: int, width: int, max_width: int | None) -> list[int]:
    """Channels of each level, finest first; `depth` + 1 of them."""
    most = WIDEST if max_width is None else max_width
    return [min(width * 2**place, most) for place in range(depth + 1)]


def two_from_one(score: Tensor) -> Tensor:
    """Logits (N, 2, H, W) whose softmax is (1 - sigmoid, sigmoid) of a score (N, 1, H, W)."""
    return torch.cat([torch.zeros_like(score), score], dim=1)


def check(arguments: dict[str, Any]) -> None:
    """Refuse arguments, by name, that no network of the family can be made with; names not known here are let pass.

    Raises
    ------
    ConfigError
        One is of the wrong type or out of range.
    """
    given = arguments.keys()
    for name in (name for name in _MOST if name in given):
        if name != "max_width" or arguments[name] is not None:
            _whole(name, arguments[name], _MOST[name])
    for name in (name for name in _KNOWN if name in given):
        if arguments[name] not in _KNOWN[name]:
            raise ConfigError(f"{name} is one of {', '.join(_KNOWN[name])}, not {arguments[name]!r}.")
    for name in (name for name in _SWITCHES if name in given):
        if not isinstance(arguments[name], bool):
            raise ConfigError(f"{name} is true or false, not {arguments[name]!r}.")
    dropout = arguments.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError(f"dropout is a share from 0 to below 1, not {dropout!r}.")
    if arguments.get("sigmoid") and arguments["classes"] != 2:
        raise ConfigError(
            f"sigmoid tells two classes apart by one channel, but there are {arguments['classes']} classes; leave it out."
        )


def _step(before: int, after: int, norm: Norm, convolutions: Convolutions, side: int = 3) -> list[nn.Module]:
    padding = side // 2 if convolutions == "same" else 0
    convolution = nn.Conv2d(before, after, kernel_size=side, padding=padding, bias=norm == "none")
    match norm:
        case "batch":
            return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        case "group":
            return [convolution, nn.GroupNorm(after // math.gcd(after, GROUP), after), nn.ReLU(inplace=True)]
        case "none":
            return [convolution, nn.ReLU(inplace=True)]


def _whole(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{name} is a whole number from 1 to {most}, not {value!r}.")
