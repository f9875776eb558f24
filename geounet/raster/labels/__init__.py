"""True class ids on the image's grid, burnt from polygons or warped from another raster."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Literal

import numpy as np

from ...core.grid import Grid
from ...core.legend import Legend
from ...errors import LabelError
from ..gdal import GDAL_ERRORS, open_raster, quiet, reason
from .base import Labels
from .polygons import PolygonLabels, open_polygons
from .rasters import RasterLabels, open_codes

__all__ = ["Labels", "PolygonLabels", "RasterLabels", "open_labels"]


def open_labels(
    source: str | PathLike[str],
    grid: Grid,
    legend: Legend,
    *,
    column: str | None = None,
    layer: str | None = None,
    background: int | None = None,
    ignore: Sequence[int] = (),
    unknown: Literal["raise", "ignore"] = "raise",
    resample: bool = True,
) -> Labels:
    """Labels of an image, from a class raster or from polygons; pixels are read window by window.

    Parameters
    ----------
    source : path
        A raster of class codes with one band, of any whole-number or float type, or polygons in any format that
        GDAL or GeoPandas reads.
    grid : Grid
        The image's. A raster on another grid, extent, resolution or CRS is warped onto it by nearest neighbour;
        polygons are brought to its CRS, and label the pixels whose centres they hold. Where polygons overlap,
        the later in the file counts.
    legend : Legend
        The classes, by their codes in `source`.
    column, layer : str, optional
        Of polygons: where the class of each stands, as code or name, and which layer of the file to read. A column
        is needed unless the legend has just one class beside the background.
    background : int, optional
        Of polygons: code of the pixels outside of all of them; by default they have no label.
    ignore : sequence of int
        Codes that mean no label, beside nodata and NaN.
    unknown : {'raise', 'ignore'}
        What to do with codes that are in neither the legend nor `ignore`.
    resample : bool
        Whether a raster on another grid may be warped; if not, it is refused.

    Returns
    -------
    Labels
        Ids (y, x) on `grid`. `notes` says what deserves a warning: a shift, a repair, an empty layer.

    Raises
    ------
    LabelError
        The file cannot be opened, or cannot be brought onto the grid; it has several bands, no polygons, no CRS,
        several layers to choose from, or values in `column` that are no class.
    LegendError
        `background` is not in the legend. While reading: a code is not.
    """
    path = fspath(source)
    if background is not None:
        legend.encode(np.array([background]), source="background")  # refuses what it does not know
    try:
        with quiet():
            dataset = open_raster(path)
    except (*GDAL_ERRORS, OSError) as error:
        why = reason(error)
    else:
        with dataset:
            if dataset.count:
                if column is not None or layer is not None or background is not None:
                    raise LabelError(
                        f"{path} is a raster: column, layer and background are for polygons; leave them out."
                    )
                return open_codes(path, dataset, grid, legend, ignore=ignore, unknown=unknown, resample=resample)
        why = "it has no bands"
    return open_polygons(
        path, grid, legend, column=column, layer=layer, background=background, ignore=ignore, unknown=unknown, why=why
    )
