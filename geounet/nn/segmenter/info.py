"""What a model says of its bands and of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.bandtypes import CONTINUOUS, BandType
from ...core.legend import Legend


@dataclass(frozen=True)
class BandInfo:
    """One band as a model reads it."""

    name: str
    """Canonical where there is one (`geounet.core.bands`)."""
    mean: float = 0.0
    """Over the training pixels, in the band's units; of no meaning unless the band is continuous."""
    std: float = 1.0
    """Likewise; 0 or NaN for a band that does not vary, which is then only centred."""
    wavelength: float | None = None
    """Centre, in micrometres."""
    unit: str = ""
    """Of the values, such as ``reflectance × 10000``."""
    percentiles: Mapping[str, float] = field(default_factory=dict)
    """Values of the training pixels by percentile, ``{"1": 120.0, "50": …, "99.9": …}``."""
    type: BandType = CONTINUOUS
    """What the values mean, and so which channels the network sees them as."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, for people and for checks."""

    legend: Legend
    """Classes in the order of the logits."""
    name: str = ""
    description: str = ""
    pixel_size: float | None = None
    """Metres, of the training images; None where they have no place."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Data, split, seed, versions, metrics, licence, citation, created: values that JSON can hold."""
    notes: str = ""
