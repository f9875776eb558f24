"""Run epochs: windows are drawn and read ahead, a U-Net learns, the best weights are kept."""

import hashlib
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from .core.bands import WAVELENGTHS
from .core.legend import Legend
from .core.metrics import Confusion, iou, mean_iou
from .errors import ConfigError, OutputExistsError
from .evaluation import Evaluation, evaluate
from .nn.augment import Augment, Compose, FlipsAndTurns, Radiometric
from .nn.features import Features
from .nn.losses import DiceCrossEntropy
from .nn.segmenter import BandInfo, ModelInfo, Segmenter
from .nn.unet import UNet, set_prior
from .raster.sampler import Batch, Pair, Sample, Survey, plan_grid, plan_random, read_batches, survey
from .record import fingerprint, record, versions, write_json

Progress: TypeAlias = Callable[["Epoch"], None]

PERCENTILES = ("0.1", "1", "5", "25", "50", "75", "95", "99", "99.9")
"""Of each band, kept in the model file: what values the model has seen."""
FADE = 0.08
"""Floor of normalised differences, as a part of the bands' mean: for reflectance some 0.01."""


@dataclass(frozen=True)
class Sampling:
    """How training windows are drawn."""

    chip_size: int = 128
    """Side of a window, pixels."""
    chips_per_epoch: int | None = None
    """Windows an epoch; by default as many as tile the training scenes."""
    group_power: float = 1.0
    """A group of scenes is drawn by its area to this power: 1 by area, 0 all groups alike."""
    seed: int = 0
    """Of every draw: windows, augmentation, first weights."""


@dataclass(frozen=True)
class Network:
    """Shape of the U-Net."""

    depth: int = 4
    """Poolings."""
    width: int = 32
    """Channels of the first level, doubled at each level below."""
    norm: Literal["batch", "group", "none"] = "batch"
    upsample: Literal["transposed", "bilinear"] = "transposed"
    dropout: float = 0.0
    max_width: int | None = None
    """Channels that no level exceeds."""
    differences: bool = False
    """Show the network the normalised difference of every pair of bands, beside the bands."""


@dataclass(frozen=True)
class Loss:
    """Weighted sum of Dice and cross-entropy."""

    dice: float = 1.0
    cross_entropy: float = 1.0
    class_weights: Literal["none", "inverse", "median", "effective"] = "inverse"
    """How classes are balanced, from their pixels in the training scenes; see `core.stats.ClassCounts.weights`."""
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """What a batch goes through on the device; geometry is image and labels together, radiometry the image alone."""

    flips_and_turns: bool = True
    gain: float = 0.0
    """Standard deviation of the logarithm of an overall factor."""
    band_gain: float = 0.0
    """The same of a factor a band."""
    offset: float = 0.0
    """Standard deviation of a shift common to all bands, in their mean deviation."""
    band_offset: float = 0.0
    """The same of a shift a band, in deviations of the band."""
    noise: float = 0.0
    """Standard deviation of noise a pixel, in deviations of the band."""


@dataclass(frozen=True)
class Fitting:
    """How long and how fast."""

    epochs: int = 40
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1
    """Part of all steps in which the learning rate climbs; it then falls along a cosine."""
    patience: int | None = None
    """Epochs without a better validation mIoU after which to stop; by default never."""
    keep: Literal["best", "last"] = "best"
    """Weights to keep: of the epoch with the best validation mIoU, or the last ones."""
    ema: float = 0.0
    """Decay a step of the moving average of the weights that is validated and kept; 0 takes the weights as they are."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"


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
    inference: Mapping[str, Any] | None = None,
    card: Card | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
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
        ``history.csv``, ``run.json``. It gets its name when the run is whole.
    sampler, model, loss, augment, training, card
        The sections of a config.
    inference : mapping, optional
        Options of `predict` for the scores at the end.
    progress : callable, optional
        Told the scores after each epoch.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError
        There is nothing to train on or to validate with, or scenes differ in their bands.
    OutputExistsError
        The folder is there, and `overwrite` is not set.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, Decoupled weight decay regularization, ICLR 2019, arXiv:1711.05101.
    .. [2] I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017,
       arXiv:1608.03983.
    """
    sampler, model, loss = sampler or Sampling(), model or Network(), loss or Loss()
    augment, training, card = augment or Augmentation(), training or Fitting(), card or Card()
    out = Path(out)
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists already; choose another folder, or ask to overwrite it (-f).")
    bands, legend = _agree(pairs)
    seen = survey(pairs["train"])
    if not seen.stats.count or not seen.counts.counts.any():
        raise ConfigError(
            "the training scenes have no valid, labelled pixel: look at nodata, labels and ignored codes."
        )
    with _seeded(sampler.seed):
        features = _features(model, seen)
        shape = asdict(model)
        del shape["differences"]
        network = UNet(features.channels(len(bands)), len(legend), **shape)
        weights = seen.counts.weights(loss.class_weights)
        criterion = DiceCrossEntropy(
            dice=loss.dice, cross_entropy=loss.cross_entropy, class_weights=weights.tolist(),
            ignore_index=legend.ignore_index, label_smoothing=loss.label_smoothing,
        )  # fmt: skip
        set_prior(network, _prior(seen, weights))
        segmenter = Segmenter(network, _bands(bands, seen, card), ModelInfo(legend), features)
        task = Task(segmenter, criterion, _augmenter(augment, seen), training, sampler.seed)
        batches = Epochs(pairs["train"], sampler, training.batch_size)
        _fit(task, batches, Chips(pairs["validate"], sampler.chip_size, training.batch_size), progress)
    kept = task.kept
    options = dict(inference or {})
    validation = evaluate(kept, pairs["validate"], **options)
    test = evaluate(kept, pairs["test"], **options) if pairs.get("test") else None
    scores = {name: one for name, one in (("validate", validation), ("test", test)) if one}
    info = _info(card, legend, pairs, sampler, task, seen, scores)
    segmenter = Segmenter(kept.network, kept.bands, info, kept.features).eval()
    with _folder(out, overwrite=overwrite) as part:
        segmenter.save(part / "model.safetensors")
        validation.to_json(part / "metrics.json")
        if test:
            test.to_json(part / "metrics_test.json")
        _write_history(part / "history.csv", task.history)
        sections: dict[str, Any] = {
            "sampler": sampler, "model": model, "loss": loss, "augment": augment, "training": training, "card": card,
        }  # fmt: skip
        facts = record(
            what="geounet train", versions=versions(), model={"name": card.name, "hash": segmenter.hash},
            options={name: asdict(section) for name, section in sections.items()}, inference=options,
            provenance=segmenter.info.provenance,
        )  # fmt: skip
        write_json(part / "run.json", facts)
    return Run(out, segmenter, task.history, validation, test)


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
        self._losses: dict[str, list[float]] = {"loss": [], "val_loss": []}

    @property
    def current(self) -> Segmenter:
        """The weights that are validated and kept: the moving average, if there is one."""
        return cast("Segmenter", self.average.module) if self.average else self.segmenter

    @property
    def kept(self) -> Segmenter:
        """The segmenter with the weights to keep."""
        if self.fitting.keep == "best" and self._best[1]:
            self.current.load_state_dict(self._best[1])
        return self.current

    def training_step(self, batch: Mapping[str, Tensor], _: int) -> Tensor:
        """Loss of a batch, after augmentation."""
        image, mask = self.augment(batch["image"], batch["mask"], self.generator)
        loss: Tensor = self.loss(self.segmenter(image), mask)
        self._losses["loss"].append(float(loss.detach()))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Let the moving average follow a step."""
        if self.average:
            self.average.update_parameters(self.segmenter)

    def validation_step(self, batch: Mapping[str, Tensor], _: int) -> None:
        """Count a batch of validation pixels."""
        logits = self.current(batch["image"])
        self._losses["val_loss"].append(float(self.loss(logits, batch["mask"])))
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
            **{name: float(np.mean(values)) if values else math.nan for name, values in self._losses.items()},
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


def _fit(task: Task, batches: Epochs, chips: Chips, progress: Progress | None) -> None:
    """Run the epochs, without Lightning's files, bars and tips."""
    fitting = task.fitting
    callbacks: list[lightning.Callback] = [_Report(progress)] if progress else []
    if fitting.patience is not None:
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=fitting.patience))
    accelerator, precision = _hardware(fitting)
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=fitting.epochs, accelerator=accelerator, devices=1, precision=precision, callbacks=callbacks,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, gradient_clip_val=1.0, deterministic="warn", benchmark=False,
        )  # fmt: skip
        trainer.fit(task, batches, chips)
    task.to("cpu")


def _hardware(fitting: Fitting) -> tuple[str, Any]:
    """Lightning's names of the device and precision."""
    accelerator = fitting.device
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    precision = fitting.precision
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if accelerator == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
        precision = "bf16" if fast else "fp32"
    return accelerator, {"bf16": "bf16-mixed", "fp32": "32-true"}[precision]


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
def _seeded(seed: int) -> Iterator[None]:
    """Draw torch's chance from `seed` inside the block, and leave the caller's as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _agree(pairs: Mapping[str, Sequence[Pair]]) -> tuple[tuple[str, ...], Legend]:
    """Bands and legend that all scenes and labels share."""
    for split in ("train", "validate"):
        if not pairs.get(split):
            raise ConfigError(f"there are no scenes to {split} with: name some under scenes.{split}.")
    flat = [pair for split in pairs.values() for pair in split]
    bands, legend = flat[0].scene.bands, flat[0].labels.legend
    for pair in flat:
        if pair.scene.bands != bands:
            raise ConfigError(
                f"{pair.scene.source} has bands {', '.join(pair.scene.bands)}, but {flat[0].scene.source} has "
                f"{', '.join(bands)}: list the bands to train on under scenes.bands."
            )
        if pair.labels.legend != legend:
            raise ConfigError(f"{pair.labels.source} and {flat[0].labels.source} have different legends.")
    return bands, legend


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


def _prior(seen: Survey, weights: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """Class frequencies as the weighted loss meets them; a class without pixels counts one."""
    mass = np.maximum(seen.counts.counts, 1) * np.where(weights > 0, weights, 1.0)
    return [float(v) for v in mass / mass.sum()]


def _augmenter(options: Augmentation, seen: Survey) -> Augment:
    strengths = {name: getattr(options, name) for name in ("gain", "band_gain", "offset", "band_offset", "noise")}
    radiometric = [Radiometric(seen.stats.std.tolist(), **strengths)] if any(strengths.values()) else []
    return Compose([*([FlipsAndTurns()] if options.flips_and_turns else []), *radiometric])


def _info(
    card: Card,
    legend: Legend,
    pairs: Mapping[str, Sequence[Pair]],
    sampler: Sampling,
    task: Task,
    seen: Survey,
    scores: Mapping[str, Evaluation],
) -> ModelInfo:
    sizes = [size for pair in pairs["train"] if (size := pair.scene.grid.pixel_size_m) is not None]
    files = [str(pair.scene.source) for split in pairs.values() for pair in split]
    provenance = {
        "data": card.data,
        "split": {
            split: {"scenes": len(chosen), "groups": len({pair.group or pair.scene.source for pair in chosen})}
            for split, chosen in pairs.items()
        },
        "data_hash": hashlib.sha256("".join(fingerprint(file) or file for file in files).encode()).hexdigest(),
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


def _headline(scores: Evaluation) -> dict[str, Any]:
    report = scores.report()
    return {
        "iou": {
            name: round(values["iou"], 4) for name, values in report["classes"].items() if values["iou"] is not None
        },
        "accuracy": round(report["micro"]["accuracy"], 4),
        "pixels": report["pixels"],
    }


def _write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    names = list(history[0])
    rows = [",".join(names), *(",".join(f"{row[name]:.6g}" for name in names) for row in history)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@contextmanager
def _folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Folder to fill, which gets its name when the block ends well."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        if overwrite and out.exists():
            shutil.rmtree(out)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
