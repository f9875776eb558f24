"""Several networks as one: the mean of what they hold for likely."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .architectures import ARCHITECTURES, arguments_of, network_of
from .features import Features

NAME = "ensemble"
"""Under which an `Ensemble` is known to files."""


class Ensemble(nn.Module):
    """Networks of which the class probabilities are averaged, pixel by pixel [1]_.

    Each member reads the bands as it did in its own training, by its own means and deviations; so an ensemble takes
    encoded bands (`nn.features.encode`) in their units, where other networks take them standardised.

    Parameters
    ----------
    in_channels, classes : int
        Encoded channels E that come in, classes K that go out.
    members : sequence of mapping
        Keywords of each `Member`, two at least.

    Attributes
    ----------
    arguments : dict
        What the ensemble was made with, as plain values for JSON; ``Ensemble(**arguments)`` has the same layers.
    stride : int
        Least common multiple of those of the members, in pixels.
    margin, receptive_field : int or None
        Pixels, as of a `UNet`: the largest of the members', as what a U-Net sees lies within what a deeper one sees;
        None if a member does not know it.
    border : int
        Pixels by which unpadded convolutions of the members make the image smaller on each side, the largest; each
        mirrors the image by its own.

    Raises
    ------
    ConfigError
        There are fewer than two members, or one does not fit in.

    Notes
    -----
    The scores are the logarithm of the mean of the members' softmax, in float32, so that softmax of the scores *is* the
    mean, whoever takes it. Computing, and memory for weights, are those of all members together.

    References
    ----------
    .. [1] B. Lakshminarayanan, A. Pritzel, C. Blundell, Simple and scalable predictive uncertainty estimation using deep
       ensembles, NeurIPS 2017, arXiv:1612.01474.
    """

    standardises = True
    """Takes bands in their units: a `Segmenter` leaves their scale to it."""

    def __init__(self, in_channels: int, classes: int, *, members: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        if isinstance(members, Mapping | str) or len(members) < 2:
            raise ConfigError("an ensemble has a list of two members or more.")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels, "classes": classes, "members": [dict(member) for member in members],
        }  # fmt: skip
        made = [Member(**member) for member in members]
        for number, member in enumerate(made, start=1):
            member.check(in_channels, classes, f"member {number} of the ensemble")
        self.members = nn.ModuleList(made)
        self.stride = math.lcm(*(member.stride for member in made))
        self.margin, self.receptive_field = _largest(made, "margin"), _largest(made, "receptive_field")
        self.border = max(getattr(member.network, "border", 0) for member in made)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores of every pixel.

        Parameters
        ----------
        image : Tensor (N, E, H, W), float32
            Encoded bands in their units, finite.

        Returns
        -------
        Tensor (N, K, H, W), float32
            Logarithm of the mean of the members' probabilities.
        """
        scores = torch.stack([member(image).float().log_softmax(dim=1) for member in self.members])
        return scores.logsumexp(dim=0) - math.log(len(self.members))


class Member(nn.Module):
    """A network, and how it reads the bands.

    Parameters
    ----------
    architecture : str
        One of `ARCHITECTURES`, but no ensemble.
    arguments : mapping
        What the network is made with.
    channels : sequence of int
        Places, among the ensemble's encoded channels, of those that the network knows, M of them: not all where other
        members have met more codes of a categorical band.
    center, spread : sequence of float
        Of each of them, as `Segmenter` has them.
    quantities : sequence of int
        Those of the M channels that are quantities.
    differences, floor
        As of `Features`.
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        architecture: str,
        arguments: Mapping[str, Any],
        *,
        channels: Sequence[int],
        center: Sequence[float],
        spread: Sequence[float],
        quantities: Sequence[int],
        differences: bool,
        floor: float,
    ) -> None:
        super().__init__()
        if architecture == NAME:
            raise ConfigError("a member of an ensemble is a single model; join those that the inner one is made of.")
        if not len(channels) == len(center) == len(spread):
            raise ConfigError(
                f"a member reads {len(channels)} channels, but has {len(center)} means and {len(spread)} deviations."
            )
        self.network = network_of(architecture, arguments)
        self.channels, self.quantities = list(channels), list(quantities)
        self.features = Features(differences, floor)
        self.stride = int(getattr(self.network, "stride", 1))
        for name, values in (("center", center), ("spread", spread)):
            # Not persistent: the arguments hold them. On the CPU even while the layers are on none, as in loading.
            constants = torch.tensor(list(values), dtype=torch.float32, device="cpu")
            if not bool(torch.isfinite(constants).all()) or (name == "spread" and not bool((constants > 0).all())):
                raise ConfigError(f"a member has the {name} {list(values)}: finite numbers are expected.")
            self.register_buffer(name, constants, persistent=False)

    def check(self, in_channels: int, classes: int, what: str) -> None:
        """Refuse a member that is not for these channels and classes.

        Raises
        ------
        ConfigError
            Beginning with `what`.
        """
        known = len(self.channels)
        beyond = [n for n in self.channels if n not in range(in_channels)]
        if beyond or any(n not in range(known) for n in self.quantities):
            raise ConfigError(f"{what} reads channels beyond the {in_channels} that there are.")
        pairs = len(self.quantities) * (len(self.quantities) - 1) // 2 if self.features.differences else 0
        made_for = arguments_of(self.network)
        for noun, count, key in (("channels", known + pairs, "in_channels"), ("classes", classes, "classes")):
            if made_for.get(key, count) != count:
                raise ConfigError(f"{what} was made for {made_for[key]} {noun}, but {count} are given.")

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, K, H, W) of encoded bands (N, E, H, W) in their units."""
        if self.channels != list(range(image.shape[1])):
            image = image[:, self.channels]
        logits: Tensor = self.network(self.features(image, self.center, self.spread, self.quantities))
        return logits


def _largest(members: Sequence[Member], name: str) -> int | None:
    known = [getattr(member.network, name, None) for member in members]
    return None if None in known else max(n for n in known if n is not None)


ARCHITECTURES[NAME] = Ensemble
