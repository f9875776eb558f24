"""Cross-validation: a model for each part of the scenes that it has not seen, and all of them as one."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..core.bandtypes import BandType, Kind
from ..core.metrics import Confusion
from ..errors import ConfigError, OutputExistsError
from ..evaluation import Evaluation
from ..nn.segmenter import ModelInfo, Segmenter, ensemble
from ..nn.segmenter.joining import check_pixel_sizes
from ..raster.sampler import Pair
from ..record import record, versions, write_json
from .epochs.task import Epoch
from .outcome.folder import MODEL, RECORD, check_run_folder, put
from .outcome.locking import LOCK, lock
from .outcome.result import TEST, VALIDATION, Run, evaluation_in, finished
from .outcome.scoring import headline
from .outcome.unfinished import refuse_full_disk
from .run import Finish, train
from .sections import Sections
from .source.data import PairSource, Source
from .together.meeting import launched_team

_log = logging.getLogger(__name__)

SUFFIX = ".folds"
"""Of the folder beside a run's name in which its folds gather until all are there."""
INSIDE, REPLACED = "run", "replaced"

Fold: TypeAlias = Mapping[str, Sequence[Pair]] | Source
FoldProgress: TypeAlias = Callable[[int, Epoch], None]
FoldFinish: TypeAlias = Callable[[Path, "Run | CrossValidation"], None]


@dataclass(frozen=True)
class CrossValidation:
    """A finished cross-validation."""

    folder: Path
    model: Segmenter = field(repr=False)
    """The ensemble of the folds' models."""
    folds: tuple[Run, ...]
    validation: Evaluation
    """Out of fold: of each scene by the model that was not trained on it, over the scenes of all folds. Pixels that are
    ignored count in each fold that shares their scene."""
    test: Evaluation | None
    """Of the ensemble."""

    def report(self) -> dict[str, Any]:
        """Scores out of fold as plain values (``metrics.json``); beside them, under ``folds``, how folds differ."""
        reports = [run.validation.report() for run in self.folds]
        return self.validation.report() | {
            "folds": {
                "count": len(self.folds),
                "classes": {
                    name: {"iou": spread([one["classes"][name]["iou"] for one in reports])}
                    for name in self.validation.names
                },
                "macro": {key: spread([one["macro"][key] for one in reports]) for key in ("iou", "f1")},
            }
        }


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean, smallest and largest of the scores that are defined.

    Examples
    --------
    >>> spread([0.25, None, 0.75])
    {'mean': 0.5, 'min': 0.25, 'max': 0.75}
    """
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "min": None, "max": None}
    return {"mean": float(np.mean(known)), "min": min(known), "max": max(known)}


def cross_validate(
    folds: Sequence[Fold],
    out: str | os.PathLike[str],
    *,
    types: Mapping[str, BandType | Kind] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: FoldProgress | None = None,
    finish: FoldFinish | None = None,
    **sections: Any,
) -> CrossValidation:
    """Models that were each validated on scenes of their own, and their mean as one model, in a run folder.

    Where scenes are few and unlike each other, a score on one split of them says little; here each scene is validated on
    once. The models are kept as an ensemble, instead of one that is trained anew on all scenes [1]_.

    Parameters
    ----------
    folds : sequence of mapping of str to sequence of Pair, or of Source
        As `train` takes it, fold by fold, such as `LoadedConfig.folds` cuts them: what is validated on in one fold is
        trained on in the others. The ``test`` is the same in all folds, or there is none.
    out : path
        The run folder to make. ``fold-0``, ``fold-1``, … are the run folders of the folds; beside them are
        ``model.safetensors``, the ensemble; ``metrics.json``, its members' scores out of fold, and under ``folds`` their
        mean and range; ``metrics_test.json``, the ensemble's own; ``run.json``. Until it is whole, the folds gather
        beside it, in ``OUT.folds``.
    types : mapping of str to BandType or its kind, optional
        As of `train`.
    overwrite : bool
        Replace an earlier run folder when the new one is whole. Folds of an interrupted cross-validation are dropped,
        unless `resume` is set.
    resume : bool
        Go on with one of this name that was interrupted: folds that are finished stay, the one under way goes on from
        its last epoch. If there is none, begin. If the run is there and `overwrite` is not set, return it.
    progress : callable, optional
        Told the number of the fold, from 0, and the scores after each epoch.
    finish : callable, optional
        Fills a folder further before it gets its name: each fold's, told its `Run`, and at last the whole one.
    **sections
        The sections of a config: `sampler`, `model`, `loss`, `augment`, `training`, `inference` and `card` of `train`.
        All folds have the same seed, so each model is the one that `train` makes of the same scenes.

    Returns
    -------
    CrossValidation

    Raises
    ------
    ConfigError
        There are fewer than two folds, or they differ in bands, classes, pixel size or test scenes; a fold that is
        finished was trained on other scenes; or as `train`.
    OutputExistsError
        The folder is there and `overwrite` is not set, or it is no run folder; there are folds of an interrupted
        cross-validation, and neither `resume` nor `overwrite` is set; or another process is at it.
    DeviceError, OutputError
        As `train`.

    References
    ----------
    .. [1] F. Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation,
       Nature Methods 18, 2021, doi:10.1038/s41592-020-01008-z.
    """
    if launched_team().rank:
        raise ConfigError(
            "cross_validate is called by one process alone: under torchrun or srun, use the command geounet train "
            "--cross-validate, which shares each training among them."
        )
    options, path = Sections.of(**sections), Path(out)
    if resume and not overwrite and (found := _whole(path, len(folds), options)):
        return found
    _check(folds, types)
    with _gathering(path, overwrite=overwrite, resume=resume) as folder:
        runs = []
        for number, fold in enumerate(folds):
            told, filled = _of_fold(number, progress), _at(path / _name(number), finish)
            run = _trained(fold, folder / _name(number), options, types, told, filled)
            runs.append(replace(run, folder=path / _name(number)))
        found = _joined(path, runs, folds[0], types, options)
        _write(folder, found, options)
        if finish:
            finish(folder, found)
    return found


def _name(number: int) -> str:
    return f"fold-{number}"


def _trained(
    fold: Fold,
    folder: Path,
    options: Sections,
    types: Mapping[str, BandType | Kind] | None,
    progress: Callable[[Epoch], None] | None,
    finish: Finish | None,
) -> Run:
    """The run of a fold, trained now or, as far as it was, before."""
    before = folder.exists()
    run = train(fold, folder, types=types, resume=True, progress=progress, finish=finish, **vars(options))
    if not before:
        return run
    source = _source(fold, types)
    told = run.model.info.provenance.get("data_hash")
    if isinstance(source, PairSource) and told != source.origin()["data_hash"]:
        raise ConfigError(
            f"{folder} was trained on other scenes than this fold has now, or they have changed since: put them back, or "
            "begin anew (-f)."
        )
    # the folder keeps counts over all scenes alone
    return replace(run, validation=source.evaluate(run.model, "validate", _mapping(options)))


def _mapping(options: Sections) -> dict[str, Any]:
    return asdict(options.inference) | {"force": True}  # doubts are about strangers, not the run's own scenes


def _joined(
    out: Path, runs: Sequence[Run], fold: Fold, types: Mapping[str, BandType | Kind] | None, options: Sections
) -> CrossValidation:
    """The folds' models as one, scored on the test that all folds share."""
    scores = {"out-of-fold": pooled([run.validation for run in runs])}
    model = ensemble([run.model for run in runs], _info(runs, options, scores))
    source = _source(fold, types)
    if "test" in source.splits:
        scores["test"] = source.evaluate(model, "test", _mapping(options))
        model = Segmenter(model.network, model.bands, _info(runs, options, scores)).eval()
    return CrossValidation(out, model, tuple(runs), scores["out-of-fold"], scores.get("test"))


def _whole(out: Path, folds: int, options: Sections) -> CrossValidation | None:
    """The cross-validation that is in a folder already, of so many folds; None if there is none."""
    found = [path.name for path in out.glob("fold-*")]
    if sorted(found) != sorted(map(_name, range(folds))) or not all((out / name).is_file() for name in (MODEL, RECORD)):
        return None
    runs = [run for name in map(_name, range(folds)) if (run := finished(out / name, options))]
    model = Segmenter.load(out / MODEL)
    test = evaluation_in(out / TEST, model.legend.names) if (out / TEST).exists() else None
    return CrossValidation(out, model, tuple(runs), pooled([run.validation for run in runs]), test)


@contextmanager
def _gathering(out: Path, *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """Folder in which folds gather, to oneself; when the block ends well, it becomes `out`."""
    place = out.resolve()  # a link to a run folder stays a link
    beside = place.with_name(place.name + SUFFIX)
    check_run_folder(out, place, overwrite)
    if beside.exists() and not (beside.is_dir() and ((beside / LOCK).exists() or not any(beside.iterdir()))):
        raise OutputExistsError(f"{beside} is where folds would gather, and holds something else; rename it.")
    with lock(beside, out):
        folder = beside / INSIDE
        if folder.exists() and not resume:
            if not overwrite:
                raise OutputExistsError(
                    f"an earlier cross-validation of {out} was interrupted; its folds are in {folder}. Go on with them "
                    "(--resume), or begin anew (-f)."
                )
            shutil.rmtree(folder)
        shutil.rmtree(beside / REPLACED, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if not path.is_dir():  # an earlier attempt has joined the folds, and came no further
                path.unlink()
        try:
            yield folder
            check_run_folder(out, place, overwrite)
            put(folder, place, beside / REPLACED)
        except BaseException as error:
            if folder.exists():  # else it has its name already
                if any(folder.iterdir()):
                    _log.warning("what is finished is kept in %s; the same once more with --resume goes on.", folder)
                else:
                    folder.rmdir()
            refuse_full_disk(error, folder)
            raise


def pooled(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Scores over the pixels of all evaluations."""
    names = evaluations[0].names
    scenes: dict[str, Confusion] = {}
    for one in evaluations:
        for source, confusion in one.scenes.items():
            scenes[source] = scenes.get(source, Confusion.empty(len(names))) + confusion
    return Evaluation(names, sum((one.confusion for one in evaluations), start=Confusion.empty(len(names))), scenes)


def _check(folds: Sequence[Fold], types: Mapping[str, BandType | Kind] | None) -> None:
    """Refuse folds of which no ensemble could be made, before hours are spent on them."""
    if len(folds) < 2:
        raise ConfigError("a cross-validation has two folds or more.")
    sources = [_source(fold, types) for fold in folds]
    for what, facts in (
        ("bands", [source.bands for source in sources]),
        ("classes", [source.legend.names for source in sources]),
        ("test scenes", [_test_scenes(source) for source in sources]),
    ):
        for number, fact in enumerate(facts):
            if fact != facts[0]:
                raise ConfigError(
                    f"folds have the same {what}; fold 0 has {', '.join(facts[0]) or 'none'}, fold {number} "
                    f"{', '.join(fact) or 'none'}."
                )
    check_pixel_sizes([source.pixel_size for source in sources], "training scenes of folds")


def _test_scenes(source: Source) -> tuple[str, ...]:
    """What the ensemble is scored on: no fold may have trained on it."""
    if isinstance(source, PairSource):
        return tuple(pair.scene.source for pair in source.pairs.get("test", ()))
    return ("test",) if "test" in source.splits else ()


def _source(fold: Fold, types: Mapping[str, BandType | Kind] | None) -> Source:
    """A source of its own for each use: what it keeps in memory goes with it."""
    return fold if isinstance(fold, Source) else PairSource(fold, types)


def _of_fold(number: int, progress: FoldProgress | None) -> Callable[[Epoch], None] | None:
    return None if progress is None else lambda epoch: progress(number, epoch)


def _at(place: Path, finish: FoldFinish | None) -> Finish | None:
    """What fills the folder of a fold, told where the fold is to be in the end."""
    return None if finish is None else lambda folder, run: finish(folder, replace(run, folder=place))


def _info(runs: Sequence[Run], options: Sections, scores: Mapping[str, Evaluation]) -> ModelInfo:
    """What the ensemble says of itself."""
    told = [run.model.info for run in runs]
    hashes = "".join(str(info.provenance["data_hash"]) for info in told)
    kept = ("split", "epochs", "best_epoch", "metrics")
    provenance = {
        "data": options.card.data,
        "split": {"folds": len(runs)},
        "data_hash": hashlib.sha256(hashes.encode()).hexdigest(),
        "seed": options.sampler.seed,
        "members": [
            {"fold": fold, "hash": run.model.hash, **{key: run.model.info.provenance[key] for key in kept}}
            for fold, run in enumerate(runs)
        ],
        "versions": versions(),
        "metrics": {split: headline(one) for split, one in scores.items()},
        "licence": options.card.licence,
        "citation": options.card.citation,
    }
    sizes = [info.pixel_size for info in told if info.pixel_size is not None]
    return replace(told[0], pixel_size=float(np.median(sizes)) if sizes else None, provenance=provenance)


def _write(folder: Path, found: CrossValidation, options: Sections) -> None:
    """Write the whole beside the folds."""
    found.model.save(folder / MODEL)
    write_json(folder / VALIDATION, found.report())
    if found.test:
        found.test.to_json(folder / TEST)
    about = found.model.info
    facts = record(
        what="geounet train --cross-validate", versions=versions(),
        model={"name": about.name, "hash": found.model.hash}, options=options.to_dict(), provenance=about.provenance,
    )  # fmt: skip
    write_json(folder / RECORD, facts)
