"""``geounet predict``."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .shared import (
    Talk,
    common,
    hectares,
    model_options,
    open_argument,
    overwrite_option,
    parse_bounds,
    parse_option,
    scene_options,
)


@click.command()
@click.argument("scene", nargs=-1, required=True)
@click.option(
    "-m", "--model", "models", multiple=True,
    help="Trained model, or a bundled one; of several (repeatable) the mean.  [default: the bundled one that reads the bands]",
)  # fmt: skip
@click.option("-o", "--out", type=Path, help="Mask to write.  [default: SCENE_mask.tif beside the scene]")
@click.option("--polygons", type=Path, help="Also write the mask as vectors (.gpkg .fgb .parquet .geojson .shp).")
@click.option("--probabilities", type=Path, help="Also write each class's probability, one band a class.")
@scene_options
@click.option(
    "--bbox", type=parse_bounds, metavar="W,S,E,N", help="Map this part only, in the scene's CRS or --bbox-crs."
)
@click.option("--bbox-crs", help="CRS of --bbox, such as EPSG:4326.")
@model_options
@click.option(
    "--co",
    type=parse_option,
    metavar="NAME=VALUE",
    multiple=True,
    help="GDAL creation option of the mask (repeatable).",
)
@overwrite_option
@common
def predict(
    talk: Talk,
    scene: tuple[str, ...],
    models: tuple[str, ...],
    out: Path | None,
    polygons: Path | None,
    probabilities: Path | None,
    bands: Any,
    nodata: Any,
    resolution: Any,
    bbox: tuple[float, float, float, float] | None,
    bbox_crs: str | None,
    co: tuple[tuple[str, str], ...],
    overwrite: bool,
    **options: Any,
) -> None:
    """Write the class of every pixel of SCENE to a Cloud-Optimized GeoTIFF.

    SCENE is anything GDAL opens, a quoted glob or folder of one-band files, or several files that are the bands
    of one scene.

    \b
    geounet predict scene.tif
    geounet predict scene.tif -m model.safetensors -o map.tif --polygons map.gpkg
    geounet predict scene.tif -m first.safetensors -m second.safetensors --tta d4
    geounet predict B2.tif B3.tif B4.tif --bands blue,green,red -m rgb.safetensors
    """
    from ..inference import choose_model
    from ..inference import predict as run
    from ..output import check_distinct, check_tiff
    from ..raster.vector import check_vector, polygonize

    if bbox_crs is not None and bbox is None:
        raise click.UsageError("--bbox-crs is the CRS of --bbox, which is not given.")
    opened = open_argument(scene, bands, nodata, resolution)
    out = out or beside(scene[0])
    outputs = [check_tiff(path, overwrite=overwrite) for path in (out, probabilities) if path]
    if polygons:
        outputs.append(check_vector(polygons, overwrite=overwrite))
    check_distinct(outputs, opened.paths)
    prediction = run(opened, _model(models) or choose_model(opened), **options)
    if bbox is not None:
        prediction = prediction.crop(opened.grid.window_of(bbox, _crs(bbox_crs)))
    talk.notes([*opened.notes, *prediction.doubts])
    with talk.progress("mapping") as progress:
        mask = prediction.to_geotiff(
            out, probabilities=probabilities, overwrite=overwrite, creation_options=dict(co), progress=progress
        )
    written = [str(mask.path)]
    if polygons:
        written.append(str(polygonize(mask, legend=mask.legend).to_file(polygons, overwrite=overwrite)))
    if probabilities:
        written.append(str(probabilities))
    areas = mask.areas_m2 or {}
    talk.table(
        f"{prediction.model.info.name}, {mask.seconds['whole']:.1f} s",
        ["class", "pixels", "hectares"],
        [[name, f"{count:,}", hectares(areas[name]) if name in areas else "–"] for name, count in mask.pixels.items()],
    )
    if talk.verbose:
        talk.table("busy seconds", list(mask.seconds), [[f"{value:.2f}" for value in mask.seconds.values()]])
    for path in written:
        talk.say(path)


def _model(names: Sequence[str]) -> Any:
    """What to map with: a model's name, several models as one, or None if none is named."""
    if len(names) < 2:
        return next(iter(names), None)
    from ..nn.segmenter import ensemble

    return ensemble(names)


def beside(scene: str) -> Path:
    """Where the mask goes by default: SCENE_mask.tif beside the scene, or here if that folder is read-only."""
    path = Path(os.path.abspath(scene))  # noqa: PTH100 - resolve() would follow links
    stem = re.sub(r"[*?\[\]]+", "", path.stem).strip("._-") or path.parent.name or "scene"
    local = path.parent.is_dir() and os.access(path.parent, os.W_OK)
    return (path.parent if local else Path.cwd()) / f"{stem}_mask.tif"


def _crs(text: str | None) -> Any:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_user_input(text) if text else None
    except CRSError as error:
        raise click.BadParameter(f"{text!r} is not a CRS: {error}", param_hint="--bbox-crs") from error
