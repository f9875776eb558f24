"""Contact sheets: chips beside their labels, and what was made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ..core.legend import ClassInfo, Legend, hex_color
from ..core.metrics import mean_iou
from .composites import colored, limits, stretch
from .figures import INK, MUTED, Key, PathLike, clip, new_figure, paint, save, show
from .names import elided, short_names

if TYPE_CHECKING:
    from ..nn.segmenter import BandInfo
    from ..training.outcome.examples import Example

WRONG = (213, 94, 0)
"""Vermilion of Okabe and Ito, which the colour-blind tell from greys."""
WIDTH, EDGE, GAP, AIR = 11.6, 0.12, 0.06, 0.26
"""Of a sheet, its margin, and between panels and between chips, in inches."""
NARROWEST = 0.2
"""Part of the range of the training pixels that a picture spans at least: noise is not to look like a pattern."""
Limits: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Tile:
    """A chip on a sheet."""

    caption: Sequence[str]
    """Lines above it."""
    pictures: Sequence[NDArray[np.uint8]]
    """(y, x, RGBA), side by side; the first is a photograph, the others are of few colours."""


def plot_inputs(
    examples: "Sequence[Example]",
    bands: "Sequence[BandInfo]",
    legend: Legend,
    path: PathLike,
    *,
    overwrite: bool = False,
) -> Path:
    """What the network was shown: training chips after augmentation, and their labels, as a PNG.

    All are stretched alike, from the 1st to the 99th percentile of the training pixels, so that an augmentation of the
    light can be seen.

    Parameters
    ----------
    examples : sequence of Example
        At least one.
    bands : sequence of BandInfo
        Those that the examples hold.
    legend : Legend
    path : path
        Written atomically.

    Raises
    ------
    OutputExistsError, OutputError
        The file is there already and `overwrite` is not set, or its folder is not.
    """
    ranges = _ranges(examples, bands)
    names = short_names(example.place.name for example in examples)
    tiles = [Tile([_where(one, names, 32)], [_photograph(one, ranges), paint(one.labels, legend)]) for one in examples]
    key = Key.of(_met(examples, legend), WIDTH, blank="no data, or no label")
    return save(_sheet(tiles, ("image", "labels"), 4, key), path, overwrite)


def plot_scored(
    examples: "Sequence[Example]",
    bands: "Sequence[BandInfo]",
    legend: Legend,
    path: PathLike,
    *,
    overwrite: bool = False,
) -> Path:
    """Validation chips: image, labels, prediction and errors, as a PNG.

    Each is stretched by itself, all its bands by the same part of what the training pixels span, so that colours stay
    those of `plot_inputs`.

    Parameters
    ----------
    examples : sequence of Example
        At least one, with predictions.
    bands : sequence of BandInfo
        Those that the examples hold.
    legend : Legend
    path : path
        Written atomically.

    Raises
    ------
    OutputExistsError, OutputError
        The file is there already and `overwrite` is not set, or its folder is not.
    """
    ranges = _ranges(examples, bands)
    names = short_names(example.place.name for example in examples)
    tiles = [_scored(f"{n}   {_where(one, names, 64)}", one, ranges, legend) for n, one in enumerate(examples, start=1)]
    wrong = Patch(facecolor=hex_color(WRONG), edgecolor="#00000030", label="wrong")
    key = Key.of(_met(examples, legend), WIDTH, more=[wrong], blank="no data, or no label")
    return save(_sheet(tiles, ("image", "labels", "prediction", "errors"), 2, key), path, overwrite)


def _scored(title: str, example: "Example", ranges: Sequence[Limits], legend: Legend) -> Tile:
    assert example.predicted is not None
    assert example.confusion is not None
    labelled = int(example.confusion.counts.sum())
    score = (
        f"{example.wrong / labelled:.0%} of {labelled:,} labelled pixels wrong · "
        f"mean IoU {mean_iou(example.confusion.counts):.2f}"
    )
    photograph = _photograph(example, _own(example, ranges))
    masks = [paint(ids, legend) for ids in (example.labels, example.predicted)]
    return Tile([title, score], [photograph, *masks, _errors(example, photograph, legend)])


def _errors(example: "Example", photograph: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """Wrong pixels over the pale image; clear where there is no label to be wrong about."""
    assert example.predicted is not None
    grey = photograph[..., :3].mean(axis=-1, keepdims=True)
    judged = (example.labels != legend.ignore_index) & example.valid
    wrong = judged & (example.labels != example.predicted)
    tint, depth = np.where(wrong[..., None], WRONG, 255), np.where(wrong[..., None], 0.25, 0.35)
    picture = np.full_like(photograph, 255)
    picture[..., :3] = np.rint(tint + depth * (grey - tint))
    picture[..., 3] = np.where(judged, 255, 0)
    return picture


def _photograph(example: "Example", ranges: Sequence[Limits]) -> NDArray[np.uint8]:
    """The bands shown; mid-grey where one of them is withheld, clear where there is no data at all."""
    bands = [stretch(band, *range_) for band, range_ in zip(example.image, ranges, strict=True)]
    return colored(bands, example.valid)


def _ranges(examples: "Sequence[Example]", bands: "Sequence[BandInfo]") -> list[Limits]:
    """What is black and white: of the training pixels, or of the examples where nothing is known of those."""
    ranges = []
    for place, band in enumerate(bands):
        low, high = (band.percentiles.get(key, np.nan) for key in ("1", "99"))
        if not low < high:
            low, high = limits(np.concatenate([one.image[place].ravel() for one in examples]))
        ranges.append((low, high))
    return ranges


def _own(example: "Example", ranges: Sequence[Limits]) -> list[Limits]:
    """The part of the ranges that an example takes, one part for all bands, and not less than `NARROWEST`."""
    spans = [(low, (high - low) or 1.0) for low, high in ranges]
    parts = [(band - low) / span for band, (low, span) in zip(example.image, spans, strict=True)]
    low, high = limits(np.concatenate(parts))
    short = max(0.0, NARROWEST - (high - low)) / 2
    return [(start + (low - short) * span, start + (high + short) * span) for start, span in spans]


def _where(example: "Example", names: Mapping[str, str], longest: int) -> str:
    """Scene and corner of the window, in so many letters."""
    name, window = names[example.place.name], example.place.window
    corner = "" if window is None else f" · row {window.row_off}, col {window.col_off}"
    return clip(elided(name, longest - len(corner)) + corner, longest)


def _met(examples: "Sequence[Example]", legend: Legend) -> list[ClassInfo]:
    """Classes that labels or predictions hold."""
    there = np.zeros(legend.ignore_index + 1, np.bool_)
    for one in examples:
        there[one.labels] = True
        if one.predicted is not None:
            there[one.predicted] = True
    return [info for place, info in enumerate(legend.classes) if there[place]]


def _sheet(tiles: Sequence[Tile], headings: Sequence[str], columns: int, key: Key) -> Figure:
    """Tiles in rows; what the panels are stands above the first."""
    columns = min(columns, len(tiles))
    panels = len(headings)
    side = (WIDTH - 2 * EDGE - (columns - 1) * AIR - columns * (panels - 1) * GAP) / (columns * panels)
    side = min(side, 2.2)
    caption = 0.1 + 0.165 * len(tiles[0].caption)
    row_height = side + caption + 0.1
    height = 0.28 + ceil(len(tiles) / columns) * row_height + key.height
    figure = new_figure(WIDTH, height, dpi=144)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left = EDGE + column * (panels * side + (panels - 1) * GAP + AIR)
        top = height - 0.28 - row * row_height
        for line, text in enumerate(tile.caption):
            figure.text(
                left / WIDTH, (top - 0.06 - 0.165 * line) / height, text, va="top", fontsize=8.5,
                color=MUTED if line else INK,
            )  # fmt: skip
        for place, picture in enumerate(tile.pictures):
            x, y = left + place * (side + GAP), top - caption - side
            axes = figure.add_axes((x / WIDTH, y / height, side / WIDTH, side / height), anchor="NW")
            show(axes, picture, picture.shape[:2], "nearest" if place else "antialiased")
            if row == 0:
                figure.text(
                    x / WIDTH, 1 - 0.08 / height, headings[place], va="top", fontsize=9, color=INK, fontweight="bold"
                )
    key.draw(figure)
    return figure
