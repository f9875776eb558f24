"""``geounet train``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .shared import Talk, common, overwrite_option, percent

if TYPE_CHECKING:
    from ..config import LoadedConfig
    from ..training import Epoch, Run, Source


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
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a config, for editors, and end.")
@overwrite_option
@common
def train(
    talk: Talk,
    config: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    random_split: bool,
    schema: bool,
    overwrite: bool,
) -> None:
    """Train a model from CONFIG, a YAML file; write a run folder with model, metrics, plots and the config as used.

    \b
    geounet train configs/water-hls.yaml
    geounet train my.yaml -o runs/second --set training.epochs=80 --set sampler.seed=1
    geounet train my.yaml --random-split
    """
    from .. import config as configs

    if schema:
        click.echo(json.dumps(configs.schema(), indent=2))
        return
    if config is None:
        raise click.UsageError("Missing argument 'CONFIG'.")
    from ..training import PairSource

    loaded = configs.load_config(config, overrides)
    source = loaded.source()
    if isinstance(source, PairSource):
        talk.notes([note for pair in source.all_pairs for note in (*pair.scene.notes, *pair.truth.notes)])
        talk.notes(loaded.check_leaks(source.pairs))
        talk.say(", ".join(f"{split}: {len(chosen)} scenes" for split, chosen in source.pairs.items()))
    again = PairSource(loaded.shuffled(), source.types) if random_split else None  # refusals come before the hours
    result = _run(talk, loaded, source, out or Path("runs") / config.stem, overwrite=overwrite)
    if again is not None:
        by_chance = _run(talk, loaded, again, result.folder / "random_split", overwrite=overwrite)
        _compare(talk, result, by_chance)
    talk.say(str(result.folder / "model.safetensors"))


def _run(talk: Talk, loaded: "LoadedConfig", source: "Source", out: Path, *, overwrite: bool) -> "Run":
    import yaml

    from ..report import plot_run
    from ..training import train as run

    used = yaml.safe_dump(dict(loaded.values), sort_keys=False, allow_unicode=True)

    def finish(folder: Path, result: "Run") -> None:
        (folder / "config.yaml").write_text(used, encoding="utf-8")
        plot_run(folder, result)

    with talk.progress("training") as progress:
        result = run(
            source, out, **loaded.sections(), overwrite=overwrite,
            progress=lambda epoch: _tell(talk, epoch, progress), finish=finish,
        )  # fmt: skip
    for share in getattr(result.model.network, "stem_shares", ()):
        talk.say(f"first layer: {share.band} from {share.source or 'zero'} × {share.weight:.3g}")
    waits = [row["data_wait"] for row in result.history]
    talk.say(f"waited for data {sum(waits) / len(waits):.1%} of the training time")
    for split, scores in (("validate", result.validation), ("test", result.test)):
        if scores:
            talk.scores(split, scores.report()["classes"])
    return result


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
