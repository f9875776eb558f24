"""Networks that a file may ask for, by name."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import ConfigError
from .encoders import EncoderUNet
from .unet import UNet
from .unetpp import UNetPlusPlus

ARCHITECTURES: dict[str, type[nn.Module]] = {"unet": UNet, "unet++": UNetPlusPlus, "encoder-unet": EncoderUNet}
"""Networks that a model file may ask for, by name.

Each takes `in_channels`, `classes` and more as keywords, keeps them all in `arguments` as plain values for JSON, and has
a `stride`: the number of pixels that its input's sides are multiples of when it is traced. `nn.ensemble` adds the one
that is made of others.
"""


def architecture_of(network: nn.Module) -> str | None:
    """Name under which a network can be made again; None if it cannot."""
    return next((name for name, made in ARCHITECTURES.items() if type(network) is made), None)


def arguments_of(network: nn.Module) -> dict[str, Any]:
    """Keywords that a network was made with."""
    return dict(getattr(network, "arguments", {}))


def network_of(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Network by its name and the keywords that it is made with.

    Raises
    ------
    ConfigError
        There is none of that name, or it refuses the keywords.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"there is no architecture {architecture!r}; there is {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[architecture](**arguments)
