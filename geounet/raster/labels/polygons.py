"""Labels from polygons, burnt window by window."""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import geopandas
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.grid import Grid
from ...core.legend import Legend
from ...errors import LabelError
from .base import Labels
from .shapes import Shapes, read_features, shapes_of


@dataclass(frozen=True, eq=False)
class PolygonLabels(Labels):
    """Labels burnt from polygons: of a pixel's centre, the last polygon that holds it."""

    shapes: Shapes
    """Polygons on the image, with their class ids."""
    outside: int
    """Id of the pixels in none of them."""

    def _ids(self, window: Window) -> NDArray[np.unsignedinteger]:
        return self.shapes.burn(window, self.outside)


def open_polygons(
    path: str,
    grid: Grid,
    legend: Legend,
    *,
    column: str | None,
    layer: str | None,
    background: int | None,
    ignore: Sequence[int | str],
    unknown: str,
    why: str,
) -> PolygonLabels:
    """Labels in a vector file; `why` says why it is no raster.

    Raises
    ------
    LabelError
        As `open_labels`.
    """
    frame = read_features(path, layer, grid, option="layer", why=why)
    notes = []
    if not len(frame):
        notes.append(
            f"{path} has no polygon on the image: {'all is background' if background is not None else 'no labels'}."
        )
    ids = _classes(frame, path, legend, column, background, ignore, unknown)
    shapes, said = shapes_of(frame, ids, path, grid)
    return PolygonLabels(
        source=path,
        legend=legend,
        grid=grid,
        notes=(*notes, *said),
        shapes=shapes,
        outside=legend.ignore_index if background is None else legend.codes.index(background),
    )


def _classes(
    frame: geopandas.GeoDataFrame,
    path: str,
    legend: Legend,
    column: str | None,
    background: int | None,
    ignore: Sequence[int | str],
    unknown: str,
) -> NDArray[np.unsignedinteger]:
    """Class id of each feature, (P,)."""
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if column is None:
        own = [i for i, code in enumerate(legend.codes) if code != background]
        if len(own) != 1:
            raise LabelError(
                f"{path} has the columns {', '.join(columns) or '(none)'}; say which one holds the class (column=…), as "
                f"the legend has {len(own)} classes: {', '.join(legend.names)}."
            )
        return np.full(len(frame), own[0], legend.id_dtype)
    if column not in columns:
        raise LabelError(f"{path} has no column {column}; it has {', '.join(columns) or 'none'}.")
    known: dict[Hashable, int] = dict.fromkeys(ignore, legend.ignore_index)
    known |= {name: i for i, name in enumerate(legend.names)} | {code: i for i, code in enumerate(legend.codes)}
    values = [None if null else value for value, null in zip(frame[column], frame[column].isna(), strict=True)]
    keys = [None if value is None else _key(value, known) for value in values]
    strange = [value for value, key in zip(values, keys, strict=True) if key not in known]
    if strange and unknown == "raise":
        shown = ["NULL" if value is None else str(value) for value in strange]
        classes = ", ".join(f"{c.code} {c.name}" for c in legend.classes)
        raise LabelError(
            f"column {column} of {path} holds {', '.join(dict.fromkeys(shown))}, which the legend does not know "
            f"({classes}). Correct the column, extend the legend or ignore, or pass unknown='ignore'."
        )
    return np.array([known.get(key, legend.ignore_index) for key in keys], legend.id_dtype)


def _key(value: Any, known: dict[Hashable, int]) -> Hashable:
    """What a value of a column is called in the legend: a name, or a whole number written in any way."""
    with suppress(ValueError, TypeError, OverflowError):  # text, lists, infinity
        if value in known:
            return value  # type: ignore[no-any-return]
        if float(value) == int(float(value)):
            return int(float(value))
    return None
