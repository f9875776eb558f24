"""Polygons of a vector file, in pixels of the image, burnt window by window."""

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
from pyarrow.lib import ArrowException
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from ...core.grid import Grid, apply
from ...errors import LabelError
from ..edges import densified
from ..gdal import quiet

Geometries = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Shapes:
    """Polygons, each with a value; of a pixel's centre, the last polygon that holds it counts."""

    geometries: Geometries
    """Valid polygons in columns and rows of the image, (P,), in the order of the file."""
    values: NDArray[np.unsignedinteger]
    """Value of each, (P,)."""

    @cached_property
    def _tree(self) -> shapely.STRtree:
        tree = shapely.STRtree(self.geometries)
        tree.query(shapely.Point(0, 0))  # which builds it, before threads ask at the same time
        return tree

    def __post_init__(self) -> None:
        _ = self._tree

    def burn(self, window: Window, outside: int) -> NDArray[np.unsignedinteger]:
        """Values of the pixels of a window, (H, W), of the type of `values`; `outside` where there is no polygon."""
        burnt = np.full((window.height, window.width), outside, self.values.dtype)
        left, top = window.col_off, window.row_off
        here = shapely.box(left - 1, top - 1, left + window.width + 1, top + window.height + 1)
        found = np.sort(self._tree.query(here, predicate="intersects"))
        parts, owner = shapely.get_parts(shapely.intersection(self.geometries[found], here), return_index=True)
        areal = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
        if areal.any():
            values = self.values[found[owner[areal]]].tolist()
            with quiet():  # rasterio burns into a dataset without a place
                rasterize(
                    list(zip(parts[areal], values, strict=True)), out=burnt, transform=Affine.translation(left, top)
                )
        return burnt


def read_features(path: str, layer: str | None, grid: Grid, *, option: str, why: str = "") -> geopandas.GeoDataFrame:
    """The features of a vector file that may meet the image, with a CRS.

    Parameters
    ----------
    path, layer : str
        The file, and which of its layers.
    grid : Grid
        The image's.
    option : str
        What the caller calls `layer`.
    why : str
        Why the file is no raster, where it might have been one.

    Raises
    ------
    LabelError
        The file cannot be read, has no layer with geometries or several to choose from, or does not say its CRS;
        or the image has no place.
    """
    if grid.crs is None or not grid.placed:
        raise LabelError(f"{path} has polygons, but the image has no CRS or transform, so they cannot be laid on it.")
    frame = _read(path, layer, grid, option, why)
    if frame.crs is None:
        raise LabelError(
            f"{path} does not say its CRS (a shapefile does in its .prj); add it, so that it can be placed."
        )
    return frame


def _read(path: str, layer: str | None, grid: Grid, option: str, why: str) -> geopandas.GeoDataFrame:
    if path.lower().endswith((".parquet", ".geoparquet")) and Path(path).is_file():
        return _parquet(path, layer, option, why)
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    except (DataSourceError, OSError) as error:
        raise _unopened(path, error, why) from error
    if not layers:
        wanted = "labels are a raster of class codes, or polygons" if why else "polygons are needed"
        raise LabelError(f"{path} has no layer with geometries; {wanted}.")
    if layer is None and len(layers) > 1:
        raise LabelError(f"{path} has the layers {', '.join(layers)}; say which one to read ({option}=…).")
    if layer is not None and layer not in layers:
        raise LabelError(f"{path} has no layer {layer}; it has {', '.join(layers)}.")
    try:
        crs = pyogrio.read_info(path, layer=layer)["crs"]
        return pyogrio.read_dataframe(path, layer=layer, bbox=_bounds(grid, crs), fid_as_index=True)
    except (DataSourceError, DataLayerError) as error:
        raise LabelError(f"{path} cannot be read as polygons: {error}.") from error


def _parquet(path: str, layer: str | None, option: str, why: str) -> geopandas.GeoDataFrame:
    if layer is not None:
        raise LabelError(f"{path} is a Parquet file, which has no layers; leave {option}={layer!r} out.")
    try:
        return geopandas.read_parquet(path)
    except (ValueError, KeyError, TypeError, OSError, ArrowException) as error:  # no Parquet, or no geometries
        raise _unopened(path, error, why) from error


def _unopened(path: str, error: Exception, why: str) -> LabelError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)  # further lines tell what to call instead
    said = f"as polygons: {reason}"
    if why:
        said = f"as a raster: {why}" + (f"; {said}" if reason != why else "")
    wanted = "a raster of class codes, or polygons in a vector file" if why else "polygons in a vector file"
    return LabelError(f"{path} cannot be opened ({said}). Give {wanted}.")


def _bounds(grid: Grid, crs: str | None) -> tuple[float, float, float, float] | None:
    """West, south, east, north of the image and a little around it, in another CRS; None where that is not known."""
    with suppress(CRSError):
        west, south, east, north = transform_bounds(grid.crs, CRS.from_user_input(crs), *grid.bounds, densify_pts=21)
        if np.isfinite([west, south, east, north]).all() and west < east and south < north:
            more = 0.02 * max(east - west, north - south)
            return west - more, south - more, east + more, north + more
    return None


def shapes_of(
    frame: geopandas.GeoDataFrame, values: NDArray[np.unsignedinteger], path: str, grid: Grid
) -> tuple[Shapes, tuple[str, ...]]:
    """Features as valid polygons on the image, and what was done to make them so.

    Raises
    ------
    LabelError
        There are geometries other than polygons.
    """
    geometries, notes = _repaired(frame, path)
    there = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    return Shapes(_in_pixels(geometries[there], frame.crs, grid), values[there]), tuple(notes)


def _repaired(frame: geopandas.GeoDataFrame, path: str) -> tuple[Geometries, list[str]]:
    """Valid polygons, and what was done to make them so."""
    geometries: Geometries = shapely.force_2d(frame.geometry.to_numpy())
    kinds = shapely.get_type_id(geometries)  # -1 where there is none
    other = ~np.isin(kinds, [-1, 3, 6])
    notes = []
    if other.any():
        names = ", ".join(shapely.GeometryType(kind).name.lower() for kind in np.unique(kinds[other]))
        found = f"{path} has {other.sum()} geometries that are no polygons ({names})"
        if not np.isin(kinds, [3, 6]).any():
            raise LabelError(f"{found}; labels are polygons. Make polygons of them (a buffer).")
        notes.append(f"{found}; they are left out. If they are meant, make polygons of them (a buffer).")
        geometries = geometries.copy()
        geometries[other] = shapely.Polygon()
    if gone := int((shapely.is_missing(geometries) | shapely.is_empty(geometries))[~other].sum()):
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
