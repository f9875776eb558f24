"""Band values as another light, another calibration or another sensor would give them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from ...core.bandtypes import BandType
from ...errors import ConfigError


class Radiometric:
    """Light, calibration and noise as they vary from scene to scene.

    Acts on raw band values, before they are standardised: ``image · gain · band_gain + offset + band_offset + noise``. Gains are
    log-normal, the rest normal; all are drawn anew for each sample. NaN stays NaN, and labels stay as they are; so do
    bands of codes, flags and angles, which no light changes.

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
    types : sequence of BandType, optional
        What each band holds; by default all are continuous.

    Raises
    ------
    ConfigError
        A deviation is negative or not finite, or there are not as many types as bands.
    """

    def __init__(
        self,
        std: Sequence[float],
        *,
        types: Sequence[BandType] | None = None,
        gain: float = 0.0,
        band_gain: float = 0.0,
        offset: float = 0.0,
        band_offset: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        strengths = {"gain": gain, "band_gain": band_gain, "offset": offset, "band_offset": band_offset, "noise": noise}
        _refuse_strange_strengths(strengths)
        if types is not None and len(types) != len(std):
            raise ConfigError(f"{len(std)} bands have deviations, but {len(types)} have types.")
        lit = [not kind.typed for kind in types] if types is not None else [True] * len(std)
        self._lit = torch.tensor(lit).view(1, -1, 1, 1)
        self._quantities = sum(lit)
        self.std = torch.as_tensor(std, dtype=torch.float32).nan_to_num().view(1, -1, 1, 1) * self._lit
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

        if not self._quantities:
            return image, labels
        std, lit = self.std.to(image), self._lit.to(image.device)
        factor = torch.exp(self.gain * normal(samples, 1, 1, 1) + self.band_gain * normal(samples, bands, 1, 1))
        shift = self.offset * (std.sum() / self._quantities) * normal(
            samples, 1, 1, 1
        ) + self.band_offset * std * normal(samples, bands, 1, 1)
        changed = image * factor + shift
        if self.noise:
            changed = changed + self.noise * std * normal(*image.shape)
        return (changed if self._quantities == bands else torch.where(lit, changed, image)), labels


class Tone:
    """Tone curve, contrast and brightness of each band, drawn anew for each sample and band.

    Acts on raw band values. In this order: the band's range is brought to 0 … 1, raised to a power and brought back
    (below the range, the curve goes on as its mirror image, so negative values are safe); distances from the band's
    mean are multiplied by a factor; a shift is added. Power and factor are log-normal, the shift is normal. NaN stays
    NaN, and labels stay as they are; so do bands of codes, flags and angles, and bands that do not vary.

    Parameters
    ----------
    mean, std : sequence of float
        Of each band, (C,), in its units; NaN (a band never seen) leaves the band as it is.
    low, high : sequence of float, optional
        Ends of each band's range, (C,), in its units, such as the 1st and 99th percentile; needed for `gamma`.
    brightness : float
        Deviation of the shift, as a share of the band's `std`.
    contrast : float
        Deviation of the logarithm of the factor: 0.1 is some 10 %.
    gamma : float
        Deviation of the logarithm of the power.
    types : sequence of BandType, optional
        What each band holds; by default all are continuous.

    Raises
    ------
    ConfigError
        A deviation is negative or not finite, there is gamma but no range, or the sequences are not of one length.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
        brightness: float = 0.0,
        contrast: float = 0.0,
        gamma: float = 0.0,
        types: Sequence[BandType] | None = None,
    ) -> None:
        _refuse_strange_strengths({"brightness": brightness, "contrast": contrast, "gamma": gamma})
        if gamma and (low is None or high is None):
            raise ConfigError("gamma acts within the range of each band: give low and high, or leave gamma at 0.")
        low, high = low if low is not None else mean, high if high is not None else mean
        told = {"mean": mean, "std": std, "low": low, "high": high, "types": types if types is not None else mean}
        if len({len(values) for values in told.values()}) > 1:
            counts = ", ".join(f"{len(values)} of {name}" for name, values in told.items())
            raise ConfigError(f"each band has one value of each, but there are {counts}.")
        self._bands = len(mean)
        self.mean, self.std, self.low, self.high = (
            torch.as_tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in (mean, std, low, high)
        )
        typed = torch.tensor([kind.typed for kind in types] if types is not None else [False] * len(mean))
        self._lit = ~typed.view(1, -1, 1, 1) & self.mean.isfinite() & (self.std > 0) & self.std.isfinite()
        self._ranged = self._lit & (self.high > self.low) & (self.high - self.low).isfinite()
        self.brightness = brightness
        self.contrast = contrast
        self.gamma = gamma

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Image (N, C, H, W) in another tone, and the labels as they were; refused if it has other bands."""
        if image.shape[1] != self._bands:
            raise ConfigError(f"the image has {image.shape[1]} bands, but tones were set for {self._bands}.")
        shape = (3, len(image), self._bands, 1, 1)
        power, factor, shift = torch.randn(shape, generator=generator, device=generator.device).to(image)
        mean, std, lit = self.mean.to(image), self.std.to(image), self._lit.to(image.device)
        changed = image
        if self.gamma:
            changed = self._curved(changed, torch.exp(self.gamma * power))
        if self.contrast:
            changed = torch.where(lit, torch.exp(self.contrast * factor) * (changed - mean) + mean, changed)
        if self.brightness:
            changed = torch.where(lit, changed + self.brightness * shift * std, changed)
        return changed, labels

    def _curved(self, image: Tensor, power: Tensor) -> Tensor:
        """Image with each band's range bent by a power (N, C, 1, 1); its ends stay where they are."""
        low, span = self.low.to(image), (self.high - self.low).to(image)
        part = (image - low) / span
        return torch.where(self._ranged.to(image.device), low + span * part.sign() * part.abs() ** power, image)


def _refuse_strange_strengths(strengths: Mapping[str, float]) -> None:
    for name, value in strengths.items():
        if not 0 <= value < float("inf"):
            raise ConfigError(f"{name} is a deviation from 0, not {value}.")
