"""``geounet polygonize``."""

from pathlib import Path

import click

from .shared import Talk, common, hectares, overwrite_option


@click.command()
@click.argument("mask")
@click.option(
    "-o", "--out", type=Path, help="Vectors to write (.gpkg .fgb .parquet .geojson .shp).  [default: MASK.gpkg]"
)
@click.option("--class", "classes", multiple=True, help="Keep this class only, by name or code (repeatable).")
@click.option(
    "--connectivity", type=click.Choice(["4", "8"]), default="4", show_default=True,
    help="Neighbours that belong together: sharing an edge, or also a corner.",
)  # fmt: skip
@overwrite_option
@common
def polygonize(
    talk: Talk, mask: str, out: Path | None, classes: tuple[str, ...], connectivity: str, overwrite: bool
) -> None:
    """Trace MASK, any class raster, into polygons with class, name, area and perimeter.

    \b
    geounet polygonize map.tif
    geounet polygonize map.tif -o water.fgb --class water
    """
    from ..errors import SceneError
    from ..output import check_distinct
    from ..raster.vector import check_vector
    from ..raster.vector import polygonize as run

    if Path(mask).is_dir():
        raise SceneError(f"{mask} is a folder; give the class raster to trace.")
    out = check_vector(out or Path(mask).with_suffix(".gpkg"), overwrite=overwrite)
    check_distinct([out], [mask])
    wanted = [int(one) if one.lstrip("-").isdigit() else one for one in classes]
    polygons = run(mask, classes=wanted or None, connectivity=8 if connectivity == "8" else 4)
    path = polygons.to_file(out, overwrite=overwrite)
    frame = polygons.frame
    groups = frame.groupby("name", sort=False)["area_m2"]
    talk.table(
        f"{len(polygons):,} polygons",
        ["class", "polygons", "hectares"],
        [[str(name), f"{len(areas):,}", hectares(areas.sum(min_count=1))] for name, areas in groups],
    )
    talk.say(str(path))
