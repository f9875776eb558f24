"""Where windows start, and each one's share of a pixel.

The windows of a scene are the product of two one-dimensional layouts. Which part of a pixel each window
answers for is therefore known before anything is read: no count map, and no division at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window


def offsets(length: int, size: int, stride: int) -> NDArray[np.int64]:
    """Starts of the windows that cover a line, (window,), ascending; the last is pulled back to the end.

    Parameters
    ----------
    length, size, stride : int
        Pixels: of the line, of a window, and from one start to the next. A line shorter than a window
        has one window, at 0, which sticks out.

    Raises
    ------
    ValueError
        A length is not positive, or ``stride > size``, which would leave pixels without a window.

    Examples
    --------
    >>> offsets(1000, 512, 384).tolist()
    [0, 384, 488]
    """
    if min(length, size, stride) < 1 or stride > size:
        raise ValueError(f"need length, size, stride ≥ 1 and stride ≤ size, not {length}, {size}, {stride}")
    last = max(length - size, 0)
    return np.append(np.arange(0, last, stride), last)


def shares(length: int, size: int, stride: int) -> NDArray[np.float64]:
    """Part of each pixel that each window answers for, (window, length); columns sum to one.

    A window is surest at its centre, where it sees most context, so its weight falls off linearly to
    its edges before the columns are normalised: neighbours fade into each other across their overlap.

    Examples
    --------
    >>> shares(4, 3, 1).round(2).tolist()
    [[1.0, 0.67, 0.33, 0.0], [0.0, 0.33, 0.67, 1.0]]
    """
    layout = Layout(length, size, stride)
    weight = np.zeros((len(layout.starts), length))
    for row, start, share in zip(weight, layout.starts, layout.shares, strict=True):
        row[start : start + len(share)] = share
    return weight


@dataclass(frozen=True)
class Layout:
    """Windows of one size along one axis of a scene."""

    length: int
    """Pixels along the axis."""
    size: int
    """Pixels of a window."""
    stride: int
    """Pixels from one window's start to the next; neighbours share ``size - stride``."""

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First pixel of each window."""
        return offsets(self.length, self.size, self.stride)

    @cached_property
    def stops(self) -> NDArray[np.int64]:
        """One past the last pixel of each window, inside the axis."""
        return np.minimum(self.starts + self.size, self.length)

    @cached_property
    def shares(self) -> list[NDArray[np.float64]]:
        """Each window's share of the pixels it covers, a vector of ``stop - start`` a window; see `shares`."""
        ramp = np.minimum(np.arange(1, self.size + 1), np.arange(self.size, 0, -1)).astype(np.float64)
        total = np.zeros(self.length)
        for start, stop in zip(self.starts, self.stops, strict=True):
            total[start:stop] += ramp[: stop - start]
        return [ramp[: stop - start] / total[start:stop] for start, stop in zip(self.starts, self.stops, strict=True)]

    def touching(self, start: int, stop: int) -> range:
        """Which windows have a pixel in ``start:stop``; they stand side by side."""
        first = int(np.searchsorted(self.stops, start, side="right"))
        return range(first, int(np.searchsorted(self.starts, stop, side="left")))


@dataclass(frozen=True)
class Tiling:
    """Windows over a scene, the product of a layout of rows and a layout of columns."""

    rows: Layout
    cols: Layout

    @classmethod
    def of(cls, shape: tuple[int, int], size: tuple[int, int], overlap: int) -> "Tiling":
        """Windows of `size` (height, width) over `shape`, neighbours sharing `overlap` pixels.

        Along an axis that one window covers there are no neighbours, and no overlap.

        Raises
        ------
        ValueError
            The overlap is negative, or not smaller than a window that has neighbours.

        Examples
        --------
        >>> len(Tiling.of((4096, 4096), (512, 512), 128))
        121
        """
        rows, cols = (
            Layout(length, side, side if side >= length else side - overlap)
            for length, side in zip(shape, size, strict=True)
        )
        if overlap < 0 or min(rows.stride, cols.stride) < 1:
            raise ValueError(f"overlap must be from 0 to {min(size) - 1} pixels for windows of {size}, not {overlap}")
        return cls(rows, cols)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the scene, in pixels."""
        return self.rows.length, self.cols.length

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.cols.starts)

    def window(self, i: int, j: int) -> Window:
        """The window in row `i` and column `j` of the tiling; full size, so it may stick out of the scene."""
        return Window(int(self.cols.starts[j]), int(self.rows.starts[i]), self.cols.size, self.rows.size)

    def keys(self, target: Window | None = None) -> Iterator[tuple[int, int]]:
        """(i, j) of the windows that touch `target` (default: the whole scene), row by row."""
        top, left, bottom, right = edges(target, self.shape)
        columns = self.cols.touching(left, right)
        for i in self.rows.touching(top, bottom):
            for j in columns:
                yield i, j


def edges(window: Window | None, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of `window` in whole pixels, bottom and right exclusive; None is all of `shape`."""
    if window is None:
        return 0, 0, *shape
    top, left = int(window.row_off), int(window.col_off)
    return top, left, top + int(window.height), left + int(window.width)


def partition(shape: tuple[int, int], size: int) -> Iterator[Window]:
    """Windows of at most `size` by `size` that hold every pixel of `shape` once, row by row.

    Examples
    --------
    >>> [(w.row_off, w.height) for w in partition((700, 500), 512)]
    [(0, 512), (512, 188)]
    """
    height, width = shape
    for row in range(0, height, size):
        for col in range(0, width, size):
            yield Window(col, row, min(size, width - col), min(size, height - row))
