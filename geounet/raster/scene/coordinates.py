"""Where an array lies: from coordinates, CF grid mappings and attributes to a grid."""

import re
from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from ...core.grid import Grid
from ...errors import GridError

if TYPE_CHECKING:
    import xarray

EVEN = 0.01
"""Coordinates may stray from even spacing by this part of a pixel; text in files rounds them."""

_EPSG_COORDS = ("epsg", "proj:epsg", "proj:code")
"""Where stackstac keeps the CRS, and keeps it through arithmetic that drops attributes."""


def grid_of(array: "xarray.DataArray", source: str) -> Grid:
    """Grid of an array whose last two axes are y and x.

    The coordinates of rioxarray and odc-geo are pixel centres; those of stackstac are upper-left corners
    unless asked otherwise, which shows against the transform in its attributes.

    Raises
    ------
    GridError
        The coordinates are not evenly spaced, or the CRS or the transform cannot be understood.
    """
    mapping = _mapping(array)
    height, width = array.shape[-2:]
    return Grid(
        (height, width), _transform(array, _stated(array, mapping, source), source), _crs(array, mapping, source)
    )


def _mapping(array: "xarray.DataArray") -> Mapping[str, Any]:
    """Attributes of the CF grid mapping, wherever it is."""
    named = array.encoding.get("grid_mapping") or array.attrs.get("grid_mapping")
    scalars = [name for name, coord in array.coords.items() if coord.ndim == 0]
    described = [n for n in scalars if {"crs_wkt", "spatial_ref", "grid_mapping_name"} & array.coords[n].attrs.keys()]
    for name in (named, "spatial_ref", "crs", *described):
        if isinstance(name, str) and name in array.coords and array.coords[name].attrs:
            return dict(array.coords[name].attrs)
    return {}


def _crs(array: "xarray.DataArray", mapping: Mapping[str, Any], source: str) -> CRS | None:
    text = next((mapping[k] for k in ("crs_wkt", "spatial_ref") if mapping.get(k)), None) or array.attrs.get("crs")
    if text is None and "grid_mapping_name" in mapping:
        text = _from_cf(mapping, source)
    if text is None:
        text = next((array.coords[k].item() for k in _EPSG_COORDS if k in array.coords and array[k].ndim == 0), None)
    if not text:
        return None
    try:
        return CRS.from_user_input(re.sub(r"^\+init=", "", text) if isinstance(text, str) else text)
    except CRSError as error:
        raise GridError(f"the CRS of {source} cannot be understood: {text!r}.") from error


def _from_cf(mapping: Mapping[str, Any], source: str) -> str:
    """WKT of a grid mapping that has only the CF convention's own parameters."""
    import pyproj

    try:
        return str(pyproj.CRS.from_cf(dict(mapping)).to_wkt())
    except (pyproj.exceptions.CRSError, KeyError) as error:
        raise GridError(
            f"the grid mapping of {source} cannot be understood: {mapping['grid_mapping_name']}."
        ) from error


def _stated(array: "xarray.DataArray", mapping: Mapping[str, Any], source: str) -> Affine | None:
    """Corner transform that attributes tell of: GDAL's six numbers, or the Affine of stackstac."""
    geotransform = mapping.get("GeoTransform")
    if geotransform is not None and _length(geotransform) != 0:
        return Affine.from_gdal(*_six(geotransform, "GeoTransform", source))
    affine = array.attrs.get("transform")
    return Affine(*_six(affine, "transform", source)) if (_length(affine) or 0) >= 6 else None


def _length(values: object) -> int | None:
    return len(values) if isinstance(values, Sized) else None


def _six(values: Any, key: str, source: str) -> list[float]:
    """The first six numbers of a transform."""
    try:
        a, b, c, d, e, f, *_ = map(float, values.split() if isinstance(values, str) else values)
    except (TypeError, ValueError) as error:
        raise GridError(
            f"the {key} of {source} is {values!r}, which is not six numbers; correct it, or take it out of the attributes."
        ) from error
    return [a, b, c, d, e, f]


def _transform(array: "xarray.DataArray", stated: Affine | None, source: str) -> Affine:
    """Corner transform, from the coordinates along the axes; from the attribute where it says the same or more."""
    axes = [array.coords[dim].values if dim in array.coords else None for dim in ("x", "y")]
    if any(axis is None or axis.ndim != 1 or axis.dtype.kind not in "iuf" for axis in axes):
        return stated or Affine.identity()
    if stated is not None and (stated.b or stated.d):
        return stated
    fallback = (stated.a, stated.e) if stated is not None else (None, None)
    (x0, dx), (y0, dy) = (
        _spacing(np.asarray(axis, float), step, name, source)
        for axis, step, name in zip(axes, fallback, ("x", "y"), strict=True)
    )
    if dx is None and dy is None:
        return stated or Affine.identity()
    if dx is None or dy is None:  # one column or row: square pixels, north up
        side = abs(dx or dy or 1.0)
        dx, dy = dx or side, dy or -side
    if stated is not None and _corners(x0, y0, dx, dy, stated):
        return Affine(dx, 0.0, x0, 0.0, dy, y0)
    found = Affine(dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2)
    # the attribute has all digits, but does not follow when the array is cropped or coarsened
    if stated is not None and _alike(found, stated, array.shape[-2:]):
        return stated
    return found


def _alike(found: Affine, stated: Affine, shape: Sequence[int]) -> bool:
    """Tell whether two transforms place the first and the last corner alike; rounded coordinates count at both ends."""
    ends = (0, 0), (shape[1], shape[0])
    return all(np.allclose(~found @ (stated @ end), end, rtol=0, atol=2 * EVEN) for end in ends)


def _corners(x0: float, y0: float, dx: float, dy: float, stated: Affine) -> bool:
    """Tell whether coordinates are corners of the stated pixels; cropping keeps that, coarsening does not."""
    if not np.allclose([dx / stated.a, dy / stated.e], 1, atol=EVEN):
        return False
    place = np.asarray(~stated @ (x0, y0))
    return bool((np.abs(place - np.round(place)) <= EVEN).all())


def _spacing(axis: NDArray[np.float64], stated: float | None, name: str, source: str) -> tuple[float, float | None]:
    """First coordinate and step of an axis; the step stated, or None, where there is only one pixel."""
    if len(axis) == 1:
        return float(axis[0]), stated
    step = float((axis[-1] - axis[0]) / (len(axis) - 1))
    stray = np.abs(axis - (axis[0] + step * np.arange(len(axis)))).max()
    if step == 0 or not stray <= EVEN * abs(step):
        raise GridError(
            f"the {name} coordinates of {source} are not evenly spaced (they stray by {stray:g} at a step of {step:g}); "
            "a scene is a regular grid. Interpolate or reproject it first."
        )
    return float(axis[0]), step
