"""Samples scaled, turned, shifted, sheared and bent, with one resampling for all of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

import torch
from torch import Generator, Tensor

from ...core.bandtypes import BandType
from ...core.legend import IGNORE
from ...errors import ConfigError
from .resampling import Outside, resample

REACH = 3.0
"""Deviations after which a Gaussian counts as 0: it has fallen to 1 % there."""


class Motion(Protocol):
    """A way of moving the pixels of each sample, drawn anew for each."""

    def __call__(self, places: Tensor, size: tuple[int, int], generator: Generator) -> Tensor:
        """Where in the picture before the motion that is found which is at the places after it.

        Parameters
        ----------
        places : Tensor (N, 2, H, W), float32
            Rows and columns, in pixels, whole at pixel centres.
        size : (int, int)
            Height and width of the samples.
        generator : Generator
            All chance comes from here.
        """
        ...


@dataclass(frozen=True)
class Affine:
    """Scale, shear, turn and shift about the centre, in this order, each drawn uniformly for each sample.

    Raises
    ------
    ConfigError
        A strength is negative or not finite, shear is 90° or more, or translation is more than the whole side.
    """

    scale: float = 0.0
    """Largest growth: factors are from ``1 / (1 + scale)`` to ``1 + scale``, their logarithms drawn uniformly."""
    rotation: float = 0.0
    """Largest turn to either side, in degrees."""
    translation: float = 0.0
    """Largest shift either way along each axis, as a share of the side."""
    shear: float = 0.0
    """Largest slant of columns to either side, in degrees."""

    def __post_init__(self) -> None:
        for name in ("scale", "rotation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name} of an affine motion is a finite number from 0 up, not {getattr(self, name)}."
                )
        if not 0 <= self.translation <= 1:
            raise ConfigError(f"translation is a share of the chip's side, from 0 to 1, not {self.translation}.")
        if not 0 <= self.shear < 90:
            raise ConfigError(f"shear is in degrees, from 0 to less than 90, not {self.shear}.")

    def __call__(self, places: Tensor, size: tuple[int, int], generator: Generator) -> Tensor:
        """Places (N, 2, H, W) before the motion."""
        drawn = torch.rand(len(places), 5, generator=generator, device=generator.device)
        chance = 2 * drawn.cpu().double() - 1  # a quarter turn in float32 would not be one to the pixel
        height, width = size
        return moved(
            places,
            size,
            factor=torch.exp(chance[:, 0] * math.log1p(self.scale)),
            degrees=chance[:, 1] * self.rotation,
            shift=chance[:, 2:4] * self.translation * torch.tensor([height, width]),
            slant=torch.tan(torch.deg2rad(chance[:, 4] * self.shear)),
        )


def moved(
    places: Tensor, size: tuple[int, int], *, factor: Tensor, degrees: Tensor, shift: Tensor, slant: Tensor
) -> Tensor:
    """Places (N, 2, H, W) before samples were scaled, sheared, turned about their centre and shifted.

    Parameters
    ----------
    places : Tensor (N, 2, H, W), float32
        Rows and columns after it, in pixels.
    size : (int, int)
        Height and width of the samples.
    factor : Tensor (N,), float64
        Of lengths; 2 makes things twice as large.
    degrees : Tensor (N,), float64
        Of the turn, counter-clockwise as rows run down.
    shift : Tensor (N, 2), float64
        Rows down and columns to the right, in pixels.
    slant : Tensor (N,), float64
        Columns that a pixel goes right for each row that it lies below the centre.
    """
    angle = torch.deg2rad(degrees)
    down, right, cos, sin, slope, grown = (
        value.to(places).view(-1, 1, 1)
        for value in (shift[:, 0], shift[:, 1], torch.cos(angle), torch.sin(angle), slant, factor)
    )
    middle_row, middle_col = (size[0] - 1) / 2, (size[1] - 1) / 2
    row, col = places[:, 0] - middle_row - down, places[:, 1] - middle_col - right
    row, col = sin * col + cos * row, cos * col - sin * row
    col = col - slope * row
    return torch.stack([row / grown + middle_row, col / grown + middle_col], dim=1)


@dataclass(frozen=True)
class Elastic:
    """Rubber sheet: each sample bent by a smooth random displacement [1]_, as U-Net was trained with [2]_.

    Displacements along rows and columns are Gaussian fields: white noise smoothed by a Gaussian. Their deviation is
    `alpha` everywhere, whatever `sigma` is. Neighbouring pixels differ in displacement by some ``alpha / (1.4 sigma)``;
    with `alpha` above half of `sigma` the sheet begins to fold over itself.

    Raises
    ------
    ConfigError
        Alpha is negative or not finite, or sigma is less than a pixel.

    References
    ----------
    .. [1] P. Y. Simard, D. Steinkraus, J. C. Platt, Best practices for convolutional neural networks applied to visual
       document analysis, ICDAR 2003.
    .. [2] O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation,
       MICCAI 2015, arXiv:1505.04597.
    """

    alpha: float
    """Deviation of the displacement along each axis, in pixels."""
    sigma: float
    """Deviation of the Gaussian that smooths the noise, in pixels: larger bends more gently."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ConfigError(f"alpha of an elastic motion is a deviation in pixels from 0 up, not {self.alpha}.")
        if not 1 <= self.sigma < math.inf:
            raise ConfigError(f"sigma of an elastic motion is a length of 1 pixel or more, not {self.sigma}.")

    def __call__(self, places: Tensor, size: tuple[int, int], generator: Generator) -> Tensor:
        """Places (N, 2, H, W), displaced."""
        return places + self.alpha * smooth_noise(len(places), 2, size, self.sigma, generator).to(places)


def smooth_noise(samples: int, fields: int, size: tuple[int, int], sigma: float, generator: Generator) -> Tensor:
    """Gaussian fields (N, F, H, W), float32, of mean 0 and deviation 1 everywhere, on the generator's device.

    Two pixels at a distance d have the correlation ``exp(-d² / (4 sigma²))``, as white noise has after a Gaussian of
    deviation `sigma` pixels. The noise is drawn on a lattice of half a sigma: after the Gaussian nothing finer is left,
    and for a large sigma it is a fraction of the work.
    """
    rows, cols = (_gaussian_rows(length, sigma).to(generator.device) for length in size)
    noise = torch.randn(samples, fields, rows.shape[1], cols.shape[1], generator=generator, device=generator.device)
    with torch.autocast(generator.device.type, enabled=False):  # in bfloat16 a displacement has steps of its own
        return rows @ noise @ cols.T


def _gaussian_rows(length: int, sigma: float) -> Tensor:
    """Weights (length, lattice points) of noise in each pixel, Gaussian in distance; squares of a row sum to 1."""
    points = torch.arange(-REACH * sigma, length - 1 + (REACH + 0.5) * sigma, sigma / 2, dtype=torch.float64)
    distance = torch.arange(length, dtype=torch.float64)[:, None] - points
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    return (weights / weights.square().sum(dim=1, keepdim=True).sqrt()).float()


class Warp:
    """Some samples moved, image and labels together, and resampled once for all motions.

    What stands still is as it was, bit by bit. Quantities are interpolated, so a warped sample is a little smoother
    than the ground; with a share below 1 the network keeps seeing sharp ones as well. See `resample` for no data.

    Parameters
    ----------
    motions : sequence of Motion
        `Affine`, `Elastic`, in the order in which they move the picture; none changes nothing.
    share : float
        Part of the samples that are moved, 0 to 1.
    types : sequence of BandType, optional
        What each band holds; by default all are continuous. Codes, flags and angles keep their values.
    outside : {"nodata", "reflect"}
        What comes in from beyond the edges: NaN and `ignore_index`, or the chip mirrored.
    ignore_index : int
        Label of pixels that come from outside.

    Raises
    ------
    ConfigError
        The share is not within 0 and 1, or `outside` is neither.
    """

    def __init__(
        self,
        motions: Sequence[Motion],
        *,
        share: float = 1.0,
        types: Sequence[BandType] | None = None,
        outside: Outside = "nodata",
        ignore_index: int = IGNORE,
    ) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"the share of samples to warp is from 0 to 1, not {share}.")
        if outside not in get_args(Outside):
            raise ConfigError(f"outside of a chip there is {' or '.join(get_args(Outside))}, not {outside!r}.")
        self.motions = tuple(motions)
        self.share = share
        self.types = None if types is None else tuple(types)
        self.outside: Outside = outside
        self.ignore_index = ignore_index

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Warped image (N, C, H, W) and labels (N, H, W)."""
        if self.types is not None and len(self.types) != image.shape[1]:
            raise ConfigError(f"the image has {image.shape[1]} bands, but {len(self.types)} have types.")
        drawn = torch.rand(len(image), generator=generator, device=generator.device)
        chosen = torch.nonzero(drawn < self.share).flatten().to(image.device)
        if not len(chosen) or not self.motions:
            return image, labels
        height, width = labels.shape[-2:]
        axes = (torch.arange(length, device=image.device, dtype=torch.float32) for length in (height, width))
        places = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(chosen), 2, height, width)
        for motion in reversed(self.motions):
            places = motion(places, (height, width), generator)
        warped, warped_labels = resample(
            image[chosen], labels[chosen], places,
            types=self.types, outside=self.outside, ignore_index=self.ignore_index,
        )  # fmt: skip
        return image.index_copy(0, chosen, warped), labels.index_copy(0, chosen, warped_labels)
