"""Boundaries between the classes of a raster, in whole pixel corners."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.features import shapes

from ...core.grid import apply
from ...errors import SceneError, UnsupportedRasterError
from ..gdal import GDAL_ERRORS, reason

TRACEABLE = ("uint8", "uint16", "int16", "int32")
"""Types whose values GDAL traces without rounding."""
PIECE = 1_000_000
"""Coordinates that are turned into pixel corners at once."""


@dataclass(frozen=True)
class Rings:
    """Closed boundaries of polygons along the edges of pixels, all in one row, an exterior before its holes.

    Exteriors run against the clock where rows count downwards, holes with it.
    """

    col: NDArray[np.int32]
    row: NDArray[np.int32]
    """Pixel corners, (V,); the last of a ring is its first."""
    rings: NDArray[np.int64]
    """Where rings begin among the corners, and the end, (R + 1,)."""
    polygons: NDArray[np.int64]
    """Where polygons begin among the rings, and the end, (P + 1,)."""

    @property
    def corners(self) -> NDArray[np.int64]:
        """Where polygons begin among the corners, and the end, (P + 1,)."""
        return self.rings[self.polygons]

    @property
    def pixels(self) -> int:
        """Pixels inside the polygons, by Green's theorem: each side that runs up or down counts those left of it."""
        left = self.col[:-1].astype(np.int64) * np.diff(self.row)
        left[self.rings[1:-1] - 1] = 0  # from the end of a ring to the start of the next is no side
        return abs(int(left.sum()))

    def take(self, kept: NDArray[np.bool_]) -> "Rings":
        """Some of the polygons, (P,) bool."""
        if kept.all():
            return self
        of_ring = np.repeat(kept, np.diff(self.polygons))
        of_corner = np.repeat(of_ring, np.diff(self.rings))
        return Rings(
            self.col[of_corner],
            self.row[of_corner],
            ends(np.diff(self.rings)[of_ring]),
            ends(np.diff(self.polygons)[kept]),
        )


def ends(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Where each of some runs begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def trace(dataset: Any, connectivity: int) -> tuple[Rings, NDArray[np.int64]]:
    """Boundaries and codes of the regions with data.

    Raises
    ------
    SceneError
        Some pixels could not be read.
    """
    plain = {MaskFlags.all_valid}, {MaskFlags.nodata}
    if dataset.dtypes[0] in TRACEABLE and set(dataset.mask_flag_enums[0]) in plain:
        rings, codes = _flatten(shapes(rasterio.band(dataset, 1), connectivity=connectivity), ~dataset.transform)
        height, width = dataset.shape
        # GDAL's read errors do not come through its tracer, but then pixels are missing
        if rings.pixels != height * width:
            raise SceneError(f"{dataset.name} cannot be read to its end: the file is damaged; make or fetch it anew.")
        valid = codes != dataset.nodata
        return rings.take(valid), codes[valid]
    values, valid = _whole_numbers(dataset)
    return _flatten(shapes(values, valid, connectivity=connectivity), Affine.identity())


def _flatten(regions: Iterator[tuple[Any, float]], to_pixels: Affine) -> tuple[Rings, NDArray[np.int64]]:
    """Boundaries and codes, out of one dictionary a region."""
    codes, corners, rings = array("q"), array("q"), array("q")
    pieces = [np.empty((2, 0), np.int32)]
    xy = array("d")
    for region, value in regions:
        codes.append(int(value))
        rings.append(len(region["coordinates"]))
        for ring in region["coordinates"]:
            corners.append(len(ring))
            xy.extend(chain.from_iterable(ring))
        if len(xy) > PIECE:
            pieces.append(_whole_corners(xy, to_pixels))
            xy = array("d")
    col, row = np.concatenate([*pieces, _whole_corners(xy, to_pixels)], axis=1)
    return Rings(col, row, ends(np.array(corners)), ends(np.array(rings))), np.array(codes, np.int64)


def _whole_corners(xy: "array[float]", to_pixels: Affine) -> NDArray[np.int32]:
    """Column and row of points x, y, x, y, …, (2, V)."""
    x, y = np.array(xy).reshape(-1, 2).T
    return np.rint(apply(to_pixels, x, y)).astype(np.int32)


def _whole_numbers(dataset: Any) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Codes and validity of a raster whose type GDAL would round, or whose nodata is in a mask of its own."""
    values = np.empty(dataset.shape, np.int32)
    valid = np.empty(dataset.shape, np.bool_)
    try:
        for _, window in dataset.block_windows(1):
            place = window.toslices()
            found = dataset.read(1, window=window)
            valid[place] = (dataset.read_masks(1, window=window) > 0) & np.isfinite(found)
            found = np.where(valid[place], found, 0)
            values[place] = found
            if np.any(values[place] != found):
                raise UnsupportedRasterError(
                    f"{dataset.name} has values such as {found[values[place] != found][0]}; class codes are whole "
                    "numbers of at most 32 bits. Round or classify the raster first."
                )
    except (*GDAL_ERRORS, OSError) as error:
        raise SceneError(
            f"{dataset.name} cannot be read to its end: {reason(error)}. Make or fetch the file anew."
        ) from error
    return values, valid


def noded(rings: Rings) -> Rings:
    """Boundaries with a corner wherever a neighbour has one, so that shared edges are the same edges."""
    if not len(rings.col):
        return rings
    horizontal = _between(rings.col, rings.row, rings.rings)
    vertical = _between(rings.row, rings.col, rings.rings)
    inserted = np.maximum(np.abs(horizontal.gap), np.abs(vertical.gap))
    inserted = np.maximum(inserted - 1, 0) + 1
    start = np.repeat(np.arange(len(inserted), dtype=np.int32), inserted)
    begin = ends(inserted)
    step = np.arange(len(start), dtype=np.int32) - np.repeat(begin[:-1].astype(np.int32), inserted)
    new = np.flatnonzero(step)
    start_of_new, step = start[new], step[new]
    col, row = rings.col[start], rings.row[start]
    for edges, along in ((horizontal, col), (vertical, row)):
        here = edges.gap[start_of_new] != 0
        along[new[here]] = edges.at(start_of_new[here], step[here])
    return Rings(col, row, begin[rings.rings], rings.polygons)


@dataclass(frozen=True)
class _Edges:
    """Edges of one direction, and all corners on their lines."""

    spots: NDArray[np.int64]
    """Distinct corners, line by line, (U,)."""
    rank: NDArray[np.int32]
    """Place of each corner among them, (V,)."""
    gap: NDArray[np.int32]
    """Places from each corner to the next of its ring, if an edge of this direction joins them, else 0, (V,)."""
    span: int
    """What lies from one line to the next in `spots`."""

    def at(self, corner: NDArray[np.int32], step: NDArray[np.int32]) -> NDArray[np.int64]:
        """Where along its line the edge from `corner` meets its distinct corner number `step`."""
        spots: NDArray[np.int64] = self.spots[self.rank[corner] + np.sign(self.gap[corner]) * step]
        return spots % self.span


def _between(along: NDArray[np.int32], across: NDArray[np.int32], rings: NDArray[np.int64]) -> _Edges:
    """Edges along which `across` stays as it is."""
    span = int(along.max()) + 1
    spots, rank = np.unique(across.astype(np.int64) * span + along, return_inverse=True)
    rank = rank.astype(np.int32)
    gap = np.diff(rank, append=rank[-1:])
    gap[:-1][across[:-1] != across[1:]] = 0
    gap[rings[1:] - 1] = 0  # from the end of a ring to the start of the next is no edge
    return _Edges(spots, rank, gap, span)


def polygons(rings: Rings, transform: Affine, *, touching: bool) -> NDArray[np.object_]:
    """Geometries in the units of the transform, exterior rings counter-clockwise.

    With `touching`, rings that meet themselves in a corner are taken apart there.
    """
    if len(rings.polygons) == 1:
        return np.empty(0, object)
    xy = np.ascontiguousarray(apply(transform, rings.col.astype(float), rings.row.astype(float)).T)
    found = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (rings.rings, rings.polygons))
    if touching:
        bad = ~shapely.is_valid(found)
        found[bad] = shapely.make_valid(found[bad], method="structure")
    oriented: NDArray[np.object_] = shapely.orient_polygons(found)
    return oriented
