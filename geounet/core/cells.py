"""What any window of a scene holds, known from counts on a coarse grid without reading it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELL = 1
"""Side of the smallest cell, in pixels."""
LARGEST_CELL = 512
MOST_NUMBERS = 2**23
"""Counts kept of all scenes together, 32 MiB; cells are larger where there would be more."""


def cell_size(shapes: Sequence[tuple[int, int]], classes: int) -> int:
    """Side of the cells, in pixels, that keeps the counts of all scenes of these shapes within `MOST_NUMBERS`.

    Examples
    --------
    >>> cell_size([(10_240, 10_240)], 5), cell_size([(10_240, 10_240)] * 100, 5)
    (16, 128)
    """
    size = CELL
    while size < LARGEST_CELL and _numbers(shapes, size) * (classes + 1) > MOST_NUMBERS:
        size *= 2
    return size


def _numbers(shapes: Sequence[tuple[int, int]], size: int) -> int:
    return sum((-(-height // size) + 1) * (-(-width // size) + 1) for height, width in shapes)


def count_cells(ids: NDArray[np.integer], valid: NDArray[np.bool_], classes: int, size: int) -> NDArray[np.int64]:
    """Pixels of each class in square cells, (rows, cols, classes + 1); last, the valid ones without a class.

    Parameters
    ----------
    ids : array (H, W) of integers
        Class ids; all but 0 … ``classes - 1`` are no class.
    valid : array (H, W) of bool
        True where the pixel counts.
    size : int
        Side of a cell, in pixels; cells at the end may be cut off.
    """
    height, width = valid.shape
    rows, cols = -(-height // size), -(-width // size)
    kind = np.minimum(ids, classes, dtype=np.int64, where=ids >= 0, out=np.full(ids.shape, classes, np.int64))
    place = (np.arange(height) // size)[:, None] * cols + np.arange(width) // size
    counts = np.bincount((place * (classes + 1) + kind)[valid], minlength=rows * cols * (classes + 1))
    return counts.reshape(rows, cols, classes + 1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Cells:
    """Pixels of each class in the cells of one scene, summed so that any window's are four look-ups away [1]_.

    A window's edge is taken to cut the pixels of a cell evenly: a window of whole cells is exact, another is off by
    what its outermost cells hold unevenly.

    References
    ----------
    .. [1] F. C. Crow, Summed-area tables for texture mapping, SIGGRAPH 1984.
    """

    shape: tuple[int, int]
    """Height and width of the scene, in pixels."""
    size: int
    """Side of a cell, in pixels."""
    sums: NDArray[np.integer]
    """Pixels above and to the left of each corner of a cell, (rows + 1, cols + 1, K + 1), by class id; last, the
    valid ones without a label."""

    @classmethod
    def of(cls, shape: tuple[int, int], size: int, counts: NDArray[np.integer]) -> "Cells":
        """Sum the counts a cell, (rows, cols, K + 1)."""
        rows, cols, kinds = counts.shape
        sums = np.zeros((rows + 1, cols + 1, kinds), np.int32 if shape[0] * shape[1] < 2**31 else np.int64)
        sums[1:, 1:] = counts.cumsum(axis=0).cumsum(axis=1)
        return cls(shape, size, sums)

    @property
    def classes(self) -> int:
        """Classes counted; 0 where there are no labels."""
        return int(self.sums.shape[2]) - 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.sums.shape[0] - 1, self.sums.shape[1] - 1

    @property
    def totals(self) -> NDArray[np.int64]:
        """Pixels of the scene, (K + 1,), by class id; last, the valid ones without a label."""
        totals: NDArray[np.int64] = self.sums[-1, -1].astype(np.int64)
        return totals

    def pixels(self, kind: int) -> NDArray[np.integer]:
        """Pixels of a class in each cell, (rows, cols)."""
        pixels: NDArray[np.integer] = np.diff(np.diff(self.sums[:, :, kind], axis=0), axis=1)
        return pixels

    def inside(self, tops: NDArray[np.integer], lefts: NDArray[np.integer], side: int) -> NDArray[np.float64]:
        """Pixels in square windows, (N, K + 1), by class id; last, the valid ones without a label.

        Parameters
        ----------
        tops, lefts : array (N,) of integers
            First row and column of each window, in pixels; it may stick out.
        side : int
            Of every window, in pixels.
        """
        (above, over), (below, under) = (self._corner(tops + more, 0) for more in (0, side))
        (before, left), (after, right) = (self._corner(lefts + more, 1) for more in (0, side))
        return (
            self._sum(below, under, after, right)
            - self._sum(above, over, after, right)
            - self._sum(below, under, before, left)
            + self._sum(above, over, before, left)
        )

    def labelled(self) -> "Cells":
        """Cells of one kind: the pixels with a label, or the valid ones where there are no labels."""
        kinds = self.sums[:, :, : self.classes or 1]
        return Cells(self.shape, self.size, kinds.sum(axis=2, keepdims=True, dtype=self.sums.dtype))

    def lattice(self, tops: NDArray[np.integer], lefts: NDArray[np.integer], side: int) -> NDArray[np.float64]:
        """As `inside`, of the windows at every top and every left, (T, L, K + 1)."""
        rows = self._along(self.sums, tops + side, 0) - self._along(self.sums, tops, 0)
        return self._along(rows, lefts + side, 1) - self._along(rows, lefts, 1)

    def _along(self, sums: NDArray[Any], pixel: NDArray[np.integer], axis: int) -> NDArray[np.float64]:
        """Sums at places along an axis, between the corners of their cells."""
        cell, part = self._corner(pixel, axis)
        part = part[:, None, None] if axis == 0 else part[:, None]
        found: NDArray[np.float64] = (1 - part) * sums.take(cell, axis) + part * sums.take(cell + 1, axis)
        return found

    def area(self, tops: NDArray[np.integer], lefts: NDArray[np.integer], side: int) -> NDArray[np.float64]:
        """Pixels of the scene in each window, (N,), valid or not."""
        height, width = (
            np.clip(starts + side, 0, length) - np.clip(starts, 0, length)
            for starts, length in zip((tops, lefts), self.shape, strict=True)
        )
        return np.asarray(height * width, np.float64)

    def _corner(self, pixel: NDArray[np.integer], axis: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Cell of a line between pixels, and the part of the cell before it; the last cell may be cut off."""
        length = self.shape[axis]
        pixel = np.clip(pixel, 0, length)
        cell = np.minimum(pixel // self.size, self.sums.shape[axis] - 2)
        width = np.minimum((cell + 1) * self.size, length) - cell * self.size
        return cell, (pixel - cell * self.size) / width

    def _sum(
        self, row: NDArray[np.int64], down: NDArray[np.float64], col: NDArray[np.int64], along: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Pixels above and to the left of points, (N, K + 1), between the corners of their cells."""
        down, along = down[:, None], along[:, None]
        upper = (1 - along) * self.sums[row, col] + along * self.sums[row, col + 1]
        lower = (1 - along) * self.sums[row + 1, col] + along * self.sums[row + 1, col + 1]
        found: NDArray[np.float64] = (1 - down) * upper + down * lower
        return found
