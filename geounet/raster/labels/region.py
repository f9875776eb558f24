"""Labels seen inside a region alone: how the ground of one scene is shared between splits."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.windows import Window

from ...core.grid import Grid, apply
from ...core.split import BlockSplit
from ...core.windows import edges
from ...errors import SplitError
from .base import Labels

Region: TypeAlias = Callable[[Window], NDArray[np.bool_]]
"""True where the pixels of a window inside the image are in the region, (H, W)."""

CELL = 16
"""Pixels between those whose place is asked of PROJ; places in between are interpolated where that is exact enough."""
EXACT = 0.01
"""Metres by which an interpolated place may be off."""
METRES = 111_320.0
"""In a degree of latitude or of the equator, at most about."""
TILE = 512
"""Side, in pixels, of the squares in which a block region is kept once found."""


@dataclass(frozen=True, eq=False)
class RegionLabels(Labels):
    """Labels of an image inside a region; outside of it no pixel has one."""

    labels: Labels
    region: Region

    @classmethod
    def of(cls, labels: Labels, region: Region) -> "RegionLabels":
        """Labels seen inside `region` alone."""
        return cls(**{f.name: getattr(labels, f.name) for f in fields(Labels)}, labels=labels, region=region)

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that they come from."""
        return self.labels.paths

    def _ids(self, window: Window) -> NDArray[np.unsignedinteger]:
        inside = self.region(window)
        if not inside.any():
            return np.full(inside.shape, self.legend.ignore_index, self.legend.id_dtype)
        ids = self.labels.read(window)
        return ids if inside.all() else np.where(inside, ids, self.legend.id_dtype.type(self.legend.ignore_index))


@dataclass(frozen=True, eq=False)
class BlockRegion:
    """The pixels of an image whose centres lie in the blocks of one split, away from those of the others."""

    grid: Grid
    ground: BlockSplit
    split: int
    """Place of the split in ``ground.names``."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what the region is, the same in every process."""
        blocks = self.ground.blocks
        digest = hashlib.sha256(f"{blocks.size!r} {blocks.buffer!r} {self.split}".encode())
        digest.update(self.ground.numbers.tobytes() + self.ground.splits.tobytes())
        return f"sha256:{digest.hexdigest()}"

    def apart_from(self, other: "BlockRegion") -> bool:
        """True if the two are different splits of one division of the ground, so that no place is in both."""
        one, two = self.ground, other.ground
        alike = one is two or (
            one.blocks == two.blocks
            and np.array_equal(one.numbers, two.numbers)
            and np.array_equal(one.splits, two.splits)
        )
        return alike and self.split != other.split

    def __call__(self, window: Window) -> NDArray[np.bool_]:
        """True where pixels are in the split, (H, W); False off the image."""
        top, left, bottom, right = edges(window, self.grid.shape)
        inside = np.zeros((bottom - top, right - left), bool)
        for i in range(max(top, 0) // TILE, -(-min(bottom, self.grid.shape[0]) // TILE)):
            for j in range(max(left, 0) // TILE, -(-min(right, self.grid.shape[1]) // TILE)):
                square = _square(self.grid, i, j)
                shape = square.height, square.width
                tile = np.unpackbits(_tile(self, i, j), count=shape[0] * shape[1]).reshape(shape)
                y0, x0 = max(top, i * TILE), max(left, j * TILE)
                y1, x1 = min(bottom, i * TILE + tile.shape[0]), min(right, j * TILE + tile.shape[1])
                inside[y0 - top : y1 - top, x0 - left : x1 - left] = tile[
                    y0 - i * TILE : y1 - i * TILE, x0 - j * TILE : x1 - j * TILE
                ]
        return inside


@lru_cache(maxsize=4096)  # 128 MiB at most: ten scenes of 10 000 by 10 000 pixels
def _tile(region: BlockRegion, i: int, j: int) -> NDArray[np.uint8]:
    """A square of a region, found once, eight pixels a byte."""
    return np.packbits(split_of(region.grid, region.ground, _square(region.grid, i, j)) == region.split)


def _square(grid: Grid, i: int, j: int) -> Window:
    height, width = grid.shape
    return Window(j * TILE, i * TILE, min(TILE, width - j * TILE), min(TILE, height - i * TILE))


def split_of(grid: Grid, ground: BlockSplit, window: Window) -> NDArray[np.int8]:
    """Place of each pixel's split in ``ground.names``, (H, W); -1 in the buffer and outside all blocks.

    Raises
    ------
    SplitError
        The grid has no place on Earth.
    """
    return ground.at(*lonlat(grid, window))


def lonlat(grid: Grid, window: Window) -> NDArray[np.float64]:
    """Longitude and latitude of pixel centres, degrees on WGS 84, (2, H, W), to a centimetre; inf off Earth.

    A pixel has the same place whichever window it is read in. Longitudes may pass 180 degrees.

    Raises
    ------
    SplitError
        The grid has no place on Earth.
    """
    if grid.crs is None or not grid.placed:
        raise SplitError(
            "an image without a place on Earth (no CRS or no transform) has no blocks of ground: split it by scene or "
            "group, or give it its georeference (gdal_edit, gdalwarp)."
        )
    place = transformer(grid.crs)
    top, left, bottom, right = edges(window, grid.shape)
    first, stop = np.array([top, left]) // CELL, -(-np.array([bottom, right]) // CELL)
    rows, cols = (np.arange(a, b + 1) * float(CELL) for a, b in zip(first, stop, strict=True))
    corners = _places(place, grid, rows, cols)
    middles = _places(place, grid, rows[:-1] + CELL / 2, cols[:-1] + CELL / 2)
    corners = np.stack([corners[:, :-1, :-1], corners[:, :-1, 1:], corners[:, 1:, :-1], corners[:, 1:, 1:]])
    with np.errstate(invalid="ignore"):
        corners[:, 0] = middles[0] + (corners[:, 0] - middles[0] + 180) % 360 - 180  # no jump inside a cell
        off = np.abs(corners.mean(axis=0) - middles).max(axis=0) * METRES
    y, x = ((np.arange(a, b) + 0.5) / CELL for a, b in ((top, bottom), (left, right)))
    i, j = (np.floor(v).astype(int) for v in (y, x))
    y, x = (y - i)[:, None], (x - j)[None, :]
    a, b, c, d = corners[:, :, i - first[0]][:, :, :, j - first[1]]
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + d * x) * y
    curved = ~(off <= EXACT)[i - first[0]][:, j - first[1]]
    if curved.any():
        i, j = np.nonzero(curved)
        col, row = (at.astype(np.float64) + 0.5 for at in (j + left, i + top))
        found[:, i, j] = place.transform(*apply(grid.transform, col, row))
    return found


def _places(
    place: Transformer, grid: Grid, rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Longitude and latitude of a lattice of rows and columns, (2, rows, cols)."""
    return np.stack(place.transform(*apply(grid.transform, *np.meshgrid(cols, rows))))


def transformer(crs: CRS) -> Transformer:
    """The way from a CRS to longitude and latitude on WGS 84, degrees.

    Raises
    ------
    SplitError
        There is none.
    """
    return _transformer(crs.to_wkt())


@lru_cache(maxsize=64)
def _transformer(wkt: str) -> Transformer:
    try:
        return Transformer.from_crs(ProjCRS.from_wkt(wkt), "EPSG:4326", always_xy=True)
    except ProjError as error:
        raise SplitError(f"the CRS of an image cannot be brought to longitude and latitude: {error}.") from error
