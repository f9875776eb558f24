"""Labels from polygons, burnt window by window."""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from ...core.grid import Grid, apply
from ...core.legend import Legend
from ...errors import LabelError
from ..edges import densified
from ..gdal import quiet
from .base import Labels

Geometries = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class PolygonLabels(Labels):
    """Labels burnt from polygons: of a pixel's centre, the last polygon that holds it."""

    geometries: Geometries
    """Valid polygons in pixels of the grid, (P,), in the order of the file."""
    ids: NDArray[np.unsignedinteger]
    """Class of each, (P,)."""
    outside: int
    """Id of the pixels in none of them."""

    @cached_property
    def _tree(self) -> shapely.STRtree:
        tree = shapely.STRtree(self.geometries)
        tree.query(shapely.Point(0, 0))  # which builds it, before threads ask at the same time
        return tree

    def __post_init__(self) -> None:
        _ = self._tree

    def _ids(self, window: Window) -> NDArray[np.unsignedinteger]:
        ids = np.full((window.height, window.width), self.outside, self.legend.id_dtype)
        left, top = window.col_off, window.row_off
        here = shapely.box(left - 1, top - 1, left + window.width + 1, top + window.height + 1)
        found = np.sort(self._tree.query(here, predicate="intersects"))
        parts, owner = shapely.get_parts(shapely.intersection(self.geometries[found], here), return_index=True)
        areal = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
        if areal.any():
            values = self.ids[found[owner[areal]]].tolist()
            shapes = list(zip(parts[areal], values, strict=True))
            with quiet():  # rasterio burns into a dataset without a place
                rasterize(shapes, out=ids, transform=Affine.translation(left, top))
        return ids


def open_polygons(
    path: str,
    grid: Grid,
    legend: Legend,
    *,
    column: str | None,
    layer: str | None,
    background: int | None,
    ignore: Sequence[int],
    unknown: str,
    why: str,
) -> PolygonLabels:
    """Labels in a vector file; `why` says why it is no raster.

    Raises
    ------
    LabelError
        As `open_labels`.
    """
    if grid.crs is None or not grid.placed:
        raise LabelError(f"{path} has polygons, but the image has no CRS or transform, so they cannot be laid on it.")
    frame = _read(path, layer, grid, why)
    notes = []
    if frame.crs is None:
        raise LabelError(
            f"{path} does not say its CRS (a shapefile does in its .prj); add it, so that it can be placed."
        )
    if not len(frame):
        notes.append(
            f"{path} has no polygon on the image: {'all is background' if background is not None else 'no labels'}."
        )
    ids = _classes(frame, path, legend, column, background, ignore, unknown)
    geometries, said = _repaired(frame, path)
    there = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    return PolygonLabels(
        source=path,
        legend=legend,
        grid=grid,
        notes=(*notes, *said),
        geometries=_in_pixels(geometries[there], frame.crs, grid),
        ids=ids[there],
        outside=legend.ignore_index if background is None else legend.codes.index(background),
    )


def _read(path: str, layer: str | None, grid: Grid, why: str) -> geopandas.GeoDataFrame:
    """The features that may meet the image."""
    if path.lower().endswith((".parquet", ".geoparquet")) and Path(path).is_file():
        return geopandas.read_parquet(path)
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    except (DataSourceError, OSError) as error:
        said = f"as a raster: {why}" + (f"; as polygons: {error}" if str(error) != why else "")
        raise LabelError(
            f"{path} cannot be opened ({said}). Give a raster of class codes, or polygons in a vector file."
        ) from error
    if not layers:
        raise LabelError(f"{path} has no layer with geometries; labels are a raster of class codes, or polygons.")
    if layer is None and len(layers) > 1:
        raise LabelError(f"{path} has the layers {', '.join(layers)}; say which one holds the labels (layer=…).")
    if layer is not None and layer not in layers:
        raise LabelError(f"{path} has no layer {layer}; it has {', '.join(layers)}.")
    try:
        crs = pyogrio.read_info(path, layer=layer)["crs"]
        return pyogrio.read_dataframe(path, layer=layer, bbox=_bounds(grid, crs), fid_as_index=True)
    except (DataSourceError, DataLayerError) as error:
        raise LabelError(f"{path} cannot be read as polygons: {error}.") from error


def _bounds(grid: Grid, crs: str | None) -> tuple[float, float, float, float] | None:
    """West, south, east, north of the image and a little around it, in another CRS; None where that is not known."""
    with suppress(CRSError):
        west, south, east, north = transform_bounds(grid.crs, CRS.from_user_input(crs), *grid.bounds, densify_pts=21)
        if np.isfinite([west, south, east, north]).all() and west < east and south < north:
            more = 0.02 * max(east - west, north - south)
            return west - more, south - more, east + more, north + more
    return None


def _classes(
    frame: geopandas.GeoDataFrame,
    path: str,
    legend: Legend,
    column: str | None,
    background: int | None,
    ignore: Sequence[int],
    unknown: str,
) -> NDArray[np.unsignedinteger]:
    """Class id of each feature, (P,)."""
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if column is None:
        own = [i for i, code in enumerate(legend.codes) if code != background]
        if len(own) != 1:
            raise LabelError(
                f"{path} has the columns {', '.join(columns) or '(none)'}; say which one holds the class (column=…), as "
                f"the legend has {len(own)} classes: {', '.join(legend.names)}."
            )
        return np.full(len(frame), own[0], legend.id_dtype)
    if column not in columns:
        raise LabelError(f"{path} has no column {column}; it has {', '.join(columns) or 'none'}.")
    known: dict[Hashable, int] = dict.fromkeys(ignore, legend.ignore_index)
    known |= {name: i for i, name in enumerate(legend.names)} | {code: i for i, code in enumerate(legend.codes)}
    values = [None if null else value for value, null in zip(frame[column], frame[column].isna(), strict=True)]
    keys = [None if value is None else _key(value, known) for value in values]
    strange = [value for value, key in zip(values, keys, strict=True) if key not in known]
    if strange and unknown == "raise":
        shown = ["NULL" if value is None else str(value) for value in strange]
        classes = ", ".join(f"{c.code} {c.name}" for c in legend.classes)
        raise LabelError(
            f"column {column} of {path} holds {', '.join(dict.fromkeys(shown))}, which the legend does not know "
            f"({classes}). Correct the column, extend the legend or ignore, or pass unknown='ignore'."
        )
    return np.array([known.get(key, legend.ignore_index) for key in keys], legend.id_dtype)


def _key(value: Any, known: dict[Hashable, int]) -> Hashable:
    """What a value of a column is called in the legend: a name, or a whole number written in any way."""
    with suppress(ValueError, TypeError, OverflowError):  # text, lists, infinity
        if value in known:
            return value  # type: ignore[no-any-return]
        if float(value) == int(float(value)):
            return int(float(value))
    return None


def _repaired(frame: geopandas.GeoDataFrame, path: str) -> tuple[Geometries, list[str]]:
    """Valid polygons, and what was done to make them so."""
    geometries: Geometries = shapely.force_2d(frame.geometry.to_numpy())
    kinds = shapely.get_type_id(geometries)  # -1 where there is none
    other = kinds[~np.isin(kinds, [-1, 3, 6])]
    if len(other):
        names = [shapely.GeometryType(kind).name.lower() for kind in np.unique(other)]
        raise LabelError(
            f"{path} has {len(other)} geometries that are no polygons ({', '.join(names)}); labels are polygons. Take "
            "the others out, or make polygons of them (a buffer)."
        )
    notes = []
    if gone := int((shapely.is_missing(geometries) | shapely.is_empty(geometries)).sum()):
        notes.append(f"{path} has {gone} features without a geometry; they are left out.")
    bad = np.flatnonzero(~shapely.is_valid(geometries) & ~shapely.is_missing(geometries))
    if len(bad):
        geometries = geometries.copy()
        reasons = shapely.is_valid_reason(geometries[bad])
        geometries[bad] = shapely.make_valid(geometries[bad], method="structure")
        shown = "; ".join(f"feature {i}: {why}" for i, why in list(zip(frame.index[bad], reasons, strict=True))[:5])
        notes.append(f"{path} has {len(bad)} invalid polygons, which were repaired ({shown}).")
    return geometries, notes


def _in_pixels(geometries: Geometries, crs: Any, grid: Grid) -> Geometries:
    """Geometries in columns and rows of the grid."""
    wanted = grid.crs.to_wkt(version="WKT2_2019") if grid.crs else None
    if not crs.equals(wanted, ignore_axis_order=True):
        geometries = geopandas.GeoSeries(densified(geometries, crs), crs=crs).to_crs(wanted).to_numpy()
    back = ~grid.transform
    placed: Geometries = shapely.transform(geometries, lambda xy: apply(back, *xy.T).T)
    placed[~np.isfinite(shapely.bounds(placed)).all(axis=1)] = shapely.Polygon()  # beyond the edge of a projection
    return placed
