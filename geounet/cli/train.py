"""``geounet train``."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .shared import Talk, common, overwrite_option

if TYPE_CHECKING:
    from ..raster.sampler import Pair
    from ..training import Epoch, Run


@click.command()
@click.argument("config", type=Path, required=False)
@click.option("-o", "--out", type=Path, help="Run folder to make.  [default: runs/CONFIG]")
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override the config (repeatable)."
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a config, for editors, and end.")
@overwrite_option
@common
def train(
    talk: Talk, config: Path | None, out: Path | None, overrides: tuple[str, ...], schema: bool, overwrite: bool
) -> None:
    """Train a model from CONFIG, a YAML file; write a run folder with model, metrics, plots and the config as used.

    \b
    geounet train configs/water-hls.yaml
    geounet train my.yaml -o runs/second --set training.epochs=80 --set sampler.seed=1
    """
    from .. import config as configs

    if schema:
        click.echo(json.dumps(configs.schema(), indent=2))
        return
    if config is None:
        raise click.UsageError("Missing argument 'CONFIG'.")
    import yaml

    from ..report import plot_run
    from ..training import train as run

    loaded = configs.load_config(config, overrides)
    pairs = loaded.pairs()
    talk.notes([note for split in pairs.values() for pair in split for note in (*pair.scene.notes, *pair.labels.notes)])
    talk.notes(shared_scenes(pairs))
    talk.say(", ".join(f"{split}: {len(chosen)} scenes" for split, chosen in pairs.items()))
    used = yaml.safe_dump(dict(loaded.values), sort_keys=False, allow_unicode=True)

    def finish(folder: Path, result: "Run") -> None:
        (folder / "config.yaml").write_text(used, encoding="utf-8")
        plot_run(folder, result)

    with talk.progress("training") as progress:
        result = run(
            pairs, out or Path("runs") / config.stem, **loaded.sections(), overwrite=overwrite,
            progress=lambda epoch: _tell(talk, epoch, progress), finish=finish,
        )  # fmt: skip
    for split, scores in (("validate", result.validation), ("test", result.test)):
        if scores:
            talk.scores(split, scores.report()["classes"])
    talk.say(str(result.folder / "model.safetensors"))


def shared_scenes(pairs: Mapping[str, Sequence["Pair"]]) -> list[str]:
    """A sentence for each scene that stands in two splits, whose scores then say less than they seem to."""
    splits: dict[str, list[str]] = {}
    for split, chosen in pairs.items():
        for source in {pair.scene.source for pair in chosen}:
            splits.setdefault(source, []).append(split)
    return [
        f"{source} is used to {' and to '.join(names)}: scores on ground that was trained on are too good."
        for source, names in splits.items()
        if len(names) > 1
    ]


def _tell(talk: Talk, epoch: "Epoch", progress: Callable[[float], None]) -> None:
    progress(epoch.epoch / epoch.epochs)
    if talk.verbose:
        values = epoch.values
        talk.say(
            f"epoch {epoch.epoch}/{epoch.epochs}  loss {values['loss']:.4f}  validation {values['val_loss']:.4f}  "
            f"mIoU {values['val_miou']:.4f}{'  *' if epoch.best else ''}"
        )
