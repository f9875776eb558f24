"""Batches turned, flipped and lit otherwise, on the device they are on.

An augmentation is any callable that takes and returns an image (N, C, H, W), raw band values with NaN where there is no
data, with its labels (N, H, W), and draws all chance from the generator handed in: equal seeds, equal batches.
`Compose` chains them.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from ..errors import ConfigError


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


class FlipsAndTurns:
    """Each sample seen from one of the square's eight sides, drawn uniformly; labels turn along.

    Chips that are not square take the four sides that keep their shape.
    """

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Turned image (N, C, H, W) and labels (N, H, W)."""
        square = image.shape[-2] == image.shape[-1]
        sides = torch.randint(8 if square else 4, (len(image),), generator=generator, device=generator.device).tolist()
        turned_image, turned_labels = torch.empty_like(image), torch.empty_like(labels)
        for sample, side in enumerate(sides):
            turned_image[sample] = _seen_from(image[sample], side)
            turned_labels[sample] = _seen_from(labels[sample], side)
        return turned_image, turned_labels


class Radiometric:
    """Light, calibration and noise as they vary from scene to scene.

    Acts on raw band values, before they are standardised: ``image · gain · band_gain + offset + band_offset + noise``. Gains are
    log-normal, the rest normal; all are drawn anew for each sample. NaN stays NaN, and labels stay as they are.

    Parameters
    ----------
    std : sequence of float
        Standard deviation of each band, (C,), in its units; NaN (a band never seen) counts as 0.
    gain : float
        Deviation of the logarithm of the factor common to all bands: 0.1 is some 10 %. For bands on a logarithmic
        scale (decibel) leave the gains at 0.
    band_gain : float
        The same for each band's own factor.
    offset : float
        Deviation of what is added to all bands alike, as haze is, as a share of their mean `std`.
    band_offset : float
        Deviation of what is added to each band, as a share of its `std`.
    noise : float
        Deviation of what is added to each pixel, as a share of the band's `std`.

    Raises
    ------
    ConfigError
        A deviation is negative or not finite.
    """

    def __init__(
        self,
        std: Sequence[float],
        *,
        gain: float = 0.0,
        band_gain: float = 0.0,
        offset: float = 0.0,
        band_offset: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        strengths = {"gain": gain, "band_gain": band_gain, "offset": offset, "band_offset": band_offset, "noise": noise}
        for name, value in strengths.items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is a deviation from 0, not {value}.")
        self.std = torch.as_tensor(std, dtype=torch.float32).nan_to_num().view(1, -1, 1, 1)
        self.gain = gain
        self.band_gain = band_gain
        self.offset = offset
        self.band_offset = band_offset
        self.noise = noise

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Image (N, C, H, W) in another light, and the labels as they were."""
        samples, bands = image.shape[:2]

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device).to(image)

        std = self.std.to(image)
        factor = torch.exp(self.gain * normal(samples, 1, 1, 1) + self.band_gain * normal(samples, bands, 1, 1))
        shift = self.offset * std.mean() * normal(samples, 1, 1, 1) + self.band_offset * std * normal(
            samples, bands, 1, 1
        )
        image = image * factor + shift
        if self.noise:
            image = image + self.noise * std * normal(*image.shape)
        return image, labels


class CutMix:
    """A rectangle of some samples replaced by the same rectangle of another, pixels and labels together [1]_.

    What lies around a pixel then says less about its class, so a network leans on the pixel's own light more and on the
    place less, and holds at hard edges such as those of a mosaic.

    Parameters
    ----------
    share : float
        Part of the samples that get a rectangle, 0 to 1. Its sides are drawn from 0 to those of the chip.

    Raises
    ------
    ConfigError
        The share is not within 0 and 1.

    References
    ----------
    .. [1] S. Yun et al., CutMix: regularization strategy to train strong classifiers with localizable features,
       ICCV 2019, arXiv:1905.04899; for segmentation G. French et al., BMVC 2020, arXiv:1906.01916.
    """

    def __init__(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"the share of samples to mix is from 0 to 1, not {share}.")
        self.share = share

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Mixed image (N, C, H, W) and labels (N, H, W)."""
        samples, (height, width) = len(image), image.shape[-2:]
        chance = torch.rand(samples, 5, generator=generator, device=generator.device)
        others = torch.randperm(samples, generator=generator, device=generator.device).tolist()
        mixed_image, mixed_labels = image.clone(), labels.clone()
        for sample, (drawn, *corners) in enumerate(chance.tolist()):
            if drawn < self.share:
                top, bottom = sorted(round(part * height) for part in corners[:2])
                left, right = sorted(round(part * width) for part in corners[2:])
                part = slice(top, bottom), slice(left, right)
                mixed_image[sample][:, *part] = image[others[sample]][:, *part]
                mixed_labels[sample][part] = labels[others[sample]][part]
        return mixed_image, mixed_labels


def _seen_from(pixels: Tensor, side: int) -> Tensor:
    """Pixels (..., H, W) from one of eight sides: bits flip rows, flip columns, and swap rows with columns."""
    flips = [axis for bit, axis in ((1, -2), (2, -1)) if side & bit]
    pixels = pixels.flip(flips) if flips else pixels
    return pixels.transpose(-2, -1) if side & 4 else pixels
