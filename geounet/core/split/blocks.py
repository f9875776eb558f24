"""Blocks of ground on one lattice for the whole Earth, so that scenes of any CRS are cut alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import SplitError

RADIUS = 6_335_439.0
"""Metres: the smallest radius of curvature of the WGS 84 ellipsoid, a (1 - e²), of the meridian at the equator.

On a sphere of this radius, with geodetic latitudes taken as they are, every way is at most as long as on the
ellipsoid (and at most 1 % shorter), so what lies a buffer apart here does so on Earth.
"""
SLACK = 0.02
"""Metres added to half the buffer, for coordinates that were interpolated or rounded."""
DENSE = 500_000
"""Blocks that are looked up in a table without gaps, twenty times as fast as by bisection."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of some `size` between parallels and meridians, and the distance to keep across their edges.

    Rows lie between parallels; each row has as many columns as fit its poleward edge. The lattice is the Earth's, and
    not a scene's: new scenes leave the blocks of the old ones where they are.
    """

    size: float
    """Metres: sides of a block are at least this long, and hardly longer away from the poles."""
    buffer: float = 0.0
    """Metres that labelled pixels of two splits lie apart at least, from centre to centre."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.size) and 0 < self.size <= RADIUS and 0 <= self.buffer <= self.size - 2 * SLACK):
            raise SplitError(
                f"blocks of {self.size:g} m with a buffer of {self.buffer:g} m cannot be laid: size must be positive and "
                "at most 6000 km, and the buffer at least 0 and smaller than size."
            )

    def at(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int64]:
        """Number of the block that holds each point, same shape; -1 where a coordinate is not finite.

        Parameters
        ----------
        lon, lat : arrays of the same shape
            Degrees on WGS 84.
        """
        good = np.isfinite(lon) & np.isfinite(lat)
        lam, phi = (np.where(good, np.radians(angle), 0.0) for angle in (lon, lat))
        return np.where(good, self._number(lam, phi), -1)

    def near(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int64]:
        """Numbers of all blocks within half the buffer of each point, (6, ...), with repeats.

        If two points lie less than a buffer apart, the middle of the way between them is near both, and so is
        its block: points whose blocks nearby are all of one split are therefore at least a buffer from such points of
        another split.

        -1 where a coordinate is not finite, or a pole is nearer than half the buffer.
        """
        if not self.buffer:
            return self.at(lon, lat)[None]
        radius = (self.buffer / 2 + SLACK) / RADIUS
        lam, phi = np.radians(lon), np.radians(lat)
        with np.errstate(invalid="ignore"):
            good = np.isfinite(lam) & (np.abs(phi) + radius < np.pi / 2)
        lam, phi = np.where(good, lam, 0.0), np.where(good, phi, 0.0)
        half = np.arcsin(np.minimum(np.sin(radius) / np.cos(phi), 1.0))  # longitudes of a cap, from tangent to tangent
        # a cap is at most as high as a row, and half of it at most as wide as a column: no block lies between
        found = [self._number(lam + step * half, phi + rise) for rise in (-radius, radius) for step in (-1, 0, 1)]
        return np.where(good, np.stack(found), -1)

    def _number(self, lam: NDArray[np.float64], phi: NDArray[np.float64]) -> NDArray[np.int64]:
        """Number of the block at a place in radians."""
        row = np.floor((phi + np.pi / 2) / (self.size / RADIUS)).astype(np.int64)
        turn = (lam / (2 * np.pi) + 0.5) % 1.0
        low, high = (int(row.min()), int(row.max())) if row.size else (0, 0)
        # pixels of a scene lie in few rows, whose columns are counted once
        few = high - low < row.size
        columns = self._columns(np.arange(low, high + 1))[row - low] if few else self._columns(row)
        column = np.minimum((turn * columns).astype(np.int64), columns - 1)
        number: NDArray[np.int64] = row * (int(2 * np.pi * RADIUS / self.size) + 1) + column
        return number

    def _columns(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many blocks there are in each row."""
        height = self.size / RADIUS
        edge = np.maximum(np.abs(row * height - np.pi / 2), np.abs((row + 1) * height - np.pi / 2))
        around = 2 * np.pi * np.cos(np.minimum(edge, np.pi / 2))
        columns: NDArray[np.int64] = np.maximum(np.floor(around / height), 1).astype(np.int64)
        return columns


@dataclass(frozen=True, eq=False)
class BlockSplit:
    """Blocks of ground, each in one split."""

    blocks: Blocks
    numbers: NDArray[np.int64]
    """Of the blocks, (n,), ascending."""
    splits: NDArray[np.int64]
    """Place of each block's split in `names`, (n,)."""
    names: tuple[str, ...]
    """Of the splits."""

    def at(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int8]:
        """Place of each point's split in `names`, same shape; -1 in the buffer, and where no block was given a split.

        Parameters
        ----------
        lon, lat : arrays of the same shape
            Degrees on WGS 84.
        """
        near = self._split(self.blocks.near(lon, lat))
        return np.where((near == near[0]).all(axis=0), near[0], -1).astype(np.int8)

    def _split(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place of each block's split in `names`; -1 for a block that was given none."""
        low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
        if 0 <= low <= high < low + DENSE:
            table = np.full(high - low + 1, -1)
            first, last = np.searchsorted(self.numbers, [low, high + 1])
            table[self.numbers[first:last] - low] = self.splits[first:last]
            return np.asarray(table[numbers - low])
        place = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return np.where(self.numbers[place] == numbers, self.splits[place], -1)
