"""Run epochs: windows are drawn and read ahead, a U-Net learns, the best weights are kept."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..core.bands import WAVELENGTHS
from ..core.bandtypes import BandType, Kind
from ..core.stats import ClassCounts
from ..errors import ConfigError
from ..evaluation import Evaluation
from ..nn.augment import (
    Affine,
    Augment,
    BandDropout,
    Compose,
    CutMix,
    Elastic,
    FlipsAndTurns,
    Motion,
    Radiometric,
    Tone,
    Warp,
)
from ..nn.encoders import EncoderUNet, channel_names
from ..nn.features import Features
from ..nn.initial import initialise, set_prior
from ..nn.losses import WeightedSum
from ..nn.runtime import find_device, torch_precision
from ..nn.segmenter import BandInfo, ModelInfo, Segmenter
from ..nn.unet import UNet
from ..nn.unetpp import UNetPlusPlus
from ..raster.sampler import Pair, Survey
from ..record import record, versions, write_json
from .data import Batches, PairSource, Source
from .folder import MODEL, RECORD, run_folder, write_history
from .options import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling, checked
from .task import Progress, Task, fit

Finish: TypeAlias = Callable[[Path, "Run"], None]

PERCENTILES = ("0.1", "1", "5", "25", "50", "75", "95", "99", "99.9")
"""Of each band, kept in the model file: what values the model has seen."""
FADE = 0.08
"""Floor of normalised differences, as a part of the bands' mean: for reflectance some 0.01."""


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: Path
    model: Segmenter = field(repr=False)
    history: Sequence[Mapping[str, float]]
    validation: Evaluation
    test: Evaluation | None


def train(
    pairs: Mapping[str, Sequence[Pair]] | Source,
    out: str | os.PathLike[str],
    *,
    sampler: Sampling | None = None,
    model: Network | None = None,
    loss: Loss | None = None,
    augment: Augmentation | None = None,
    training: Fitting | None = None,
    inference: Inference | None = None,
    card: Card | None = None,
    types: Mapping[str, BandType | Kind] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    finish: Finish | None = None,
) -> Run:
    """A U-Net that has learnt the labels of some scenes, in a run folder.

    Bands are standardised by mean and deviation over the valid training pixels, which travel in the model file.
    AdamW [1]_ with warm-up and cosine decay [2]_; gradients are clipped to norm 1.

    Parameters
    ----------
    pairs : mapping of str to sequence of Pair, or Source
        ``train`` and ``validate``, and if wanted ``test``, which is scored once at the end and decides nothing.
        All scenes have the same bands, in the same order and unit; all labels the same legend. They may differ in
        their CRS, pixel size, extent and nodata.
    out : path
        The run folder to make: ``model.safetensors``, ``metrics.json`` (validation), ``metrics_test.json``,
        ``history.csv``, ``run.json``. It gets its name when the run is whole. If something fails after the last
        epoch, the folder is kept beside it under another name, which the log tells.
    sampler, model, loss, augment, training, inference, card
        The sections of a config; `inference` is how the scenes are mapped that are scored at the end.
    types : mapping of str to BandType or its kind, optional
        Bands whose numbers are no amounts: codes, bits, angles; a categorical band without codes gets those seen.
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
    source = pairs if isinstance(pairs, Source) else PairSource(pairs, types)
    legend = source.legend
    device = find_device(training.device)
    precision = torch_precision(training.precision, device)
    mapping = asdict(inference) | {"force": True}  # doubts are about strangers; these scenes are the run's own
    with run_folder(Path(out), overwrite=overwrite) as folder:
        with _seeded(sampler.seed, device):
            seen = source.survey(sampler)
        if not seen.stats.count or not seen.counts.counts.any():
            raise ConfigError(
                "the training scenes have no valid, labelled pixel: look at nodata, labels and ignored codes."
            )
        with _seeded(sampler.seed, device):
            batches = source.batches(seen, sampler, training.batch_size)
            counts = _met(seen.counts, batches)
            weights = counts.weights(loss.class_weights)
            segmenter = _untrained(source, seen, _prior(counts, weights), model, card)
            # what mapping asks of this machine is looked for now, not after the last epoch; nothing is mapped yet
            source.rehearse(segmenter, mapping)
            shape = {name: getattr(loss, name) for name in ("gamma", "alpha", "beta", "per", "w0", "sigma")}
            criterion = WeightedSum(
                loss.terms, class_weights=weights.tolist(), ignore_index=legend.ignore_index,
                label_smoothing=loss.label_smoothing, **shape,
            )  # fmt: skip
            task = Task(
                segmenter, criterion, _augmenter(augment, segmenter), training, sampler.seed,
                encoder_lr_factor=model.encoder_lr_factor,
            )  # fmt: skip
            fit(task, batches, source.chips(sampler, training.batch_size), device, precision, progress)
        kept = task.keep()
        origin = source.origin()

        def scored(scores: Mapping[str, Evaluation]) -> Segmenter:
            info = _info(card, source, origin, sampler, task, seen, scores)
            return Segmenter(kept.network, kept.bands, info, kept.features).eval()

        scored({}).save(folder / MODEL)
        write_history(folder / "history.csv", task.history)
        scores: dict[str, Evaluation] = {
            split: source.evaluate(kept, split, mapping) for split in ("validate", "test") if split in source.splits
        }
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


def _met(counts: ClassCounts, batches: Batches) -> ClassCounts:
    """Class pixels as the loss meets them: in the shares in which chips are drawn, not those of the ground.

    Weights from the ground would correct once more what the sampler has corrected already.
    """
    if batches.shares is None:
        return counts
    return ClassCounts(np.rint(batches.shares * counts.counts.sum()).astype(np.int64), counts.ignored)


def _untrained(source: Source, seen: Survey, prior: Sequence[float], model: Network, card: Card) -> Segmenter:
    """Network of random weights that knows its bands, and how frequent the classes are."""
    bands = _bands(source, seen, card)
    features = _features(model, bands)
    network = _network(model, bands, features, len(source.legend))
    set_prior(network, prior)
    return Segmenter(network, bands, ModelInfo(source.legend), features)


def _network(model: Network, bands: Sequence[BandInfo], features: Features, classes: int) -> nn.Module:
    """Network of first weights, random or pretrained."""
    types = [band.type for band in bands]
    channels = features.channels(types)
    shared: dict[str, Any] = {
        "norm": model.norm, "upsample": model.upsample, "dropout": model.dropout, "sigmoid": model.sigmoid
    }  # fmt: skip
    if model.encoder_name is not None:
        names = channel_names([band.name for band in bands], types, features)
        encoder = EncoderUNet(
            channels, classes, encoder_name=model.encoder_name, encoder_weights=model.encoder_weights, bands=names,
            encoder_depth=model.encoder_depth, decoder_channels=model.decoder_channels, **shared,
        )  # fmt: skip
        if model.freeze_encoder:
            encoder.freeze_encoder()
        return encoder
    plain: dict[str, Any] = {
        "depth": model.depth,
        "width": model.width,
        "max_width": model.max_width,
        "residual": model.residual,
    }
    network: nn.Module
    if model.architecture == "unet++":
        network = UNetPlusPlus(channels, classes, **plain, **shared, deep_supervision=model.deep_supervision)
    else:
        network = UNet(channels, classes, **plain, **shared, convolutions=model.convolutions)
    if model.initialisation != "he":  # as networks are made
        initialise(network, model.initialisation)
    return network


def _bands(source: Source, seen: Survey, card: Card) -> list[BandInfo]:
    """What the model file says of each band; codes and bits that nobody named are those seen."""
    quantiles = seen.stats.quantiles([float(p) / 100 for p in PERCENTILES])
    bands = []
    for name, mean, std, values in zip(source.bands, seen.stats.mean, seen.stats.std, quantiles, strict=True):
        kind = source.types.get(name, BandType())
        if kind.typed:
            kind = kind.with_codes(seen.values.get(name, ()), f"band {name}")
            bands.append(BandInfo(name, type=kind))
            continue
        percentiles = dict(zip(PERCENTILES, values.tolist(), strict=True))
        bands.append(BandInfo(name, float(mean), float(std), WAVELENGTHS.get(name), card.unit, percentiles))
    return bands


def _features(model: Network, bands: Sequence[BandInfo]) -> Features:
    """Channels that the network is to see; the floor of the differences follows the mean of continuous bands."""
    amounts = [abs(band.mean) for band in bands if not band.type.typed]
    floor = FADE * float(np.mean(amounts)) if model.differences and amounts else 0.0
    return Features(model.differences, floor)


def _prior(met: ClassCounts, weights: NDArray[np.float64]) -> list[float]:
    """Class frequencies as the weighted loss meets them; a class without pixels counts one."""
    mass = np.maximum(met.counts, 1) * np.where(weights > 0, weights, 1.0)
    return [float(v) for v in mass / mass.sum()]


def _augmenter(options: Augmentation, model: Segmenter) -> Augment:
    """What a batch goes through: places first, then light, then what is withheld or mixed."""
    types, spread = [band.type for band in model.bands], [band.std for band in model.bands]
    ignore = model.legend.ignore_index
    steps: list[Augment] = [FlipsAndTurns()] if options.flips_and_turns else []
    motions: list[Motion] = []
    affine = {name: getattr(options, name) for name in ("scale", "rotation", "translation", "shear")}
    if any(affine.values()):
        motions.append(Affine(**affine))
    if options.elastic:
        motions.append(Elastic(options.elastic, options.elastic_sigma))
    if motions and options.warp_share:
        steps.append(Warp(motions, share=options.warp_share, types=types, ignore_index=ignore))
    light = {name: getattr(options, name) for name in ("gain", "band_gain", "offset", "band_offset", "noise")}
    if any(light.values()):
        steps.append(Radiometric(spread, types=types, **light))
    tone = {name: getattr(options, name) for name in ("brightness", "contrast", "gamma")}
    if any(tone.values()):
        low, high = ([band.percentiles.get(key, math.nan) for band in model.bands] for key in ("1", "99"))
        steps.append(Tone([band.mean for band in model.bands], spread, low=low, high=high, types=types, **tone))
    if options.band_dropout:
        steps.append(BandDropout(options.band_dropout, ignore_index=ignore))
    if options.cutmix:
        steps.append(CutMix(options.cutmix))
    return Compose(steps)


def _info(
    card: Card,
    source: Source,
    origin: Mapping[str, Any],
    sampler: Sampling,
    task: Task,
    seen: Survey,
    scores: Mapping[str, Evaluation],
) -> ModelInfo:
    provenance = {
        "data": card.data,
        **origin,
        "pixels": dict(zip(source.legend.names, seen.counts.counts.tolist(), strict=True)),
        "seed": sampler.seed,
        "epochs": len(task.history),
        "best_epoch": task.best_epoch,
        "versions": versions(),
        "metrics": {split: _headline(one) for split, one in scores.items()},
        "licence": card.licence,
        "citation": card.citation,
    }
    return ModelInfo(
        legend=source.legend, name=card.name, description=card.description, pixel_size=source.pixel_size,
        provenance=provenance, notes=card.notes,
    )  # fmt: skip


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


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw torch's chance from `seed` inside the block, and leave the caller's as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
