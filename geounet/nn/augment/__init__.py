"""Batches turned, bent, mixed and lit otherwise, on the device they are on.

An augmentation is any callable that takes and returns an image (N, C, H, W), raw band values with NaN where there is no
data, with its labels (N, H, W), and draws all chance from the generator handed in: equal seeds, equal batches.
`Compose` chains them.
"""

from .light import Radiometric, Tone
from .mixing import BandDropout, CutMix
from .resampling import Outside, resample
from .steps import Augment, Compose
from .turning import FlipsAndTurns
from .warping import Affine, Elastic, Motion, Warp

__all__ = [
    "Affine",
    "Augment",
    "BandDropout",
    "Compose",
    "CutMix",
    "Elastic",
    "FlipsAndTurns",
    "Motion",
    "Outside",
    "Radiometric",
    "Tone",
    "Warp",
    "resample",
]
