"""What a network sees of the bands: standardised values, and differences that no change of light alters."""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

GAIN = 3.0
"""Normalised differences spread by some 0.3 over land; this brings them to the spread of standardised bands."""


@dataclass(frozen=True)
class Features:
    """Channels made from raw bands before a network's first layer.

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
    """Add the normalised difference of every pair of bands to the standardised bands."""
    floor: float = 0.0
    """Added to the sum of two bands, in their unit: below it a difference fades out, as noise would rule it."""

    def channels(self, bands: int) -> int:
        """Channels that a network gets of so many bands."""
        return bands + (bands * (bands - 1) // 2 if self.differences else 0)

    def __call__(self, image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Channels (N, F, H, W), float32, of raw values (N, C, H, W); finite where the image is.

        Parameters
        ----------
        image : Tensor (N, C, H, W)
            In the units of the bands; for differences, values below 0 count as 0.
        mean, std : Tensor (C,)
            Of each band.
        """
        image = image.float()
        standard = (image - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        if not self.differences:
            return standard
        light = image.clamp_min(0)
        pairs = list(combinations(range(image.shape[1]), 2))
        one, two = light[:, [i for i, _ in pairs]], light[:, [j for _, j in pairs]]
        return torch.cat([standard, GAIN * (one - two) / (one + two + self.floor)], dim=1)
