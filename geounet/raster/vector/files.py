"""Vector files, their format picked by suffix."""

import json
import shutil
import tempfile
from pathlib import Path

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from ...errors import OutputError
from ...output import atomic, check_output
from ..edges import densified

DRIVERS = {
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
    ".geojson": "GeoJSON",
    ".shp": "ESRI Shapefile",
}
"""What GDAL calls the format of each suffix."""
GEOJSON_DIGITS = 7
"""Decimals of a degree: 1 cm, as RFC 7946 section 11.2 advises."""


def check_vector(path: Path, *, overwrite: bool) -> Path:
    """Return the path, if vectors may be written there.

    Raises
    ------
    OutputError, OutputExistsError
        As `check_output`, or the suffix stands for no known format.
    """
    if path.suffix.lower() not in DRIVERS:
        raise OutputError(
            f"cannot write {path}: {path.suffix or 'a name without a suffix'} is no vector format that geounet knows; "
            f"use one of {', '.join(DRIVERS)}."
        )
    return check_output(path, overwrite=overwrite)


def write(frame: geopandas.GeoDataFrame, path: Path, *, overwrite: bool, layer: str | None) -> Path:
    """Write a frame in the format of the path's suffix; return the path.

    Raises
    ------
    OutputError, OutputExistsError
        As `Polygons.to_file`.
    """
    suffix = check_vector(path, overwrite=overwrite).suffix.lower()
    if suffix == ".shp":
        return _write_shapefile(frame, path, overwrite=overwrite)
    with atomic(path, overwrite=overwrite) as part:
        if suffix == ".parquet":
            frame.to_parquet(part, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")
        elif suffix == ".geojson":
            _write_geojson(frame if frame.crs is None else _rfc7946(frame, path), part, layer or path.stem)
        else:
            frame.to_file(part, driver=DRIVERS[suffix], layer=layer or path.stem)
    return path


def _write_shapefile(frame: geopandas.GeoDataFrame, path: Path, *, overwrite: bool) -> Path:
    """Write the files of a shapefile; the .shp comes last, so that it never stands without the others."""
    check_output(path, overwrite=overwrite)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", suffix=".part", dir=path.parent))
    try:
        renamed = frame.rename(columns={"perimeter_m": "perim_m"})
        renamed.to_file(folder / f"{path.stem}.shp", driver=DRIVERS[".shp"], encoding="UTF-8")
        check_output(path, overwrite=overwrite)
        for old in (path, *(path.with_suffix(s) for s in (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx"))):
            old.unlink(missing_ok=True)
        for new in sorted(folder.iterdir(), key=lambda file: file.suffix == ".shp"):
            new.replace(path if new.suffix == ".shp" else path.with_suffix(new.suffix))
    finally:
        shutil.rmtree(folder)
    return path


def _write_geojson(frame: geopandas.GeoDataFrame, path: Path, layer: str) -> None:
    """Write a feature a line; GDAL's driver takes minutes for a polygon with a million corners."""
    properties = frame.drop(columns=frame.geometry.name)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"type": "FeatureCollection", "name": {json.dumps(layer, ensure_ascii=False)}, "features": [')
        before = "\n"
        for start in range(0, len(frame), 10_000):
            stop = start + 10_000
            shapes = shapely.to_geojson(frame.geometry.to_numpy()[start:stop])
            rows = properties.iloc[start:stop].astype(object)
            rows = rows.where(rows.notna(), None).to_dict("records")  # JSON has no NaN
            for geometry, row in zip(shapes, rows, strict=True):
                said = json.dumps(row, ensure_ascii=False)
                file.write(f'{before}{{"type": "Feature", "properties": {said}, "geometry": {geometry}}}')
                before = ",\n"
        file.write("\n]}\n")


def _rfc7946(frame: geopandas.GeoDataFrame, path: Path) -> geopandas.GeoDataFrame:
    """The frame in longitude and latitude on WGS 84, cut where it crosses the antimeridian."""
    if frame.crs.is_projected:
        frame = frame.set_geometry(densified(frame.geometry.to_numpy(), frame.crs), crs=frame.crs)
    placed = frame.to_crs("OGC:CRS84" if frame.crs.is_geographic else "EPSG:4326")
    geometries = placed.geometry.to_numpy()
    west, _, east, _ = shapely.bounds(geometries).T
    for place in np.flatnonzero((west < -180) | (east > 180) | (east - west > 180)):
        geometries[place] = _cut(geometries[place], path)
    rounded = shapely.transform(geometries, lambda xy: xy.round(GEOJSON_DIGITS))
    return placed.set_geometry(shapely.orient_polygons(rounded), crs="EPSG:4326")


def _cut(geometry: shapely.Geometry, path: Path) -> shapely.Geometry:
    """A polygon of longitudes and latitudes, in parts that lie within 180° west and east."""
    whole = [_unwrap(part, path) for part in shapely.get_parts(geometry)]
    parts = []
    for turn in (-360.0, 0.0, 360.0):
        world = shapely.box(turn - 180, -90, turn + 180, 90)
        for piece in shapely.get_parts(shapely.intersection(whole, world)):
            parts += [_shift(p, -turn) for p in shapely.get_parts(piece) if p.geom_type == "Polygon" and p.area > 0]
    return shapely.MultiPolygon(parts) if len(parts) > 1 else parts[0]


def _unwrap(polygon: shapely.Polygon, path: Path) -> shapely.Polygon:
    """The polygon with longitudes that run on beyond 180° where its rings do."""
    rings = [np.asarray(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
    unwrapped: list[NDArray[np.float64]] = []
    for ring in rings:
        lon = np.unwrap(ring[:, 0], period=360)
        if abs(lon[-1] - lon[0]) > 180:
            raise OutputError(
                f"cannot write {path}: a polygon goes round a pole, which GeoJSON (RFC 7946) has no form for; "
                "use .gpkg, .fgb or .parquet, which keep the CRS of the mask."
            )
        middle = (lon.min() + lon.max()) / 2
        around = (unwrapped[0][:, 0].min() + unwrapped[0][:, 0].max()) / 2 if unwrapped else 0.0
        unwrapped.append(np.column_stack([lon + 360 * np.round((around - middle) / 360), ring[:, 1]]))
    return shapely.Polygon(unwrapped[0], unwrapped[1:])


def _shift(polygon: shapely.Polygon, east: float) -> shapely.Polygon:
    """The polygon moved east by so many degrees."""
    return shapely.transform(polygon, lambda xy: xy + np.array([east, 0.0]))
