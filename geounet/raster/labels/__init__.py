"""True class ids on the image's grid, burnt from polygons or warped from another raster."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any, Literal

import numpy as np

from ...core.grid import Grid
from ...core.legend import Legend
from ...errors import LabelError
from ..gdal import GDAL_ERRORS, network, open_raster, quiet, reason
from .area import Area, AreaLabels, within
from .base import Labels
from .colors import ColorLabels, Colors, open_colors
from .placement import image_bands
from .polygons import PolygonLabels, open_polygons
from .rasters import RasterLabels, open_codes
from .region import RegionLabels

__all__ = [
    "Area",
    "AreaLabels",
    "ColorLabels",
    "Labels",
    "PolygonLabels",
    "RasterLabels",
    "RegionLabels",
    "open_labels",
]


def open_labels(
    source: str | PathLike[str],
    grid: Grid,
    legend: Legend,
    *,
    column: str | None = None,
    layer: str | None = None,
    background: int | None = None,
    ignore: Sequence[int | str] = (),
    unknown: Literal["raise", "ignore"] = "raise",
    resample: bool = True,
    aoi: str | PathLike[str] | None = None,
    aoi_layer: str | None = None,
    colors: Colors | None = None,
) -> Labels:
    """Labels of an image, from a class raster, a mask in colours, or polygons; pixels are read window by window.

    Parameters
    ----------
    source : path
        A raster of class codes with one band, of any whole-number or float type; a raster of three or four bands of
        8 bits that shows classes as colours (red, green, blue, alpha); or polygons in any format that GDAL or
        GeoPandas reads. A palette raster is one of codes.
    grid : Grid
        The image's. A raster on another grid, extent, resolution or CRS is warped onto it by nearest neighbour;
        polygons are brought to its CRS, and label the pixels whose centres they hold. Where polygons overlap,
        the later in the file counts.
    legend : Legend
        The classes, by their codes in `source`, or by their colours.
    column, layer : str, optional
        Of polygons: where the class of each stands, as code or name, and which layer of the file to read. A column
        is needed unless the legend has just one class beside the background.
    background : int, optional
        Of polygons: code of the pixels outside of all of them; by default they have no label.
    ignore : sequence of int or str
        Codes, or names in a column, that mean no label, beside nodata, NaN and transparent pixels.
    unknown : {'raise', 'ignore'}
        What to do with codes and colours that are in neither the legend nor `ignore`.
    resample : bool
        Whether a raster on another grid may be warped; if not, it is refused.
    aoi : path, optional
        Polygons of the area of interest, in a vector file: a pixel whose centre is in none of them has no label.
        With `background`, this is how polygons label a part of the image completely.
    aoi_layer : str, optional
        Which layer of `aoi` to read.
    colors : mapping, optional
        Of a mask in colours: by code or name, ``(r, g, b)`` or ``"#rrggbb"``, the colour that stands for a class
        where it is not the legend's, or for a code in `ignore`. Colours are met exactly. Other labels have no use
        for it.

    Returns
    -------
    Labels
        Ids (y, x) on `grid`. `notes` says what deserves a warning: a shift, a repair, an empty layer.

    Raises
    ------
    LabelError
        The file cannot be opened, or cannot be brought onto the grid; it has bands of another kind, no polygons, no
        CRS, several layers to choose from, or values in `column` that are no class.
    LegendError
        `background` is not in the legend, or the colours of a mask are not those of the classes. While reading: a
        code or a colour is not.
    """
    path = fspath(source)
    if background is not None:
        legend.encode(np.array([background]), source="background")  # refuses what it does not know
    if aoi is None and aoi_layer is not None:
        raise LabelError(
            f"{path}: aoi_layer={aoi_layer!r} says a layer of the area of interest; say its file too (aoi=…)."
        )
    labels: Labels | None = None
    try:
        with quiet(), network(path):
            dataset = open_raster(path)
    except (*GDAL_ERRORS, OSError) as error:
        why = reason(error)
    else:
        with dataset:
            why = "it has no bands"
            if dataset.count:
                if column is not None or layer is not None or background is not None:
                    raise LabelError(
                        f"{path} is a raster: column, layer and background are for polygons; leave them out."
                    )
                labels = _open_raster_labels(path, dataset, grid, legend, ignore, unknown, resample, colors or {})
    if labels is None:
        labels = open_polygons(
            path,
            grid,
            legend,
            column=column,
            layer=layer,
            background=background,
            ignore=ignore,
            unknown=unknown,
            why=why,
        )
    return labels if aoi is None else within(labels, fspath(aoi), aoi_layer)


def _open_raster_labels(
    path: str,
    dataset: Any,
    grid: Grid,
    legend: Legend,
    ignore: Sequence[int | str],
    unknown: str,
    resample: bool,
    colors: Colors,
) -> Labels:
    """Labels of an open raster, which its bands say to be codes or colours."""
    bands, _ = image_bands(dataset)
    if len(bands) == 1:
        return open_codes(path, dataset, grid, legend, ignore=ignore, unknown=unknown, resample=resample)
    return open_colors(path, dataset, grid, legend, ignore=ignore, unknown=unknown, resample=resample, colors=colors)
