"""A network that takes raw band values, and knows what they are and what its classes mean."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...core.bandtypes import ABSENT, BandType
from ...core.legend import Legend
from ...errors import ConfigError, LegendError, ModelFileError, OutputError
from ...output import atomic
from ..architectures import ARCHITECTURES, architecture_of, arguments_of
from ..features import Features, encode
from . import file, header
from .info import BandInfo, ModelInfo


class Segmenter(nn.Module):
    """A network that takes raw band values, and knows what they are and what its classes mean.

    Parameters
    ----------
    network : Module
        (N, F, H, W) features to (N, K, H, W) logits; of a class in `ARCHITECTURES` if it is to be saved.
    bands : sequence of BandInfo
        In the order of the channels, C of them.
    info : ModelInfo
        With a legend of K classes.
    features : Features, optional
        What the network sees of the bands; by default the standardised values of continuous ones, and the channels of
        the others' types.

    Attributes
    ----------
    mean, std : Tensor (C,), float32
        Of each band, on the network's device; `std` is 1 where a band does not vary. For a band that is not
        continuous, `mean` is `ABSENT`, which becomes zeros: what a network is given where there is no data is `mean`
        in any case.
    quantities : list of int
        Encoded channels that are standardised, and that differences are taken of: those of continuous bands.

    Raises
    ------
    ConfigError
        Bands or classes are not as many as the network has, a band is named twice, a mean is not finite, a deviation
        below zero, or the codes or bits of a band are not known.
    """

    mean: Tensor
    std: Tensor
    center: Tensor
    spread: Tensor
    __jit_unused_properties__: ClassVar[list[str]] = [  # torch.jit.trace would call them all, and hash the weights
        "legend", "pixel_size", "band_names", "types", "stride", "hash", "short_hash",
    ]  # fmt: skip

    def __init__(
        self, network: nn.Module, bands: Sequence[BandInfo], info: ModelInfo, features: Features | None = None
    ) -> None:
        super().__init__()
        self.features = features or Features()
        names = [band.name for band in bands]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"a model reads each band once, but {', '.join(twice)} is given more than once.")
        types = [band.type for band in bands]
        for band in bands:
            _check_band(band)
        channels = self.features.channels(types)
        for what, count, key in (("channels", channels, "in_channels"), ("classes", len(info.legend), "classes")):
            made_for = arguments_of(network).get(key, count)
            if made_for != count:
                raise ConfigError(f"the network was made for {made_for} {what}, but {count} are given.")
        self.network = network
        self.bands = tuple(bands)
        self.info = info
        mean = [ABSENT if band.type.typed else band.mean for band in bands]
        std = [1.0 if band.type.typed or not 0 < band.std < math.inf else band.std for band in bands]
        places = [place for place, kind in enumerate(types) for _ in range(kind.channels)]
        typed = [types[place].typed for place in places]
        self.quantities = [channel for channel, other in enumerate(typed) if not other]
        constants = {
            "mean": mean,
            "std": std,
            "center": [0.0 if other else mean[place] for place, other in zip(places, typed, strict=True)],
            "spread": [std[place] for place in places],
        }
        for name, values in constants.items():
            # Not persistent: the header holds them, and a truth is kept once.
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    @property
    def legend(self) -> Legend:
        """Classes in the order of the logits."""
        return self.info.legend

    @property
    def pixel_size(self) -> float | None:
        """Metres, of the training images; None where they have no place."""
        return self.info.pixel_size

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in the order of the channels."""
        return tuple(band.name for band in self.bands)

    @property
    def stride(self) -> int:
        """Number of pixels of which a compiled network's input sides are multiples."""
        return int(getattr(self.network, "stride", 1))

    @property
    def types(self) -> tuple[BandType, ...]:
        """What the values of each band mean, in the order of the channels."""
        return tuple(band.type for band in self.bands)

    def encode(self, image: Tensor) -> Tensor:
        """Channels (N, E, H, W), float32, of finite raw values (N, C, H, W): each band by its type, not yet scaled.

        The image itself where all bands are continuous.
        """
        return encode(image, self.types)

    def scale(self, encoded: Tensor) -> Tensor:
        """Channels (N, F, H, W), float32, that the network sees, of encoded ones (N, E, H, W).

        They themselves where the network brings bands to scales of its own, as an `Ensemble` does.
        """
        if getattr(self.network, "standardises", False):
            return encoded
        return self.features(encoded, self.center, self.spread, self.quantities)

    def prepare(self, image: Tensor) -> Tensor:
        """Channels (N, F, H, W), float32, that the network sees of finite raw values (N, C, H, W)."""
        return self.scale(self.encode(image))

    def forward(self, image: Tensor) -> Tensor:
        """Class scores of every pixel.

        Parameters
        ----------
        image : Tensor (N, C, H, W), float32
            Raw values in the units of `bands`; NaN or inf where there is no data, which the network sees as the band's
            mean, or as zeros where the band is not continuous.

        Returns
        -------
        Tensor (N, K, H, W), float
            Logits; those of pixels without data mean nothing.
        """
        return self.network(self.prepare(self._finite(image)))  # type: ignore[no-any-return]

    def supervised(self, image: Tensor) -> list[Tensor]:
        """Class scores of every answer that is to be trained, as `forward`: of all depths of a U-Net++, else of one."""
        answers = getattr(self.network, "supervised", None)
        return [self(image)] if answers is None else answers(self.prepare(self._finite(image)))

    def _finite(self, image: Tensor) -> Tensor:
        return torch.where(torch.isfinite(image), image, self.mean.view(1, -1, 1, 1))

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the model to one safetensors file [1]_, whole or not at all; equal models give equal bytes.

        Parameters
        ----------
        path : path
            Ends in ``.safetensors``.
        overwrite : bool
            Replace what is there.

        Returns
        -------
        Path

        Raises
        ------
        OutputExistsError, OutputError
            As `geounet.output.atomic`, or the suffix is another.
        ModelFileError
            The network is of no architecture that could be loaded again, or its weights are not finite.

        References
        ----------
        .. [1] https://huggingface.co/docs/safetensors
        """
        path = Path(path)
        if path.suffix != file.SUFFIX:
            raise OutputError(f"models are saved as {file.SUFFIX} files; {path} has another suffix.")
        if architecture_of(self.network) is None:
            raise ModelFileError(
                f"{path} cannot be saved: {type(self.network).__name__} is not among the architectures that could be "
                f"loaded again ({', '.join(ARCHITECTURES)}); register it in geounet.nn.segmenter.ARCHITECTURES."
            )
        with atomic(path, overwrite=overwrite) as part:
            part.write_bytes(self._to_bytes(str(path)))
        return path

    @classmethod
    def load(cls, path: Path | str) -> "Segmenter":
        """Read a model from a file; nothing in it is run.

        Parameters
        ----------
        path : path
            As `save` wrote it.

        Returns
        -------
        Segmenter
            In evaluation mode, on the CPU.

        Raises
        ------
        ModelFileError
            The file is missing, damaged, of another kind or of a newer version, or its parts do not fit together.
        """
        path = Path(path)
        head, network = file.read(path)
        try:
            info, features = header.info_of(head, path), header.features_of(head, path)
            return cls(network, header.bands_of(head, path), info, features).eval()
        except (ConfigError, LegendError) as error:
            raise ModelFileError(f"{path} contradicts itself: {error}") from error

    @property
    def hash(self) -> str:
        """SHA-256 of the file that `save` writes, 64 hexadecimal digits; ``sha256sum model.safetensors`` agrees."""
        return hashlib.sha256(self._to_bytes("this model")).hexdigest()

    @property
    def short_hash(self) -> str:
        """First 12 digits of `hash`, for names and messages."""
        return self.hash[:12]

    def _to_bytes(self, source: str) -> bytes:
        name = architecture_of(self.network) or type(self.network).__name__
        text = header.written(name, arguments_of(self.network), self.bands, self.features, self.info)
        return file.to_bytes(text, self.network, source)


def _check_band(band: BandInfo) -> None:
    """Refuse a band of which it is not known what the network is to see."""
    if not band.type.complete:
        what = "codes" if band.type.kind == "categorical" else "bits"
        raise ConfigError(
            f"band {band.name} is {band.type.kind}, but its {what} are not known: name them, or take those that the "
            "training scenes have (BandType.with_codes)."
        )
    if band.type.typed:
        return
    if not math.isfinite(band.mean):
        raise ConfigError(f"band {band.name} has the mean {band.mean}: no valid pixel was seen.")
    if band.std < 0:
        raise ConfigError(f"band {band.name} has a standard deviation below zero: {band.std}.")
