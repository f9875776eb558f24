"""``geounet evaluate``."""

from pathlib import Path
from typing import Any, Literal

import click

from .shared import Talk, common, model_options, open_argument, overwrite_option, percent, scene_options


@click.command()
@click.argument("model")
@click.option("--scene", "scenes", multiple=True, required=True, help="Labelled scene (repeatable).")
@click.option("--labels", multiple=True, required=True, help="Its labels, a raster or polygons; one for each --scene.")
@click.option("--column", help="Column of the polygons that holds the class.")
@click.option("--layer", help="Layer of the polygons.")
@click.option("--ignore", type=int, multiple=True, help="Code that is no class (repeatable).")
@click.option("--background", type=int, help="Code of the ground outside of the polygons.")
@click.option("--aoi", help="Polygons of the ground that was labelled; outside of them nothing counts.")
@click.option(
    "--unknown",
    type=click.Choice(["raise", "ignore"]),
    default="raise",
    show_default=True,
    help="What to do with codes that the model does not know.",
)
@click.option("--json", "json_path", type=Path, help="Also write the scores as JSON.")
@scene_options
@model_options
@overwrite_option
@common
def evaluate(
    talk: Talk,
    model: str,
    scenes: tuple[str, ...],
    labels: tuple[str, ...],
    column: str | None,
    layer: str | None,
    ignore: tuple[int, ...],
    background: int | None,
    aoi: str | None,
    unknown: Literal["raise", "ignore"],
    json_path: Path | None,
    bands: Any,
    nodata: Any,
    resolution: Any,
    overwrite: bool,
    **options: Any,
) -> None:
    """Score MODEL on labelled scenes: IoU, F1, precision and recall of each class, and the confusion.

    \b
    geounet evaluate water --scene scene.tif --labels truth.tif --json scores.json
    geounet evaluate model.safetensors --scene a.tif --labels a.gpkg --column class
    geounet evaluate buildings.safetensors --scene a.tif --labels roofs.gpkg --background 0 --aoi mapped.gpkg
    """
    if len(scenes) != len(labels):
        raise click.UsageError(f"{len(scenes)} --scene and {len(labels)} --labels: give one --labels for each --scene.")
    from ..errors import LabelError
    from ..evaluation import evaluate as run
    from ..nn.segmenter import load
    from ..output import check_output
    from ..raster.labels import open_labels
    from ..raster.sampler import Pair

    if json_path:
        check_output(json_path, overwrite=overwrite)
    segmenter = load(model)
    pairs = []
    for scene, truth in zip(scenes, labels, strict=True):
        opened = open_argument([scene], bands, nodata, resolution)
        known = open_labels(
            truth,
            opened.grid,
            segmenter.legend,
            column=column,
            layer=layer,
            background=background,
            ignore=ignore,
            unknown=unknown,
            aoi=aoi,
        )
        talk.notes([*opened.notes, *known.notes])
        pairs.append(Pair(opened, known))
    with talk.progress("evaluating") as progress:
        scores = run(segmenter, pairs, progress=progress, **options)
    report = scores.report()
    if not report["pixels"]:
        raise LabelError(
            f"no pixel of {', '.join(scenes)} is both valid and labelled by {', '.join(labels)}: look at where they lie "
            "(geounet info), and at nodata and ignored codes."
        )
    talk.scores(f"{report['pixels']:,} pixels, {report['ignored']:,} ignored", report["classes"])
    talk.say(
        f"macro IoU {percent(report['macro']['iou'])}, macro F1 {percent(report['macro']['f1'])}, "
        f"accuracy {percent(report['micro']['accuracy'])}"
    )
    talk.table(
        "confusion, pixels (rows true, columns mapped)",
        ["", *scores.names],
        [[name, *(f"{count:,}" for count in row)] for name, row in zip(scores.names, report["confusion"], strict=True)],
    )
    if json_path:
        talk.say(str(scores.to_json(json_path, overwrite=overwrite)))
