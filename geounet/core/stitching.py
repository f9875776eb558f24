"""Add overlapping chips into rows, and let finished rows go.

At most one chip's height of rows is held, whatever the height of the scene.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, device
from rasterio.windows import Window

from .windows import Tiling, edges

Array: TypeAlias = Any
"""An array of any library that speaks the array API: numpy, torch."""


def stitch(
    chips: Iterable[tuple[tuple[int, int], Array | None]], tiling: Tiling, target: Window | None = None
) -> Iterator[tuple[Window, Array | None]]:
    """Rows of the mosaic as they become whole, top to bottom, each the share-weighted sum of its chips.

    Parameters
    ----------
    chips : iterable of ((i, j), array (K, size, size) or None)
        In the order of ``tiling.keys(target)``. None adds nothing, as if the chip were 0 everywhere.
    tiling : Tiling
        Where the chips stand; what sticks out of the scene is dropped.
    target : Window, optional
        The part of the scene to make; by default all of it.

    Yields
    ------
    window : Window
        Finished rows, as wide as `target`.
    sums : array (K, height, width), float32, or None
        On the chips' device. A view that the next step overwrites: reduce or copy it first. None where no
        chip of these rows held anything.
    """
    top, left, bottom, right = edges(target, tiling.shape)
    last = tiling.cols.touching(left, right)[-1]
    final = tiling.rows.touching(top, bottom)[-1]
    rows: Array | None = None
    filled = False
    done = top
    for (i, j), chip in chips:
        if chip is not None:
            if rows is None:
                xp = array_namespace(chip)
                shape = (chip.shape[0], min(tiling.rows.size, bottom - top), right - left)
                rows = xp.zeros(shape, dtype=xp.float32, device=device(chip))
            _add(rows, chip, tiling, (i, j), (done, left, bottom, right))
            filled = True
        if j != last:
            continue
        stop = bottom if i == final else min(max(int(tiling.rows.starts[i + 1]), top), bottom)
        height = stop - done
        if height == 0:
            continue
        yield Window(left, done, right - left, height), rows[:, :height] if rows is not None and filled else None
        done = stop
        if rows is not None and filled:
            filled = _scroll(rows, height, i != final)


def _add(rows: Array, chip: Array, tiling: Tiling, key: tuple[int, int], target: tuple[int, int, int, int]) -> None:
    """Add one chip, times its share, to the rows that begin at the target's top."""
    i, j = key
    top, left, bottom, right = target
    y0, y1 = max(int(tiling.rows.starts[i]), top), min(int(tiling.rows.stops[i]), bottom)
    x0, x1 = max(int(tiling.cols.starts[j]), left), min(int(tiling.cols.stops[j]), right)
    y, x = int(tiling.rows.starts[i]), int(tiling.cols.starts[j])
    share = tiling.rows.shares[i][y0 - y : y1 - y, None] * tiling.cols.shares[j][None, x0 - x : x1 - x]
    share = share.astype(np.float32)
    xp = array_namespace(chip)
    weight = share if isinstance(chip, np.ndarray) else xp.asarray(share, device=device(chip))
    rows[:, y0 - top : y1 - top, x0 - left : x1 - left] += chip[:, y0 - y : y1 - y, x0 - x : x1 - x] * weight


def _scroll(rows: Array, height: int, going_on: bool) -> bool:
    """Move the unfinished rows up by `height` and clear what follows; True if there may be something left."""
    if not going_on:
        return False
    keep: int = rows.shape[1] - height
    for start in range(0, keep, height):  # piecewise, so that no piece overlaps its source
        stop = min(start + height, keep)
        rows[:, start:stop] = rows[:, start + height : stop + height]
    rows[:, max(keep, 0) :] = 0
    return keep > 0
