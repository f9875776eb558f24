"""Run epochs: windows are drawn and read ahead, a U-Net learns, the best weights are kept."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ..core.bandtypes import BandType, Kind
from ..errors import ConfigError
from ..evaluation import Evaluation
from ..nn.runtime import find_device, torch_precision
from ..nn.segmenter import ModelInfo, Segmenter
from ..raster.sampler import Pair, Survey
from ..record import record, versions, write_json
from .building import augmenter, criterion, met, prior, untrained
from .data import PairSource, Source
from .folder import MODEL, RECORD, run_folder, write_history
from .loop import fit
from .options import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling, checked
from .task import Progress, Task

Finish: TypeAlias = Callable[[Path, "Run"], None]


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
            counts = met(seen.counts, batches)
            weights = counts.weights(loss.class_weights)
            segmenter = untrained(source, seen, prior(counts, weights), model, card)
            # what mapping asks of this machine is looked for now, not after the last epoch; nothing is mapped yet
            source.rehearse(segmenter, mapping)
            task = Task(
                segmenter, criterion(loss, legend, weights.tolist()), augmenter(augment, segmenter), training, sampler.seed,
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
