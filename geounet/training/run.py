"""Run epochs: windows are drawn and read ahead, a U-Net learns, the best weights are kept."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ..core.bandtypes import BandType, Kind
from ..errors import ConfigError
from ..nn.runtime import find_device, torch_precision
from ..raster.sampler import Pair, Survey
from ..record import versions
from .epochs.loop import rehearse
from .epochs.task import Progress
from .network.building import learner
from .options import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling
from .outcome.result import Run, finished
from .outcome.scoring import Learnt
from .outcome.unfinished import Unfinished, name_whole, remains, unfinished
from .plan.settling import Planned, Settled, remembered, settle
from .sections import Sections
from .seeding import seeded
from .source.data import PairSource, Source
from .together.meeting import launched_team
from .together.parallel import fit_together, led, processes
from .together.sharing import cache_of_one

Finish: TypeAlias = Callable[[Path, Run], None]


@dataclass(frozen=True)
class _Machine:
    """What there is to train on."""

    device: torch.device
    """The first of them."""
    devices: int
    """Processes of this machine."""
    processes: int
    """Of all machines."""
    precision: str

    @classmethod
    def of(cls, training: Fitting) -> "_Machine":
        """Machine as a section wants it; what it lacks is refused now, before anything is read."""
        device = find_device(training.device)
        precision = torch_precision(training.precision, device)
        rehearse(training, device)
        devices = processes(training, device)
        return cls(device, devices, max(devices, launched_team().size), precision)


@led
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
    resume: bool = False,
    progress: Progress | None = None,
    finish: Finish | None = None,
    planned: Planned | None = None,
) -> Run:
    """A U-Net that has learnt the labels of some scenes, in a run folder.

    Bands are shifted and scaled by what the valid training pixels are like, and the numbers travel in the model file.
    AdamW [1]_; its learning rate climbs, and then decays along a cosine [2]_ or as `training.schedule` says.

    Parameters
    ----------
    pairs : mapping of str to sequence of Pair, or Source
        ``train`` and ``validate``, and if wanted ``test``, which is scored once at the end and decides nothing.
        All scenes have the same bands, in the same order and unit; all labels the same legend. They may differ in
        their CRS, pixel size, extent and nodata.
    out : path
        The run folder to make: ``model.safetensors``, ``metrics.json`` (validation), ``metrics_test.json``,
        ``history.csv``, ``run.json``. It gets its name when the run is whole. Until then, the training lives beside it, in
        ``OUT.unfinished``, with ``history.csv`` growing by the epoch and a checkpoint to go on from.
    sampler, model, loss, augment, training, inference, card
        The sections of a config; `inference` is how the scenes are mapped that are scored at the end.
    types : mapping of str to BandType or its kind, optional
        Bands whose numbers are no amounts: codes, bits, angles; a categorical band without codes gets those seen.
    overwrite : bool
        Replace an earlier run folder when the new one is whole; any other folder is refused all the same. Epochs of an
        interrupted training are dropped, unless `resume` is set.
    resume : bool
        Go on with a training of this name that was interrupted, however that came; it ends with the weights, bit by bit
        on a CPU, that it would have had otherwise. If there is none, begin. If the run is there and `overwrite` is not
        set, return it: a script of many trainings can be started again as it is.
    progress : callable, optional
        Told the scores after each epoch.
    finish : callable, optional
        Fills the folder further before it gets its name: told where it is by then, and the run.
    planned : callable, optional
        Told the plan, which settles what the options leave open as ``auto``, before anything is tried or learnt.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError
        There is nothing to train on or to validate with, scenes differ in their bands, or a value is out of range; or
        what was interrupted was another training.
    ModelFileError
        The checkpoint is damaged.
    DeviceError
        The device, backend or precision asked for is not to be had.
    DivergenceError
        Weights are no numbers after an epoch.
    OutputExistsError
        The folder is there and `overwrite` is not set, or it is no run folder; there are epochs of an interrupted
        training, and neither `resume` nor `overwrite` is set; or another process is training it.
    OutputError
        The folder cannot be made.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, Decoupled weight decay regularization, ICLR 2019, arXiv:1711.05101.
    .. [2] I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017,
       arXiv:1608.03983.
    """
    sections = Sections.of(
        sampler=sampler, model=model, loss=loss, augment=augment, training=training, inference=inference, card=card
    )
    path = Path(out)
    if resume:
        name_whole(path)
        if not overwrite and not remains(path) and (run := finished(path, sections)):
            return run
    source = pairs if isinstance(pairs, Source) else PairSource(pairs, types)
    machine = _Machine.of(sections.training)
    with unfinished(path, overwrite=overwrite, resume=resume) as work:
        learnt = _learn(work, source, sections, machine, progress, planned)
        folder = work.inside()
        run = learnt.write(folder, path)
        if finish:
            finish(folder, run)
    return run


def _learn(
    work: Unfinished,
    source: Source,
    sections: Sections,
    machine: _Machine,
    progress: Progress | None,
    tell: Planned | None,
) -> Learnt:
    """Run the epochs, or those that are still to be run."""
    device = machine.device
    seen = _surveyed(source, sections.sampler, device)
    origin = source.origin()
    work.begin(
        {**sections.learning(), "data": _identity(source, origin)},
        what="geounet train",
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        options=sections.to_dict(),
    )
    settled = _settled(work, source, seen, sections, machine, tell)
    sections = replace(sections, sampler=settled.sampler, model=settled.model, training=settled.training)
    with seeded(sections.sampler.seed, device):
        held = cache_of_one(sections.sampler, machine.devices)
        batches = source.batches(seen, held, sections.training.batch)
        task = learner(
            source, seen, batches, sampler=sections.sampler, model=sections.model, loss=sections.loss,
            augment=sections.augment, training=sections.training, card=sections.card,
        )  # fmt: skip
        # what mapping asks of this machine is looked for now, not after the last epoch; nothing is mapped yet
        source.rehearse(task.segmenter, asdict(sections.inference) | {"force": True})
        chips = source.chips(held, sections.training.batch)
        fit_together(
            task, batches, chips, device, machine.precision, progress, work.folder, work.checkpoint,
            devices=machine.devices,
        )  # fmt: skip
    return Learnt(task, source, origin, seen, batches, chips, sections, settled, device)


def _surveyed(source: Source, sampler: Sampling, device: torch.device) -> Survey:
    """What the training pixels are like; there are some."""
    with seeded(sampler.seed, device):
        seen = source.survey(sampler)
    if not seen.stats.count or not seen.counts.counts.any():
        raise ConfigError(
            "the training scenes have no valid, labelled pixel: look at nodata, labels and ignored codes."
        )
    return seen


def _settled(
    work: Unfinished, source: Source, seen: Survey, sections: Sections, machine: _Machine, tell: Planned | None
) -> Settled:
    """Options as numbers: those that the training began with, as this machine may have other memory free by now."""
    if told := work.recall("settled"):
        settled = remembered(told, sections.sampler, sections.model, sections.training)
        if tell:
            tell(settled.plan)
        return settled
    settled = settle(
        source, seen, machine.device, machine.precision, sampler=sections.sampler, model=sections.model,
        loss=sections.loss, augment=sections.augment, training=sections.training, card=sections.card,
        devices=machine.devices, processes=machine.processes, tell=tell,
    )  # fmt: skip
    work.remember("settled", settled.to_dict())
    return settled


def _identity(source: Source, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What data a training is on, as plain values: their content, how it is read, and what belongs together."""
    groups = (
        [[split, [pair.group for pair in pairs]] for split, pairs in source.pairs.items()]
        if isinstance(source, PairSource)
        else []
    )
    return {
        **origin,
        "bands": list(source.bands),
        "types": {name: kind.to_dict() for name, kind in source.types.items()},
        "classes": source.legend.to_dicts(),
        "groups_hash": hashlib.sha256(repr(groups).encode()).hexdigest(),
    }
