"""Run epochs: windows are drawn and read ahead, a U-Net learns, the best weights are kept."""

import hashlib
import logging
import math
import os
import secrets
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from .core.bands import WAVELENGTHS
from .core.legend import Legend
from .core.metrics import Confusion, iou, mean_iou
from .errors import ConfigError, GeoUNetError, OutputError, OutputExistsError
from .evaluation import Evaluation, evaluate
from .inference import predict
from .nn.augment import Augment, Compose, CutMix, FlipsAndTurns, Radiometric
from .nn.features import Features
from .nn.losses import DiceCrossEntropy
from .nn.runtime import find_device, torch_precision
from .nn.segmenter import BandInfo, ModelInfo, Segmenter
from .nn.unet import UNet, set_prior
from .raster.labels import Labels
from .raster.sampler import Batch, Pair, Sample, Survey, plan_grid, plan_random, read_batches, survey
from .raster.scene import Scene
from .record import fingerprint, record, versions, write_json

S = TypeVar("S")
Progress: TypeAlias = Callable[["Epoch"], None]
Finish: TypeAlias = Callable[[Path, "Run"], None]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Amount: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Part: TypeAlias = Annotated[float, Field(ge=0, lt=1)]

_log = logging.getLogger(__name__)

PERCENTILES = ("0.1", "1", "5", "25", "50", "75", "95", "99", "99.9")
"""Of each band, kept in the model file: what values the model has seen."""
MODEL, RECORD = "model.safetensors", "run.json"
"""Files that make a folder a run folder."""
FADE = 0.08
"""Floor of normalised differences, as a part of the bands' mean: for reflectance some 0.01."""


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


@dataclass(frozen=True)
class Network:
    """Shape of the U-Net."""

    depth: Count = 4
    """Poolings."""
    width: Count = 32
    """Channels of the first level, doubled at each level below."""
    norm: Literal["batch", "group", "none"] = "batch"
    upsample: Literal["transposed", "bilinear"] = "transposed"
    dropout: Part = 0.0
    max_width: Count | None = None
    """Channels that no level exceeds."""
    differences: bool = False
    """Show the network the normalised difference of every pair of bands, beside the bands."""


@dataclass(frozen=True)
class Loss:
    """Weighted sum of Dice and cross-entropy."""

    dice: Amount = 1.0
    cross_entropy: Amount = 1.0
    class_weights: Literal["none", "inverse", "median", "effective"] = "inverse"
    """How classes are balanced, from their pixels in the training scenes; see `core.stats.ClassCounts.weights`."""
    label_smoothing: Part = 0.0

    def __post_init__(self) -> None:
        if self.dice == self.cross_entropy == 0:
            raise ConfigError("dice and cross_entropy are both 0, and nothing would be learnt: give one some weight.")


@dataclass(frozen=True)
class Augmentation:
    """What a batch goes through on the device; geometry is image and labels together, radiometry the image alone."""

    flips_and_turns: bool = True
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


@dataclass(frozen=True)
class Epoch:
    """Scores after an epoch."""

    epoch: int
    """From 1."""
    epochs: int
    values: Mapping[str, float]
    """``loss``, ``val_loss``, ``val_miou``, ``learning_rate``, and ``val_iou_NAME`` of each class."""
    best: bool
    """True if no earlier epoch had a better validation mIoU."""


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: Path
    model: Segmenter = field(repr=False)
    history: Sequence[Mapping[str, float]]
    validation: Evaluation
    test: Evaluation | None


def train(
    pairs: Mapping[str, Sequence[Pair]],
    out: str | os.PathLike[str],
    *,
    sampler: Sampling | None = None,
    model: Network | None = None,
    loss: Loss | None = None,
    augment: Augmentation | None = None,
    training: Fitting | None = None,
    inference: Inference | None = None,
    card: Card | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    finish: Finish | None = None,
) -> Run:
    """A U-Net that has learnt the labels of some scenes, in a run folder.

    Bands are standardised by mean and deviation over the valid training pixels, which travel in the model file.
    AdamW [1]_ with warm-up and cosine decay [2]_; gradients are clipped to norm 1.

    Parameters
    ----------
    pairs : mapping of str to sequence of Pair
        ``train`` and ``validate``, and if wanted ``test``, which is scored once at the end and decides nothing.
        All scenes have the same bands, in the same order and unit; all labels the same legend.
    out : path
        The run folder to make: ``model.safetensors``, ``metrics.json`` (validation), ``metrics_test.json``,
        ``history.csv``, ``run.json``. It gets its name when the run is whole. If something fails after the last
        epoch, the folder is kept beside it under another name, which the log tells.
    sampler, model, loss, augment, training, inference, card
        The sections of a config; `inference` is how the scenes are mapped that are scored at the end.
    overwrite : bool
        Replace an earlier run folder when the new one is whole; any other folder is refused all the same.
    progress : callable, optional
        Told the scores after each epoch.
    finish : callable, optional
        Fills the folder further before it gets its name: told where it is by then, and the run.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError
        There is nothing to train on or to validate with, scenes differ in their bands, or a value is out of range.
    DeviceError
        The device, backend or precision asked for is not to be had.
    OutputExistsError
        The folder is there and `overwrite` is not set, or it is no run folder.
    OutputError
        The folder cannot be made.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, Decoupled weight decay regularization, ICLR 2019, arXiv:1711.05101.
    .. [2] I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017,
       arXiv:1608.03983.
    """
    sampler, model, loss = sampler or Sampling(), model or Network(), loss or Loss()
    augment, training, card = augment or Augmentation(), training or Fitting(), card or Card()
    inference = inference or Inference()
    sections: dict[str, Any] = {
        "sampler": sampler, "model": model, "loss": loss, "augment": augment, "training": training,
        "inference": inference, "card": card,
    }  # fmt: skip
    for name, section in sections.items():
        checked(type(section), vars(section), f"{name}.")
    bands, legend = _agree(pairs)
    device = find_device(training.device)
    precision = torch_precision(training.precision, device)
    mapping = asdict(inference) | {"force": True}  # doubts are about strangers; these scenes are the run's own
    with _run_folder(Path(out), overwrite=overwrite) as folder:
        seen = survey(pairs["train"])
        if not seen.stats.count or not seen.counts.counts.any():
            raise ConfigError(
                "the training scenes have no valid, labelled pixel: look at nodata, labels and ignored codes."
            )
        with _seeded(sampler.seed, device):
            weights = seen.counts.weights(loss.class_weights)
            segmenter = _untrained(bands, legend, seen, weights, model, card)
            # what mapping asks of this machine is looked for now, not after the last epoch; nothing is mapped yet
            predict(pairs["validate"][0].scene, segmenter, **mapping)
            criterion = DiceCrossEntropy(
                dice=loss.dice, cross_entropy=loss.cross_entropy, class_weights=weights.tolist(),
                ignore_index=legend.ignore_index, label_smoothing=loss.label_smoothing,
            )  # fmt: skip
            task = Task(segmenter, criterion, _augmenter(augment, seen), training, sampler.seed)
            batches = Epochs(pairs["train"], sampler, training.batch_size)
            chips = Chips(pairs["validate"], sampler.chip_size, training.batch_size)
            _fit(task, batches, chips, device, precision, progress)
        kept = task.keep()
        hashes = {split: _hash(chosen) for split, chosen in pairs.items()}

        def scored(scores: Mapping[str, Evaluation]) -> Segmenter:
            info = _info(card, legend, pairs, hashes, sampler, task, seen, scores)
            return Segmenter(kept.network, kept.bands, info, kept.features).eval()

        scored({}).save(folder / MODEL)
        _write_history(folder / "history.csv", task.history)
        scores = {split: evaluate(kept, pairs[split], **mapping) for split in ("validate", "test") if pairs.get(split)}
        trained = scored(scores)
        trained.save(folder / MODEL, overwrite=True)
        run = Run(Path(out), trained, task.history, scores["validate"], scores.get("test"))
        run.validation.to_json(folder / "metrics.json")
        if run.test:
            run.test.to_json(folder / "metrics_test.json")
        facts = record(
            what="geounet train", versions=versions(), model={"name": card.name, "hash": trained.hash},
            options={name: asdict(section) for name, section in sections.items()},
            provenance=trained.info.provenance,
        )  # fmt: skip
        write_json(folder / RECORD, facts)
        if finish:
            finish(folder, run)
    return run


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
        at = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        why = first.get("ctx", {}).get("error")
        if isinstance(why, GeoUNetError):
            raise ConfigError(f"{prefix}{at}: {why}{more}") from None
        found = "" if first["type"] == "missing" else f", not {first['input']!r}"
        raise ConfigError(f"{prefix}{at}: {first['msg'][:1].lower()}{first['msg'][1:]}{found}{more}.") from None


class Epochs:
    """Training batches; each pass over them draws anew, and equal seeds draw alike."""

    def __init__(self, pairs: Sequence[Pair], sampler: Sampling, batch_size: int) -> None:
        self._pairs, self._sampler, self._batch_size = pairs, sampler, batch_size
        self._count = sampler.chips_per_epoch or len(plan_grid(pairs, sampler.chip_size))
        self._epoch = 0

    def __len__(self) -> int:
        return math.ceil(self._count / self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng([self._sampler.seed, self._epoch])
        self._epoch += 1
        plan = plan_random(
            self._pairs, self._sampler.chip_size, self._count, rng, group_power=self._sampler.group_power
        )
        return map(to_tensors, read_batches(self._pairs, plan, self._batch_size))


class Chips:
    """Validation batches: every pixel once."""

    def __init__(self, pairs: Sequence[Pair], chip_size: int, batch_size: int) -> None:
        self._pairs, self._batch_size = pairs, batch_size
        self._plan: list[Sample] = plan_grid(pairs, chip_size)

    def __len__(self) -> int:
        return math.ceil(len(self._plan) / self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return map(to_tensors, read_batches(self._pairs, self._plan, self._batch_size))


def to_tensors(batch: Batch) -> dict[str, Tensor]:
    """Batch under torchgeo's keys: ``image`` (N, C, H, W) float32, ``mask`` (N, H, W) int64."""
    image = torch.from_numpy(batch.image).contiguous(memory_format=torch.channels_last)
    return {"image": image, "mask": torch.from_numpy(batch.mask)}


class Task(lightning.LightningModule):
    """What Lightning needs to know: a step, an epoch's scores, an optimiser."""

    def __init__(
        self, segmenter: Segmenter, loss: DiceCrossEntropy, augment: Augment, fitting: Fitting, seed: int
    ) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws alike
        self.segmenter = segmenter.to(memory_format=torch.channels_last)
        self.loss, self.augment, self.fitting = loss, augment, fitting
        self.average = (
            torch.optim.swa_utils.AveragedModel(
                segmenter,
                multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(fitting.ema),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
            if fitting.ema
            else None
        )
        self.legend = segmenter.legend
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self._best: tuple[float, dict[str, Tensor]] = (-math.inf, {})
        self._confusion = Confusion.empty(len(self.legend))
        self._losses: dict[str, list[tuple[float, int]]] = {"loss": [], "val_loss": []}

    @property
    def current(self) -> Segmenter:
        """The weights that are validated and kept: the moving average, if there is one."""
        return cast("Segmenter", self.average.module) if self.average else self.segmenter

    def keep(self) -> Segmenter:
        """Load the weights to keep, and return the segmenter that has them."""
        if self.fitting.keep == "best" and self._best[1]:
            self.current.load_state_dict(self._best[1])
        return self.current

    def training_step(self, batch: Mapping[str, Tensor], _: int) -> Tensor:
        """Loss of a batch, after augmentation."""
        image, mask = self.augment(batch["image"], batch["mask"], self.generator)
        loss: Tensor = self.loss(self.segmenter(image), mask)
        self._note("loss", loss, mask)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Let the moving average follow a step."""
        if self.average:
            self.average.update_parameters(self.segmenter)

    def validation_step(self, batch: Mapping[str, Tensor], _: int) -> None:
        """Count a batch of validation pixels."""
        logits = self.current(batch["image"])
        self._note("val_loss", self.loss(logits, batch["mask"]), batch["mask"])
        predicted = logits.argmax(1).cpu().numpy()
        self._confusion += Confusion.of(batch["mask"].cpu().numpy(), predicted, len(self.legend))

    def on_validation_epoch_end(self) -> None:
        """Score the epoch, and keep its weights if they are the best so far."""
        miou = mean_iou(self._confusion.counts)
        miou = 0.0 if math.isnan(miou) else miou
        self.log("val_miou", miou)
        by_class = dict(zip(self.legend.names, iou(self._confusion.counts).tolist(), strict=True))
        scores = {
            "epoch": self.current_epoch + 1,
            **{name: _average(losses) for name, losses in self._losses.items()},
            "val_miou": miou,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            **{f"val_iou_{name}": value for name, value in by_class.items()},
        }
        self.history.append(scores)
        if miou > self._best[0]:
            self.best_epoch = self.current_epoch + 1
            self._best = miou, {name: value.clone() for name, value in self.current.state_dict().items()}
        self._confusion = Confusion.empty(len(self.legend))
        self._losses = {"loss": [], "val_loss": []}

    def _note(self, name: str, loss: Tensor, mask: Tensor) -> None:
        """Keep the loss of a batch, with its labelled pixels; a batch without any has none."""
        if labelled := int((mask != self.legend.ignore_index).sum()):
            self._losses[name].append((float(loss.detach()), labelled))

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases and norms, warm-up and cosine by the step."""
        matrices = [p for p in self.segmenter.parameters() if p.ndim > 1]
        vectors = [p for p in self.segmenter.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.fitting.learning_rate, weight_decay=self.fitting.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        warm = max(1, round(self.fitting.warmup * steps))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, warm, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _average(losses: Sequence[tuple[float, int]]) -> float:
    """Mean loss of batches, each counting by its labelled pixels; NaN of none."""
    pixels = sum(count for _, count in losses)
    return sum(loss * count for loss, count in losses) / pixels if pixels else math.nan


def warmup_cosine(step: int, warm: int, steps: int) -> float:
    """Part of the full learning rate at a step: a straight climb over `warm` steps, then half a cosine to 0.

    Examples
    --------
    >>> [round(warmup_cosine(step, 2, 10), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


class _Report(lightning.Callback):
    """Tells the caller what an epoch brought."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        assert isinstance(task, Task)
        if task.history:
            scores = task.history[-1]
            best = task.best_epoch == scores["epoch"]
            self._progress(Epoch(int(scores["epoch"]), int(trainer.max_epochs or 0), scores, best))


def _fit(
    task: Task, batches: Epochs, chips: Chips, device: torch.device, precision: str, progress: Progress | None
) -> None:
    """Run the epochs, without Lightning's files, bars and tips."""
    fitting = task.fitting
    callbacks: list[lightning.Callback] = [_Report(progress)] if progress else []
    if fitting.patience is not None:
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=fitting.patience))
    with _quiet(), _switches(), _interruptible():
        trainer = lightning.Trainer(
            max_epochs=fitting.epochs, accelerator=device.type, devices=1 if device.index is None else [device.index],
            precision="bf16-mixed" if precision == "bf16" else "32-true", callbacks=callbacks, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, gradient_clip_val=1.0, deterministic="warn", benchmark=False,
        )  # fmt: skip
        trainer.fit(task, batches, chips)
    task.to("cpu")


@contextmanager
def _switches() -> Iterator[None]:
    """Leave torch's choice of algorithms as it was, which Lightning sets for the whole process."""
    variable = "CUBLAS_WORKSPACE_CONFIG"
    workspace, benchmark = os.environ.get(variable), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        os.environ.pop(variable, None)
        if workspace is not None:
            os.environ[variable] = workspace


@contextmanager
def _interruptible() -> Iterator[None]:
    """Give back the Ctrl-C that Lightning turns into an exit with status 1, and goes deaf to."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice, and its notes on hardware, to itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw torch's chance from `seed` inside the block, and leave the caller's as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _agree(pairs: Mapping[str, Sequence[Pair]]) -> tuple[tuple[str, ...], Legend]:
    """Bands and legend that all scenes and labels share."""
    for split in ("train", "validate"):
        if not pairs.get(split):
            raise ConfigError(f"there are no scenes to {split} with: name some under scenes.{split}.")
    flat = [pair for split in pairs.values() for pair in split]
    bands, legend = flat[0].scene.bands, flat[0].labels.legend
    if len(legend) < 2:
        raise ConfigError(
            f"the legend has one class ({legend.names[0]}), and a map of one class says nothing: name what the rest is as "
            "well. For polygons, labels.background is the code of all ground outside of them."
        )
    for pair in flat:
        if pair.scene.bands != bands:
            raise ConfigError(
                f"{pair.scene.source} has bands {', '.join(pair.scene.bands)}, but {flat[0].scene.source} has "
                f"{', '.join(bands)}: list the bands to train on under scenes.bands."
            )
        if pair.labels.legend != legend:
            raise ConfigError(f"{pair.labels.source} and {flat[0].labels.source} have different legends.")
    return bands, legend


def _untrained(
    bands: Sequence[str], legend: Legend, seen: Survey, weights: NDArray[np.float64], model: Network, card: Card
) -> Segmenter:
    """Network of random weights that knows its bands, and how frequent the classes are."""
    features = _features(model, seen)
    shape = asdict(model)
    del shape["differences"]
    network = UNet(features.channels(len(bands)), len(legend), **shape)
    set_prior(network, _prior(seen, weights))
    return Segmenter(network, _bands(bands, seen, card), ModelInfo(legend), features)


def _bands(names: Sequence[str], seen: Survey, card: Card) -> list[BandInfo]:
    """What the model file says of each band."""
    quantiles = seen.stats.quantiles([float(p) / 100 for p in PERCENTILES])
    return [
        BandInfo(
            name=name, mean=float(mean), std=float(std), wavelength=WAVELENGTHS.get(name), unit=card.unit,
            percentiles=dict(zip(PERCENTILES, values.tolist(), strict=True)),
        )
        for name, mean, std, values in zip(names, seen.stats.mean, seen.stats.std, quantiles, strict=True)
    ]  # fmt: skip


def _features(model: Network, seen: Survey) -> Features:
    """Channels that the network is to see; the floor of the differences follows the bands' mean."""
    return Features(model.differences, FADE * float(np.abs(seen.stats.mean).mean()) if model.differences else 0.0)


def _prior(seen: Survey, weights: NDArray[np.float64]) -> list[float]:
    """Class frequencies as the weighted loss meets them; a class without pixels counts one."""
    mass = np.maximum(seen.counts.counts, 1) * np.where(weights > 0, weights, 1.0)
    return [float(v) for v in mass / mass.sum()]


def _augmenter(options: Augmentation, seen: Survey) -> Augment:
    strengths = {name: getattr(options, name) for name in ("gain", "band_gain", "offset", "band_offset", "noise")}
    radiometric = [Radiometric(seen.stats.std.tolist(), **strengths)] if any(strengths.values()) else []
    geometric = [FlipsAndTurns()] if options.flips_and_turns else []
    mixed = [CutMix(options.cutmix)] if options.cutmix else []
    return Compose([*geometric, *radiometric, *mixed])


def _info(
    card: Card,
    legend: Legend,
    pairs: Mapping[str, Sequence[Pair]],
    hashes: Mapping[str, str],
    sampler: Sampling,
    task: Task,
    seen: Survey,
    scores: Mapping[str, Evaluation],
) -> ModelInfo:
    sizes = [size for pair in pairs["train"] if (size := pair.scene.grid.pixel_size_m) is not None]
    provenance = {
        "data": card.data,
        "split": {
            split: {
                "scenes": len(chosen),
                "groups": len({pair.group or pair.scene.source for pair in chosen}),
                "hash": hashes[split],
            }
            for split, chosen in pairs.items()
        },
        "data_hash": hashlib.sha256("".join(hashes.values()).encode()).hexdigest(),
        "pixels": dict(zip(legend.names, seen.counts.counts.tolist(), strict=True)),
        "seed": sampler.seed,
        "epochs": len(task.history),
        "best_epoch": task.best_epoch,
        "versions": versions(),
        "metrics": {split: _headline(one) for split, one in scores.items()},
        "licence": card.licence,
        "citation": card.citation,
    }
    return ModelInfo(
        legend=legend, name=card.name, description=card.description,
        pixel_size=float(np.median(sizes)) if sizes else None, provenance=provenance, notes=card.notes,
    )  # fmt: skip


def _hash(pairs: Sequence[Pair]) -> str:
    """Hash of the content of all files of scenes and labels; of what is no local file, of its name."""
    files = [file for pair in pairs for part in (pair.scene, pair.labels) for file in _files(part)]
    return hashlib.sha256("".join(fingerprint(file) or file for file in files).encode()).hexdigest()


def _files(part: Scene | Labels) -> Sequence[str]:
    paths: Sequence[str] = getattr(part, "paths", ())
    return paths or (part.source,)


def _headline(scores: Evaluation) -> dict[str, Any]:
    report = scores.report()
    accuracy = report["micro"]["accuracy"]
    return {
        "iou": {
            name: round(values["iou"], 4) for name, values in report["classes"].items() if values["iou"] is not None
        },
        "accuracy": None if accuracy is None else round(accuracy, 4),
        "pixels": report["pixels"],
    }


def _write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    names = list(history[0])
    rows = [",".join(names), *(",".join(f"{row[name]:.6g}" for name in names) for row in history)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@contextmanager
def _run_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Folder to fill, which gets its name when the block ends well, and another one if it fails with a model in it."""
    place = out.resolve()  # a link to a run folder stays a link
    _check_run_folder(out, place, overwrite)
    token = secrets.token_hex(4)
    part = place.with_name(f".{place.name}.{token}.part")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out} ({error.strerror}); name another.") from error
    try:
        yield part
        _check_run_folder(out, place, overwrite)
        _put(part, place, place.with_name(f".{place.name}.{token}.old"))
    except BaseException:
        if (part / MODEL).exists():
            kept = part.rename(place.with_name(f"{place.name}.unfinished-{token}"))
            _log.warning("all epochs were over when this failed; the model is kept in %s.", kept)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_run_folder(out: Path, place: Path, overwrite: bool) -> None:
    """Refuse a name under which something is that must not be replaced."""
    if not place.exists():
        return
    if not place.is_dir():
        raise OutputError(f"{out} is a file; give the name of a folder to make.")
    if not overwrite:
        raise OutputExistsError(f"{out} exists already; choose another folder, or ask to overwrite it (-f).")
    if any(place.iterdir()) and not all((place / name).is_file() for name in (MODEL, RECORD)):
        raise OutputExistsError(
            f"{out} holds something else than a run (no {MODEL} and {RECORD}), and is not overwritten; "
            "choose another folder."
        )


def _put(part: Path, place: Path, aside: Path) -> None:
    """Rename `part` to `place`; what was there stands aside until that is done."""
    replaced = place.exists()
    if replaced:
        place.rename(aside)
    try:
        part.rename(place)
    except OSError:
        if replaced:
            aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)
