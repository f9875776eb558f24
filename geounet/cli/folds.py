"""``geounet train --cross-validate``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared import Talk, percent

if TYPE_CHECKING:
    from ..config import LoadedConfig
    from ..raster.sampler import Pair
    from ..training import CrossValidation, Epoch, Run


def cross_validate(
    talk: Talk,
    loaded: "LoadedConfig",
    out: Path,
    *,
    overwrite: bool,
    resume: bool,
    used: str,
    tell: Callable[["Epoch", Callable[[float], None]], None],
) -> "CrossValidation":
    """Train a model a fold, and say how they and their mean did.

    Parameters
    ----------
    used : str
        The config as used, which each folder gets.
    tell : callable
        Says what an epoch brought.
    """
    from ..report import plot_confusion, plot_run
    from ..training import CrossValidation
    from ..training import cross_validate as run

    folds = loaded.folds()
    _introduce(talk, loaded, folds)

    def finish(folder: Path, result: "Run | CrossValidation") -> None:
        (folder / "config.yaml").write_text(used, encoding="utf-8")
        if isinstance(result, CrossValidation):
            plot_confusion(result.validation.confusion, result.validation.names, folder / "confusion.png")
        else:
            plot_run(folder, result)

    with talk.progress("training") as progress:

        def told(fold: int, epoch: "Epoch") -> None:
            tell(epoch, lambda part: progress((fold + part) / len(folds)))

        result = run(
            folds, out, **loaded.sections(), types=loaded.types, overwrite=overwrite, resume=resume,
            progress=told, finish=finish,
        )  # fmt: skip
    _conclude(talk, result)
    return result


def _introduce(talk: Talk, loaded: "LoadedConfig", folds: Sequence[Mapping[str, Sequence["Pair"]]]) -> None:
    pairs = [pair for chosen in folds[0].values() for pair in chosen]
    talk.notes([note for pair in pairs for note in (*pair.scene.notes, *pair.truth.notes)])
    talk.notes([note for fold in folds for note in loaded.check_leaks(fold)])
    for number, fold in enumerate(folds):
        counts = ", ".join(f"{split}: {len(chosen)} scenes" for split, chosen in fold.items())
        talk.say(f"fold {number}: {counts}")


def _conclude(talk: Talk, result: "CrossValidation") -> None:
    report = result.report()
    talk.scores("out of fold", report["classes"])
    rows = {name: (report["classes"][name]["iou"], one["iou"]) for name, one in report["folds"]["classes"].items()}
    rows["mean"] = report["macro"]["iou"], report["folds"]["macro"]["iou"]
    talk.table(
        f"IoU over {len(result.folds)} folds",
        ["class", "all pixels", "mean of folds", "from", "to"],
        [[name, percent(whole), *_spread(folds)] for name, (whole, folds) in rows.items()],
    )
    if result.test:
        talk.scores("test, the folds' models as one", result.test.report()["classes"])
        singles = [percent(run.test.miou) for run in result.folds if run.test]
        talk.say(f"test mIoU {percent(result.test.miou)}; of each fold's model {', '.join(singles)}")


def _spread(values: Mapping[str, Any]) -> list[str]:
    return [percent(values[key]) for key in ("mean", "min", "max")]
