"""The networks of timm that can be a U-Net's way down."""

import difflib
from itertools import pairwise
from typing import Any

import lazy_loader
import torch
from torch import nn

from ...errors import ConfigError

timm: Any = lazy_loader.load("timm")  # a second to import, and most models are plain U-Nets


def features(encoder_name: str, in_channels: int, depth: int, **options: Any) -> nn.Module:
    """The encoder alone, returning its maps from the finest to the one halved `depth` times.

    Raises
    ------
    ConfigError
        timm has no such network, or it is none that halves the image step by step and takes any size.
    """
    # Only what timm holds itself: a name with a prefix would be looked up on the web, also when a model file is read.
    if not isinstance(encoder_name, str) or not timm.is_model(encoder_name) or set(":/@") & set(encoder_name):
        near = difflib.get_close_matches(str(encoder_name), timm.list_models(), n=3)
        raise ConfigError(
            f"no encoder is called {encoder_name!r}"
            + (f"; near are {', '.join(near)}." if near else "; timm.list_models() names those that there are.")
        )
    refusal = f"{encoder_name} cannot be the encoder of a U-Net"
    try:
        with torch.device("meta"):
            reductions = list(maps_of(timm.create_model(encoder_name, features_only=True, pretrained=False)))
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{refusal}: {error}") from error
    usable = [place for place, reduction in enumerate(reductions) if reduction <= 2**depth]
    kept = [reductions[place] for place in usable]
    if not kept or kept[-1] != 2**depth or any(after != 2 * before for before, after in pairwise(kept)):
        raise ConfigError(
            f"{refusal} of depth {depth}: its maps are the image's sides divided by {', '.join(map(str, reductions))}, "
            f"and halvings up to {2**depth} are needed."
        )
    made: nn.Module = timm.create_model(
        encoder_name, features_only=True, in_chans=in_channels, out_indices=tuple(usable), **options
    )
    if getattr(made, "output_fmt", None) not in (None, "NCHW") or _fleeting(made):
        raise ConfigError(
            f"{refusal}: it is bound to one size of images or orders its channels last, as transformers do."
        )
    return made


def _fleeting(network: nn.Module) -> bool:
    """Tell whether a network holds tables that its state does not: they would be lost in a model file."""
    return any(name not in network.state_dict() for name, _ in network.named_buffers())


def maps_of(encoder: nn.Module) -> dict[int, int]:
    """Channels of the maps that an encoder gives, by how often the image's side was divided."""
    info: Any = encoder.feature_info
    return dict(zip(info.reduction(), info.channels(), strict=True))


def stem_of(network: nn.Module, channels: int) -> tuple[str, nn.Conv2d]:
    """Layer that reads the image, and its name.

    Raises
    ------
    ConfigError
        The first convolution reads something else.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels == channels and module.groups == 1:
                return name, module
            break
    raise ConfigError(
        f"the first layer of {type(network).__name__} is no plain convolution, so its bands cannot be changed."
    )
