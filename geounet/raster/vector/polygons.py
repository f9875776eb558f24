"""Polygons of the classes of a mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import geopandas
import numpy as np
import pyproj
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from ...core.grid import Grid
from ...core.legend import Legend
from ...errors import LegendError, SceneError, UnsupportedRasterError
from ..gdal import GDAL_ERRORS, open_raster, quiet, reason
from ..geotiff import read_legend
from .files import write
from .measure import measure
from .rings import noded, polygons, trace


@dataclass(frozen=True)
class Polygons:
    """The classes of a mask as polygons."""

    frame: geopandas.GeoDataFrame
    """One row a polygon, in the CRS of the mask: id (from 1), class (code), name, area_m2 and perimeter_m (true
    metres; NaN without a place on Earth), geometry (valid, exterior rings counter-clockwise)."""
    source: str
    """The mask, as its user calls it."""

    def __len__(self) -> int:
        return len(self.frame)

    def to_file(self, path: str | Path, *, overwrite: bool = False, layer: str | None = None) -> Path:
        """Write the polygons; return the path.

        Parameters
        ----------
        path : path
            The suffix picks the format: .gpkg, .fgb, .parquet (GeoParquet 1.1 with a bounding box a row),
            .geojson (RFC 7946: longitude and latitude on WGS 84, cut where they cross 180°; as they are without
            a CRS), or .shp, whose limits are 2 GB and field names of ten letters: perimeter_m becomes perim_m.
        overwrite : bool
            Replace a file that is there.
        layer : str, optional
            Name of the layer; by default that of the file. Parquet and shapefiles have none.

        Raises
        ------
        OutputError
            The suffix is none of those, or the folder is missing or read-only, or a polygon around a pole is to
            be written as GeoJSON.
        OutputExistsError
            The file exists, and `overwrite` is not set.
        """
        return write(self.frame, Path(path), overwrite=overwrite, layer=layer)


def polygonize(
    mask: str | PathLike[str],
    *,
    legend: Legend | None = None,
    classes: Sequence[str | int] | None = None,
    connectivity: Literal[4, 8] = 4,
) -> Polygons:
    """Polygons around the pixels of one class that hang together.

    Parameters
    ----------
    mask : path
        A raster of class codes, with one band; what it declares as nodata becomes no polygon. Traced row by
        row, so that memory goes with the polygons, not with the pixels.
    legend : Legend, optional
        Names of the codes; by default what the file says.
    classes : sequence of str or int, optional
        Names or codes of the classes to keep; by default all.
    connectivity : {4, 8}
        Whether pixels that share a corner alone hang together. With 8 such polygons come in several parts.

    Returns
    -------
    Polygons
        In the CRS of the mask (without one: in the units of its transform), holes kept. Those of one class add
        up to the area of its pixels; neighbours share each corner, so they form a coverage.

    Raises
    ------
    SceneError
        The mask cannot be opened, or not read to its end.
    UnsupportedRasterError
        It has several bands, or values that are not whole numbers.
    LegendError
        It has a code, or `classes` a name, that the legend does not know.
    """
    source = fspath(mask)
    legend = legend or read_legend(source)
    wanted = _codes(classes, legend)
    with _open(source) as dataset:
        grid = Grid(dataset.shape, dataset.transform, dataset.crs)
        rings, codes = trace(dataset, connectivity)
    _check(codes, legend, source)
    kept = np.isin(codes, wanted)
    rings, codes = rings.take(kept), codes[kept]
    area, perimeter = measure(rings, grid)
    names = dict(zip(legend.codes, legend.names, strict=True))
    frame = geopandas.GeoDataFrame(
        {
            "id": np.arange(1, len(codes) + 1),
            "class": codes,
            "name": [names[code] for code in codes.tolist()],
            "area_m2": area,
            "perimeter_m": perimeter,
        },
        geometry=polygons(noded(rings), grid.transform, touching=connectivity == 8),
        crs=grid.crs and pyproj.CRS.from_wkt(grid.crs.to_wkt(version="WKT2_2019")),
    )
    return Polygons(frame, source)


def _open(mask: str) -> Any:
    """Dataset of a class raster."""
    try:
        with quiet():  # a mask without a place is traced in pixels
            dataset = open_raster(mask)
    except (*GDAL_ERRORS, OSError) as error:
        raise SceneError(f"cannot open {mask} as a raster: {reason(error)}. Give a raster of class codes.") from error
    bands = sum(colour != ColorInterp.alpha for colour in dataset.colorinterp)
    kind = dataset.dtypes[0] if dataset.count else ""
    if bands == 1 and not kind.startswith("complex"):
        return dataset
    dataset.close()
    found = f"{bands} bands" if bands != 1 else f"values of type {kind}"
    raise UnsupportedRasterError(f"{mask} has {found}; a class raster has one band of whole numbers.")


def _codes(classes: Sequence[str | int] | None, legend: Legend) -> list[int]:
    """Codes of the classes to keep."""
    if classes is None:
        return list(legend.codes)
    known: dict[str | int, int] = {c.name: c.code for c in legend.classes} | {c.code: c.code for c in legend.classes}
    strange = [str(each) for each in classes if each not in known]
    if strange:
        raise LegendError(f"there is no class {', '.join(strange)}; the legend has {_said(legend)}.")
    return [known[each] for each in classes]


def _check(codes: NDArray[np.int64], legend: Legend, source: str) -> None:
    """Refuse codes without a name."""
    strange = np.setdiff1d(codes, legend.codes)
    if len(strange):
        shown = ", ".join(str(code) for code in strange[:10]) + (", …" if len(strange) > 10 else "")
        raise LegendError(
            f"{source} has the class code {shown}, which the legend does not know ({_said(legend)}). "
            "Pass a legend with all codes of the mask."
        )


def _said(legend: Legend) -> str:
    return ", ".join(f"{c.code} {c.name}" for c in legend.classes)
