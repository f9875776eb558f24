"""What a network sees of the bands: standardised values, codes and flags as channels of 0 and 1, and differences.

Two steps, apart because only the first needs every bit of the raw values: `encode` makes channels of the bands, and
`Features` brings those of quantities to one scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from math import pi

import torch
from torch import Tensor

from ..core.bandtypes import ABSENT, BandType

GAIN = 3.0
"""Normalised differences spread by some 0.3 over land; this brings them to the spread of standardised bands."""


def encode(image: Tensor, types: Sequence[BandType]) -> Tensor:
    """Channels (N, E, H, W), float32, of raw values (N, C, H, W): quantities as they are, the rest by its kind.

    Computed in float32, which is exact for codes and flags below 2^24; in a shorter type, 9999 and 10000 are one.

    Parameters
    ----------
    image : Tensor (N, C, H, W)
        Raw values; where a band of codes, flags or angles has no data, `ABSENT`, which becomes zeros.
    types : sequence of BandType
        Of each band, C of them; E is the sum of their `channels`.
    """
    image = image.float()
    if not any(kind.typed for kind in types):
        return image
    parts = []
    for typed, run in groupby(range(len(types)), key=lambda band: types[band].typed):
        bands = list(run)
        if typed:
            parts += [_ENCODINGS[types[band].kind](image[:, band : band + 1], types[band]) for band in bands]
        else:
            parts.append(image[:, bands[0] : bands[-1] + 1])
    return torch.cat(parts, dim=1)


def _one_hot(band: Tensor, kind: BandType) -> Tensor:
    return torch.cat([band == code for code in kind.codes], dim=1).float()


def _flags(band: Tensor, kind: BandType) -> Tensor:
    """Bits by arithmetic that is exact in float32: dividing by a power of two moves the point, and floor cuts there."""
    return torch.cat([(band * 2.0**-bit).floor() - 2 * (band * 2.0 ** -(bit + 1)).floor() for bit in kind.bits], dim=1)


def _phase(band: Tensor, kind: BandType) -> Tensor:
    assert kind.period is not None
    there = (band != ABSENT).float()
    turns = band * there / kind.period
    angle = (turns - turns.floor()) * (2 * pi)  # small, so that the sine of the day 20 000 is as good as that of day 1
    return torch.cat([angle.sin() * there, angle.cos() * there], dim=1)


_ENCODINGS = {"categorical": _one_hot, "bitmask": _flags, "cyclic": _phase}


@dataclass(frozen=True)
class Features:
    """Channels made from encoded bands before a network's first layer.

    The normalised difference of two bands, ``(a - b) / (a + b)``, is the form of NDVI [1]_, NDWI [2]_ and MNDWI [3]_:
    a factor common to both bands, as sun, slope and haze bring it, cancels out. A network that is given those of
    all pairs need not learn to divide, and carries further to ground it has not seen.

    References
    ----------
    .. [1] C. J. Tucker, Red and photographic infrared linear combinations for monitoring vegetation, Remote
       Sensing of Environment 8(2), 1979.
    .. [2] S. K. McFeeters, The use of the normalized difference water index (NDWI) in the delineation of open
       water features, International Journal of Remote Sensing 17(7), 1996.
    .. [3] H. Xu, Modification of normalised difference water index (NDWI) to enhance open water features in remotely
       sensed imagery, International Journal of Remote Sensing 27(14), 2006.
    """

    differences: bool = False
    """Add the normalised difference of every pair of continuous bands to the standardised bands."""
    floor: float = 0.0
    """Added to the sum of two bands, in their unit: below it a difference fades out, as noise would rule it."""

    def channels(self, bands: int | Sequence[BandType]) -> int:
        """Channels that a network gets of bands of these types, or of so many continuous ones."""
        types = [BandType()] * bands if isinstance(bands, int) else bands
        quantities = sum(not kind.typed for kind in types)
        pairs = quantities * (quantities - 1) // 2 if self.differences else 0
        return sum(kind.channels for kind in types) + pairs

    def __call__(self, image: Tensor, mean: Tensor, std: Tensor, quantities: Sequence[int] | None = None) -> Tensor:
        """Channels (N, F, H, W), float32, of encoded ones (N, E, H, W); finite where the image is.

        Parameters
        ----------
        image : Tensor (N, E, H, W)
            As `encode` makes it, continuous bands in their units; for differences, values below 0 count as 0.
        mean, std : Tensor (E,)
            Of each channel.
        quantities : sequence of int, optional
            Channels that differences are taken of; by default all.
        """
        image = image.float()
        standard = (image - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        if not self.differences:
            return standard
        pairs = list(combinations(range(image.shape[1]) if quantities is None else quantities, 2))
        if not pairs:
            return standard
        light = image.clamp_min(0)
        one, two = light[:, [i for i, _ in pairs]], light[:, [j for _, j in pairs]]
        return torch.cat([standard, GAIN * (one - two) / (one + two + self.floor)], dim=1)
