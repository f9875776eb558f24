"""``geounet demo``."""

from pathlib import Path

import click

from .shared import Talk, common, percent


@click.command()
@click.option("-o", "--out", type=Path, default=Path("geounet-demo"), show_default=True, help="Folder to make.")
@click.option("--seed", type=int, default=7, show_default=True, help="Of the made-up scenes and the training.")
@click.option("-f", "--overwrite", is_flag=True, help="Replace the folder of an earlier demo.")
@common
def demo(talk: Talk, out: Path, seed: int, overwrite: bool) -> None:
    """Make two scenes, train a small U-Net on one for about a minute, map the other.

    \b
    geounet demo
    geounet demo -o /tmp/demo --seed 3
    """
    from ..demo import run

    with talk.progress("demo") as progress:
        result = run(out, seed=seed, overwrite=overwrite, progress=progress)
    talk.table(
        "the mapped scene, against its labels", ["class", "IoU"], [[k, percent(v)] for k, v in result.iou.items()]
    )
    width = max(map(len, result.files))
    for name, path in result.files.items():
        talk.say(f"{name:<{width}}  {path}")
