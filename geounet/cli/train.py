"""``geounet train``."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import Talk, common, overwrite_option, percent

if TYPE_CHECKING:
    from ..config import LoadedConfig
    from ..training import Epoch, Plan, Run, Source


def shared_among_processes(command: Callable[..., None]) -> Callable[..., None]:
    """A command that `torchrun` or `srun` may start several times: it runs once, and its trainings in all processes."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        if not {"RANK", "SLURM_PROCID"} & os.environ.keys():  # and nothing heavy is imported
            return command(*args, **options)
        from ..training import run_or_help

        return run_or_help(lambda: command(*args, **options))

    return run


@click.command()
@click.argument("config", type=Path, required=False)
@click.option("-o", "--out", type=Path, help="Run folder to make.  [default: runs/CONFIG]")
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override the config (repeatable)."
)
@click.option(
    "--random-split", is_flag=True,
    help="Train a second time, on a split of the same scenes by chance, and show both scores side by side.",
)  # fmt: skip
@click.option(
    "--cross-validate", is_flag=True,
    help="Train a model for each of the config's split.folds, score it on that fold, and keep their mean as the model.",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True,
    help="Go on with a training that was interrupted, to the very same model; begin if there is none, end if it is done.",
)  # fmt: skip
@click.option("--plan", is_flag=True, help="Print what would be chosen for what is left open, and why, and end.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a config, for editors, and end.")
@overwrite_option
@common
@shared_among_processes
def train(
    talk: Talk,
    config: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    random_split: bool,
    cross_validate: bool,
    resume: bool,
    plan: bool,
    schema: bool,
    overwrite: bool,
) -> None:
    """Train a model from CONFIG, a YAML file; write a run folder with model, metrics, plots and the config as used.

    \b
    geounet train configs/water-hls.yaml
    geounet train my.yaml -o runs/second --set training.epochs=80 --set sampler.seed=1
    geounet train my.yaml --resume
    geounet train my.yaml --plan --set training.batch_size=auto --set training.learning_rate=auto
    geounet train my.yaml --random-split
    geounet train my.yaml --cross-validate --set split.by=group --set split.folds=4
    """
    from .. import config as configs

    if schema:
        click.echo(json.dumps(configs.schema(), indent=2))
        return
    if config is None:
        raise click.UsageError("Missing argument 'CONFIG'.")
    if cross_validate and random_split:
        raise click.UsageError("--cross-validate and --random-split split the scenes anew; give one of them.")
    if plan and cross_validate:
        raise click.UsageError("--plan is of one training, and --cross-validate makes several; leave one of them out.")
    if plan and resume:
        raise click.UsageError("--plan is of a training that begins; one that goes on keeps its own: drop --resume.")
    from ..training import PairSource

    loaded = configs.load_config(config, overrides)
    if cross_validate:
        from .folds import cross_validate as through_folds

        folder = out or Path("runs") / config.stem
        through_folds(
            talk, loaded, folder, overwrite=overwrite, resume=resume, used=_used(loaded),
            tell=lambda *told: _tell(talk, *told),
        )  # fmt: skip
        talk.say(str(folder / "model.safetensors"))
        return
    source = loaded.source()
    if isinstance(source, PairSource):
        talk.notes([note for pair in source.all_pairs for note in (*pair.scene.notes, *pair.truth.notes)])
        talk.notes(loaded.check_leaks(source.pairs))
        talk.say(", ".join(f"{split}: {len(chosen)} scenes" for split, chosen in source.pairs.items()))
    if plan:
        from ..training import planned

        _show_plan(talk, planned(source, loaded.config.sampler, loaded.config.model, loaded.config.training))
        return
    again = PairSource(loaded.shuffled(), source.types) if random_split else None  # refusals come before the hours
    result = _run(talk, loaded, source, out or Path("runs") / config.stem, overwrite=overwrite, resume=resume)
    if again is not None:
        talk.say("once more, on a split by chance")
        by_chance = _run(talk, loaded, again, result.folder / "random_split", overwrite=overwrite, resume=resume)
        _compare(talk, result, by_chance)
    talk.say(str(result.folder / "model.safetensors"))


def _run(talk: Talk, loaded: "LoadedConfig", source: "Source", out: Path, *, overwrite: bool, resume: bool) -> "Run":
    from ..report import plot_run
    from ..training import train as run

    used = _used(loaded)

    def finish(folder: Path, result: "Run") -> None:
        (folder / "config.yaml").write_text(used, encoding="utf-8")
        plot_run(folder, result)

    with talk.progress("training") as progress:
        result = run(
            source, out, **loaded.sections(), overwrite=overwrite, resume=resume,
            progress=lambda epoch: _tell(talk, epoch, progress), finish=finish,
            planned=lambda plan: _show_plan(talk, plan),
        )  # fmt: skip
    _say_what_was_found(talk, loaded, result)
    for share in getattr(result.model.network, "stem_shares", ()):
        talk.say(f"first layer: {share.band} from {share.source or 'zero'} × {share.weight:.3g}")
    waits = [row["data_wait"] for row in result.history]
    talk.say(f"waited for data {sum(waits) / len(waits):.1%} of the training time")
    for split, scores in (("validate", result.validation), ("test", result.test)):
        if scores:
            talk.scores(split, scores.report()["classes"])
    return result


def _show_plan(talk: Talk, plan: "Plan") -> None:
    """Show what was chosen and why, and what is still to be tried."""
    rows = [[choice.what, str(choice.value), choice.why] for choice in plan.choices]
    if plan.training.learning_rate == "auto":
        rows.append(["training.learning_rate", "auto", "found by trying, when training begins"])
    talk.table("plan", ["what", "chosen", "why"], rows, words=True)


def _say_what_was_found(talk: Talk, loaded: "LoadedConfig", result: "Run") -> None:
    """Say what trying settled, which the plan could not know."""
    asked = loaded.config.training
    tried = {f"training.{name}" for name in ("batch_size", "learning_rate") if getattr(asked, name) == "auto"}
    for choice in result.plan.choices if result.plan else ():
        if choice.what in tried:
            talk.say(f"{choice.what} {choice.value:g}: {choice.why}")


def _used(loaded: "LoadedConfig") -> str:
    """The config as used, to be written down."""
    import yaml

    return yaml.safe_dump(dict(loaded.values), sort_keys=False, allow_unicode=True)


def _compare(talk: Talk, as_configured: "Run", by_chance: "Run") -> None:
    """Show validation IoU of both splits side by side."""
    one, two = (run.validation.report()["classes"] for run in (as_configured, by_chance))
    rows = [[name, percent(one[name]["iou"]), percent(two[name]["iou"])] for name in one]
    rows.append(["mean", percent(as_configured.validation.miou), percent(by_chance.validation.miou)])
    talk.table("validation IoU: the split of the config, and one by chance", ["class", "config", "chance"], rows)


def _tell(talk: Talk, epoch: "Epoch", progress: Callable[[float], None]) -> None:
    progress(epoch.epoch / epoch.epochs)
    if talk.verbose:
        values = epoch.values
        talk.say(
            f"epoch {epoch.epoch}/{epoch.epochs}  loss {values['loss']:.4f}  validation {values['val_loss']:.4f}  "
            f"mIoU {values['val_miou']:.4f}  waited for data {values['data_wait']:.0%}{'  *' if epoch.best else ''}"
        )
