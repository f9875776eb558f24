"""Sections of a config, each the options of one step of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from ..errors import ConfigError, GeoUNetError
from ..nn.losses import LOSSES

S = TypeVar("S")
N = TypeVar("N", int, float)
Count: TypeAlias = Annotated[int, Field(ge=1)]
Amount: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Part: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Auto: TypeAlias = Literal["auto"]
"""Settled by `train`, from what the data are like, before anything is learnt; see `training.planning`."""
Normalisation: TypeAlias = Literal["standardise", "robust", "common", "none"]
UNPLANNED_CHIP, UNPLANNED_DEPTH, UNPLANNED_WIDTH = 128, 4, 32
"""What ``auto`` means where nobody plans, as for a `ChipDataset`."""


@dataclass(frozen=True)
class Sampling:
    """How training windows are drawn."""

    chip_size: Count | Auto = "auto"
    """Side of a window, pixels."""
    chips_per_epoch: Count | Auto | None = None
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

    @property
    def side(self) -> int:
        """Side of a window, pixels, planned or not."""
        return UNPLANNED_CHIP if self.chip_size == "auto" else self.chip_size

    @property
    def chips(self) -> int | None:
        """Windows an epoch; None for as many as tile the training scenes."""
        return None if self.chips_per_epoch == "auto" else self.chips_per_epoch


@dataclass(frozen=True)
class Network:
    """Shape of the network: a plain U-Net, a U-Net++, or a U-Net on a network of timm (`encoder_name`)."""

    architecture: Literal["unet", "unet++"] = "unet"
    depth: Count | Auto = "auto"
    """Poolings, of plain networks."""
    width: Count | Auto = "auto"
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
    normalisation: Normalisation | Auto = "standardise"
    """How bands are shifted and scaled: by mean and deviation; by median and the deviation of the middle 90 %, which cloud
    and saturated pixels do not set; all by one mean and deviation, which keeps what bands are to each other; not at all."""

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

    @property
    def rule(self) -> Normalisation:
        """How bands are shifted and scaled, planned or not."""
        return "standardise" if self.normalisation == "auto" else self.normalisation

    @property
    def levels(self) -> dict[str, int]:
        """Depth and width of a plain network, planned or not."""
        return {
            "depth": UNPLANNED_DEPTH if self.depth == "auto" else self.depth,
            "width": UNPLANNED_WIDTH if self.width == "auto" else self.width,
        }


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
    batch_size: Count | Auto = 16
    """Chips a step; ``auto`` takes the smallest that goes through the network about as fast as any, by trying, so that two
    runs may differ."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Auto = 1e-3
    """``auto`` follows from a range test on a copy of the network."""
    weight_decay: Amount = 1e-2
    schedule: Literal["cosine", "one-cycle", "poly", "plateau", "constant"] = "cosine"
    """How the learning rate goes on after its climb: along half a cosine; as in one cycle of Smith's; by the power 0.9 of
    the way left; down where validation gets no better; not at all. See `training.schedules`."""
    warmup: Annotated[float, Field(ge=0, le=1)] | None = None
    """Part of all steps in which the learning rate climbs; by default 0.1, in one cycle 0.3."""
    plateau_patience: Count = 5
    """Epochs without a better validation mIoU after which a plateau is left."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """What the learning rate is multiplied by then."""
    accumulate: Count = 1
    """Batches whose gradients make up one step of the optimiser, for steps of more samples than memory holds."""
    clip: Amount = 1.0
    """Norm of the gradient above which it is shortened; 0 leaves it as it is."""
    patience: Count | None = None
    """Epochs without a better validation mIoU after which to stop; by default never."""
    keep: Literal["best", "last"] = "best"
    """Weights to keep: of the epoch with the best validation mIoU, or the last ones."""
    ema: Part = 0.0
    """Decay a step of the moving average of the weights that is validated and kept; 0 takes the weights as they are."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the network's products; losses and weights are fp32. fp16, with its loss scaled, is for GPUs alone."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    devices: Count | Auto = 1
    """GPUs of this machine, or processes on its CPU, that share each batch between them; ``auto`` takes all GPUs. Started by
    `torchrun` or `srun`, also over several machines, it is as many processes as those start."""
    compile: bool = False
    """Have torch compile the network for training: minutes at first, then faster steps where networks are large."""
    tensorboard: bool = False
    """Write ``logs/`` for TensorBoard: the scores of each epoch, the learning rate of each step."""

    def __post_init__(self) -> None:
        given = [
            name for name in ("plateau_patience", "plateau_factor") if getattr(self, name) != _default(Fitting, name)
        ]
        if given and self.schedule != "plateau":
            raise ConfigError(f"{', '.join(given)} would do nothing with the schedule {self.schedule}; leave them out.")

    @property
    def batch(self) -> int:
        """Chips a step, settled."""
        return _number("training.batch_size", self.batch_size)

    @property
    def rate(self) -> float:
        """Learning rate, settled."""
        return _number("training.learning_rate", self.learning_rate)


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
    tta: Literal["none", "flips", "d4"] = "none"
    """Average over 4 flips, or 8 flips and turns, of each chip; takes 4 or 8 times the computing."""


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


def _number(what: str, value: N | Auto) -> N:
    if isinstance(value, str):
        raise ConfigError(f"{what} is auto, which `train` settles by trying; say a number here.")
    return value


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
        first, *others = error.errors()
        at = _key(first["loc"])
        where = f"{prefix}{at}: " if at else prefix
        rest = len({_key(other["loc"]) for other in others} - {at})
        more = f" (and {rest} more)" if rest else ""
        why = first.get("ctx", {}).get("error")
        if isinstance(why, GeoUNetError):
            raise ConfigError(f"{where}{why}{more}") from None
        else_auto = any(other.get("ctx") == {"expected": "'auto'"} and _key(other["loc"]) == at for other in others)
        wanted = first["msg"][:1].lower() + first["msg"][1:] + (", or auto" if else_auto else "")
        found = "" if first["type"] == "missing" else f", not {first['input']!r}"
        raise ConfigError(f"{where}{wanted}{found}{more}.") from None


def _key(place: Sequence[int | str]) -> str:
    """Key that pydantic found fault with, without what it calls the members of unions."""
    parts = [str(part) for part in place]
    return ".".join(part for part in parts if "[" not in part and not part.startswith("constrained-"))
