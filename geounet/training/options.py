"""Sections of a config, each the options of one step of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from ..errors import ConfigError, GeoUNetError
from ..nn.losses import LOSSES

S = TypeVar("S")
Count: TypeAlias = Annotated[int, Field(ge=1)]
Amount: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Part: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Sampling:
    """How training windows are drawn."""

    chip_size: Count = 128
    """Side of a window, pixels."""
    chips_per_epoch: Count | None = None
    """Windows an epoch; by default as many as tile the training scenes."""
    group_power: Amount = 1.0
    """A group of scenes is drawn by its area to this power: 1 by area, 0 all groups alike."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of every draw: windows, augmentation, first weights."""
    min_valid: Part = 0.0
    """Part of a window's pixels that have data and a label; windows with less are not drawn. With any value above 0,
    windows without a label are not, which matters where labels are sparse."""
    shares: Mapping[str | int, Part] | Literal["equal"] | None = None
    """Share of the labelled pixels that a class is to have in the chips, by name or code, or ``equal`` for all alike; by
    default what it has on the ground."""
    cache: Literal["memory", "disk", "none"] = "memory"
    """Where decoded blocks are kept for the next epochs."""
    cache_gb: Amount | None = None
    """Most that is kept, in 10⁹ bytes; by default a quarter of the memory free at the start, or 20 on disk."""
    cache_folder: str | None = None
    """Of the blocks on disk, and of what was counted before the first epoch, for the next runs on the same files."""
    ahead: Count = 2
    """Batches read ahead of the one in use."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a window that cannot be read is tried again."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do when it still cannot."""

    def __post_init__(self) -> None:
        if self.cache == "disk" and self.cache_folder is None:
            raise ConfigError("a cache on disk needs a cache_folder.")


@dataclass(frozen=True)
class Network:
    """Shape of the network: a plain U-Net, a U-Net++, or a U-Net on a network of timm (`encoder_name`)."""

    architecture: Literal["unet", "unet++"] = "unet"
    depth: Count = 4
    """Poolings, of plain networks."""
    width: Count = 32
    """Channels of the first level of plain networks, doubled at each level below."""
    max_width: Count | None = None
    """Channels that no level of a plain network exceeds."""
    convolutions: Literal["same", "valid"] = "same"
    """``valid`` as in the first U-Net: nothing is padded, the image is mirrored at its edges instead."""
    residual: bool = False
    """Let each level of a plain network add to what it is given."""
    deep_supervision: bool = True
    """Train the answer of every depth of a U-Net++."""
    encoder_name: str | None = None
    """Way down by a network of timm, such as ``resnet18``, ``resnet50`` or ``vgg16``."""
    encoder_weights: str | None = None
    """``imagenet``, one of torchgeo's such as ``ResNet50_Weights.SENTINEL2_ALL_MOCO``, or a ``.safetensors`` file."""
    encoder_depth: Count = 5
    """Halvings by the encoder, 3 to 5."""
    decoder_channels: Sequence[int] | None = None
    """Of each level on the way up from an encoder, coarsest first."""
    encoder_lr_factor: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Learning rate of pretrained layers, as a part of that of the others."""
    freeze_encoder: bool = False
    """Leave pretrained layers as they are."""
    norm: Literal["batch", "group", "none"] = "batch"
    upsample: Literal["transposed", "bilinear"] = "transposed"
    dropout: Part = 0.0
    sigmoid: bool = False
    """Tell two classes apart by one channel."""
    initialisation: Literal["he", "xavier", "orthogonal", "gaussian"] = "he"
    """How first weights are drawn that are not pretrained; see `nn.initial.initialise`."""
    differences: bool = False
    """Show the network the normalised difference of every pair of bands, beside the bands."""

    def __post_init__(self) -> None:
        ours = (
            "architecture",
            "depth",
            "width",
            "max_width",
            "convolutions",
            "residual",
            "deep_supervision",
            "initialisation",
        )
        theirs = ("encoder_weights", "encoder_depth", "decoder_channels", "encoder_lr_factor", "freeze_encoder")
        idle = theirs if self.encoder_name is None else ours
        given = [name for name in idle if getattr(self, name) != _default(Network, name)]
        if given:
            which = "need an encoder_name" if self.encoder_name is None else "are of networks without an encoder"
            raise ConfigError(
                f"{', '.join(given)} {which}, and would do nothing: leave them out, or change the network."
            )
        if self.convolutions == "valid" and self.architecture != "unet":
            raise ConfigError("valid convolutions are of the plain U-Net; a U-Net++ pads.")


@dataclass(frozen=True)
class Loss:
    """Weighted sum of losses; those of weight 0 are not computed. See `nn.losses.WeightedSum`."""

    dice: Amount = 1.0
    cross_entropy: Amount = 1.0
    focal: Amount = 0.0
    """Cross-entropy in which pixels that are right already count less (``gamma``)."""
    generalised_dice: Amount = 0.0
    tversky: Amount = 0.0
    """Dice that takes pixels too many (``alpha``) and pixels missed (``beta``) by weights of their own."""
    lovasz: Amount = 0.0
    """Convex surrogate of IoU."""
    border: Amount = 0.0
    """Cross-entropy that counts the ground between near objects more (``w0``, ``sigma``)."""
    gamma: Amount = 2.0
    alpha: Amount = 0.3
    beta: Amount = 0.7
    per: Literal["batch", "sample"] = "batch"
    """What the losses of regions, Dice among them, take for one image."""
    w0: Amount = 10.0
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """Pixels."""
    class_weights: Literal["none", "inverse", "median", "effective"] = "inverse"
    """How classes are balanced, from their pixels in the training scenes; see `core.stats.ClassCounts.weights`."""
    label_smoothing: Part = 0.0

    @property
    def terms(self) -> dict[str, float]:
        """Weight of each loss that has one."""
        return {name: weight for name in LOSSES if (weight := getattr(self, name))}

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError(
                f"no loss has a weight, and nothing would be learnt: give one of {', '.join(LOSSES)} some."
            )


@dataclass(frozen=True)
class Augmentation:
    """What a batch goes through on the device; geometry is image and labels together, radiometry the image alone."""

    flips_and_turns: bool = True
    scale: Amount = 0.0
    """Chips are scaled by factors from 1 / (1 + scale) to 1 + scale."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Most that they are turned either way, in degrees."""
    translation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Most that they are shifted, as a part of their side."""
    shear: Amount = 0.0
    elastic: Amount = 0.0
    """Standard deviation of an elastic displacement, in pixels."""
    elastic_sigma: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 8.0
    """Pixels over which it is smooth."""
    warp_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Part of the samples that are scaled, turned, shifted, sheared and bent; what comes from outside has no data."""
    brightness: Amount = 0.0
    """Standard deviation of a shift a band, in deviations of the band."""
    contrast: Amount = 0.0
    """Standard deviation of the logarithm of a factor a band about its mean."""
    gamma: Amount = 0.0
    """Standard deviation of the logarithm of the exponent of a tone curve a band."""
    band_dropout: Part = 0.0
    """Part of the bands that are withheld from a sample, never all of them."""
    gain: Amount = 0.0
    """Standard deviation of the logarithm of an overall factor."""
    band_gain: Amount = 0.0
    """The same of a factor a band."""
    offset: Amount = 0.0
    """Standard deviation of a shift common to all bands, in their mean deviation."""
    band_offset: Amount = 0.0
    """The same of a shift a band, in deviations of the band."""
    noise: Amount = 0.0
    """Standard deviation of noise a pixel, in deviations of the band."""
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the samples in which a rectangle is taken from another sample."""


@dataclass(frozen=True)
class Fitting:
    """How long and how fast."""

    epochs: Count = 40
    batch_size: Count = 16
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    weight_decay: Amount = 1e-2
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Part of all steps in which the learning rate climbs; it then falls along a cosine."""
    patience: Count | None = None
    """Epochs without a better validation mIoU after which to stop; by default never."""
    keep: Literal["best", "last"] = "best"
    """Weights to keep: of the epoch with the best validation mIoU, or the last ones."""
    ema: Part = 0.0
    """Decay a step of the moving average of the weights that is validated and kept; 0 takes the weights as they are."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""


@dataclass(frozen=True)
class Inference:
    """How the scenes are mapped that are scored at the end; see `predict`."""

    chip_size: Count = 512
    overlap: Annotated[int, Field(ge=0)] | None = None
    batch_size: Count | None = None
    device: str = "auto"
    backend: Literal["auto", "torch", "openvino"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: Count | None = None


@dataclass(frozen=True)
class Card:
    """What the model file says of itself."""

    name: str = "model"
    description: str = ""
    data: str = ""
    """Where images and labels come from."""
    unit: str = ""
    """Unit of the band values, such as ``reflectance × 10000``."""
    licence: str = ""
    citation: str = ""
    notes: str = ""
    """What a user must know, such as ground the model has not seen."""


def _default(kind: type[Any], name: str) -> Any:
    return next(field.default for field in fields(kind) if field.name == name)


def checked(kind: type[S], values: Mapping[str, Any], prefix: str) -> S:
    """Values as a section of a config, of the right kinds and within their bounds.

    Raises
    ------
    ConfigError
        Beginning with `prefix`, and naming the key, what was found and what was expected.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        parts = [str(part) for part in first["loc"]]
        at = ".".join(part for part in parts if "[" not in part)  # pydantic's names of unions
        where = f"{prefix}{at}: " if at else prefix
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        why = first.get("ctx", {}).get("error")
        if isinstance(why, GeoUNetError):
            raise ConfigError(f"{where}{why}{more}") from None
        found = "" if first["type"] == "missing" else f", not {first['input']!r}"
        raise ConfigError(f"{where}{first['msg'][:1].lower()}{first['msg'][1:]}{found}{more}.") from None
