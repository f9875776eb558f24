"""Quick-looks: bands stretched to a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from ..core.composites import named_composite, shown_bands
from ..core.windows import edges
from ..raster.gdal import open_raster, quiet
from ..raster.scene import Scene

GAMMA = 0.75
"""Exponent of the stretch; below 1 opens the dark tones in which most land lies."""
STRIP = 2**24
"""Values read at once for a quick-look."""


def composite(scene: Scene, window: Window | None = None, size: int = 1024) -> NDArray[np.uint8]:
    """Quick-look of a scene, (y, x, RGBA), stretched from the 2nd to the 98th percentile of its valid pixels.

    Parameters
    ----------
    scene : Scene
        Shown in red, green and blue by name, else nir, red and green, else by what the file marks as red, green and
        blue, else by its first three bands, else in grey by its first. Read once at full resolution, in strips of
        rows; never held whole.
    window : Window, optional
        The part to show; by default all of it.
    size : int
        Pixels that the longer side of the picture may have. Larger scenes are averaged over square groups of pixels,
        and at the right and lower edges over what is left of one.

    Returns
    -------
    array (height, width, 4), uint8
        Alpha is 0 where no pixel of a group is valid, and white lies beneath.
    """
    top, left, bottom, right = edges(window, scene.grid.shape)
    step = max(1, -(-max(bottom - top, right - left) // size))
    scene, chosen = _shown(scene)
    parts = []
    rows = step * max(1, STRIP // (len(scene.bands) * (right - left) * step))
    for row in range(top, bottom, rows):
        chip = scene.read(Window(left, row, right - left, min(rows, bottom - row)))
        parts.append(average(np.asarray(chip.pixels)[chosen], np.asarray(chip.valid), step))
    image = np.concatenate(parts, axis=1)
    seen = ~np.isnan(image[0])
    return colored([stretch(band, *limits(band[seen])) for band in image], seen)


def colored(bands: Sequence[NDArray[np.uint8]], seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Picture (y, x, RGBA) of three bands, or of one in grey; clear, over white, where nothing is seen."""
    picture = np.full((*seen.shape, 4), 255, np.uint8)
    picture[..., 3] = np.where(seen, 255, 0)
    for channel in range(3):
        picture[seen, channel] = bands[channel % len(bands)][seen]
    return picture


def limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """The 2nd and the 98th percentile of values, NaN left aside; 0 and 0 of none."""
    values = values[~np.isnan(values)]
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, (2, 98))
    return float(low), float(high)


def stretch(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Bytes from `low` to `high`; mid-grey where these are one, and for NaN."""
    if not low < high:
        return np.full(values.shape, 128, np.uint8)
    part = np.clip((values - low) / (high - low), 0, 1) ** GAMMA
    bright: NDArray[np.uint8] = np.rint(255 * np.nan_to_num(part, nan=0.5)).astype(np.uint8)
    return bright


def average(pixels: NDArray[Any], valid: NDArray[np.bool_], step: int) -> NDArray[np.float32]:
    """Mean of the valid pixels in each square of `step`, (C, ceil(H / step), ceil(W / step)); NaN where none is."""
    rows, cols = (np.arange(0, length, step) for length in valid.shape)
    weight = np.add.reduceat(np.add.reduceat(valid.astype(np.float64), rows, axis=0), cols, axis=1)
    values = np.where(valid, pixels, 0).astype(np.float64)
    total = np.add.reduceat(np.add.reduceat(values, rows, axis=1), cols, axis=2)
    return np.where(weight > 0, total / np.maximum(weight, 1), np.nan).astype(np.float32)


def _shown(scene: Scene) -> tuple[Scene, list[int]]:
    """The scene, cut down to the bands to show if they have names, and where those stand in it."""
    named = named_composite(scene.bands)
    if named is not None:
        return scene.select([scene.bands[place] for place in named]), [0, 1, 2]
    return scene, _marked(scene) or list(shown_bands(scene.bands))


def _marked(scene: Scene) -> list[int] | None:
    """Where the bands stand that their one file marks as red, green and blue; None where it does not."""
    rows = scene.origin["bands"]
    files = {row.get("file") for row in rows}
    if None in files or len(files) != 1:
        return None
    with quiet():
        dataset = open_raster(files.pop())
    with dataset:
        kinds = [dataset.colorinterp[row["index"] - 1] for row in rows]
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    return [kinds.index(color) for color in colors] if all(color in kinds for color in colors) else None
