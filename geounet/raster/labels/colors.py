"""Labels from a mask that shows its classes as colours."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from ...core.grid import Grid
from ...core.legend import Colour, Legend, hex_color, parse_color
from ...errors import LabelError, LegendError
from .base import Labels
from .placement import PlacedBands, image_bands, labelled, place, readable

Colors = Mapping[int | str, Sequence[int] | str]
"""Colours by class code or name."""

LOOK = 1024
"""Side, in pixels, of the middle of a mask, whose colours are looked up when it is opened: a wrong key is found early."""


@dataclass(frozen=True, eq=False)
class ColorKey:
    """What the colours of a mask mean."""

    colors: NDArray[np.int32]
    """Colours as one number each, ascending, (M,)."""
    ids: NDArray[np.unsignedinteger]
    """What each stands for: a class id, or no label, (M,)."""

    @classmethod
    def of(cls, legend: Legend, colors: Colors, ignore: Sequence[int | str]) -> "ColorKey":
        """Colours of the classes, and of codes without a label.

        Raises
        ------
        LegendError
            A colour is given for what is neither a class nor ignored, or two classes have the same one.
        """
        given = {str(key): parse_color(value) for key, value in colors.items()}
        meaning: dict[Colour, set[int]] = defaultdict(set)
        for i, info in enumerate(legend.classes):
            meaning[given.pop(str(info.code), given.pop(info.name, info.color))].add(i)
        for key in map(str, ignore):
            if key in given:
                meaning[given.pop(key)].add(legend.ignore_index)
        if given:
            raise LegendError(
                f"colors has {', '.join(given)}, which is neither a class ({_classes(legend)}) nor listed under ignore."
            )
        for color, shared in meaning.items():
            if len(shared) > 1:
                names = [legend.names[i] if i < len(legend) else "no label" for i in sorted(shared)]
                raise LegendError(
                    f"{' and '.join(names)} have the same colour {hex_color(color)}, so a mask in colours cannot tell "
                    "them apart; give each its own (colors=…)."
                )
        packed = _pack(np.array(list(meaning)).T)
        ids = np.array([min(shared) for shared in meaning.values()], legend.id_dtype)
        order = np.argsort(packed)
        return cls(packed[order], ids[order])

    def lookup(self, packed: NDArray[np.int32]) -> tuple[NDArray[np.unsignedinteger], NDArray[np.bool_]]:
        """Meaning of colours, and which of them have one, both of the shape given."""
        places = np.minimum(np.searchsorted(self.colors, packed), len(self.colors) - 1)
        return self.ids[places], self.colors[places] == packed


@dataclass(frozen=True, eq=False)
class ColorLabels(Labels):
    """Labels in a mask whose red, green and blue are looked up, each colour exactly."""

    picture: PlacedBands
    key: ColorKey
    unknown: str
    """What to do with colours that nobody knows: 'raise' or 'ignore'."""
    hint: str
    """What to do about them."""

    def _ids(self, window: Window) -> NDArray[np.unsignedinteger]:
        values, there = self.picture.read(window)
        ids = np.full(there.shape, self.legend.ignore_index, self.legend.id_dtype)
        packed = _pack(values[:, there])
        found, known = self.key.lookup(packed)
        if self.unknown == "raise" and not known.all():
            raise LegendError(_strange(self.source, packed[~known], self.legend, self.hint))
        ids[there] = np.where(known, found, self.legend.ignore_index)
        return ids


def open_colors(
    path: str,
    dataset: Any,
    grid: Grid,
    legend: Legend,
    *,
    ignore: Sequence[int | str],
    unknown: str,
    resample: bool,
    colors: Colors,
) -> ColorLabels:
    """Labels in a raster of three bands, red, green and blue, and perhaps a fourth, alpha.

    Raises
    ------
    LabelError
        It has other bands, or cannot be brought onto the grid.
    LegendError
        Its colours are not those of the classes.
    """
    bands, alpha, notes = _bands(path, dataset)
    key = ColorKey.of(legend, colors, ignore)
    hint = _hint(dataset)
    seen = _look(path, dataset, bands, alpha)
    strange = seen[~key.lookup(seen)[1]]
    if len(strange) and unknown == "raise":
        raise LegendError(_strange(path, strange, legend, hint))
    if len(seen) and len(strange) == len(seen):
        notes.append(
            f"{path} shows none of the legend's colours, so nothing is labelled where it shows {_some_colors(strange)}."
        )
    picture, said = place(path, dataset, bands, alpha, grid, resample=resample)
    return ColorLabels(path, legend, grid, (*notes, *said), picture, key, unknown, hint)


def _bands(path: str, dataset: Any) -> tuple[list[int], int | None, list[str]]:
    """Indexes of red, green and blue, that of alpha, and notes."""
    bands, alpha = image_bands(dataset)
    notes = []
    if len(bands) == 4 and dataset.colorinterp[3] == ColorInterp.undefined:
        *bands, alpha = bands
        notes.append(f"{path} has a fourth band that nothing describes; it is taken as alpha, so 0 means no label.")
    if len(bands) != 3:
        raise LabelError(
            f"{path} has {dataset.count} bands; labels have one band of class codes, or show classes by colours in three "
            "(red, green, blue) or four (and alpha). Take out the band that holds the classes (gdal_translate -b)."
        )
    odd = {dataset.dtypes[i - 1] for i in bands} - {"uint8"}
    if odd:
        raise LabelError(
            f"{path} has 3 bands of {', '.join(sorted(odd))}; labels have one band of class codes, or show classes by "
            "colours of 8 bits (uint8)."
        )
    kinds = {kind: i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True)}
    primary = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    return [kinds[kind] for kind in primary] if all(kind in kinds for kind in primary) else bands, alpha, notes


def _look(path: str, dataset: Any, bands: Sequence[int], alpha: int | None) -> NDArray[np.int32]:
    """Colours of the pixels with a label in the middle of a mask."""
    height, width = dataset.shape
    middle = Window(
        (width - min(width, LOOK)) // 2, (height - min(height, LOOK)) // 2, min(width, LOOK), min(height, LOOK)
    )
    with readable(path):
        values, there = labelled(dataset, bands, alpha, window=middle)
    return _pack(values[:, there])


def _pack(values: NDArray[Any]) -> NDArray[np.int32]:
    """Red, green and blue, (3, ...), as one number."""
    red, green, blue = values.astype(np.int32)
    packed: NDArray[np.int32] = (red << 16) | (green << 8) | blue
    return packed


def _hint(dataset: Any) -> str:
    """What to do about colours that nobody knows."""
    if "JPEG" in f"{dataset.driver} {dataset.tags(ns='IMAGE_STRUCTURE').get('COMPRESSION', '')}":
        return "The file is compressed by JPEG, which changes colours: make it again without loss (PNG, DEFLATE)."
    return (
        "Give each class its colour in the file (colors={code: '#rrggbb'}), a colour without a label the same way under "
        "a code listed in ignore, or pass unknown='ignore'."
    )


def _strange(path: str, packed: NDArray[np.int32], legend: Legend, hint: str) -> str:
    return f"{path} shows the colours {_some_colors(packed)}, which are not those of the legend ({_classes(legend)}). {hint}"


def _some_colors(packed: NDArray[np.int32], most: int = 10) -> str:
    """Colours and how many pixels have each, the most frequent first."""
    colors, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [f"#{colors[i]:06x} in {counts[i]} pixels" for i in order[:most]]
    return ", ".join(shown) + (f" and {len(colors) - most} more" if len(colors) > most else "")


def _classes(legend: Legend) -> str:
    return ", ".join(f"{info.name} {hex_color(info.color)}" for info in legend.classes[:10])
