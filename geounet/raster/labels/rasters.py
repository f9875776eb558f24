"""Labels from a raster of class codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.grid import Grid
from ...core.legend import Legend
from ...errors import LabelError
from .base import Labels
from .placement import PlacedBands, image_bands, place


@dataclass(frozen=True, eq=False)
class RasterLabels(Labels):
    """Labels in a raster of class codes."""

    codes: PlacedBands
    ignore: tuple[int, ...]
    """Codes that mean no label, beside nodata and NaN."""
    unknown: str
    """What to do with codes that nobody knows: 'raise' or 'ignore'."""

    def _ids(self, window: Window) -> NDArray[np.unsignedinteger]:
        (codes,), labelled = self.codes.read(window)
        ids = np.full(codes.shape, self.legend.ignore_index, self.legend.id_dtype)
        ids[labelled] = self.legend.encode(
            codes[labelled], ignore=self.ignore, unknown=self.unknown, source=self.source
        )
        return ids


def open_codes(
    path: str, dataset: Any, grid: Grid, legend: Legend, *, ignore: Sequence[int | str], unknown: str, resample: bool
) -> RasterLabels:
    """Labels in a raster of class codes.

    Raises
    ------
    LabelError
        It has complex values, or `place` cannot bring it onto the grid.
    """
    if dataset.dtypes[0].startswith("complex"):
        raise LabelError(f"{path} holds complex numbers ({dataset.dtypes[0]}); labels are whole numbers.")
    bands, alpha = image_bands(dataset)
    codes, notes = place(path, dataset, bands, alpha, grid, resample=resample)
    skipped = tuple(code for code in ignore if not isinstance(code, str))  # a raster holds no names
    return RasterLabels(path, legend, grid, (*notes, *_nodata_notes(path, dataset, legend)), codes, skipped, unknown)


def _nodata_notes(path: str, dataset: Any, legend: Legend) -> Iterator[str]:
    """Warn of a class that can have no pixels."""
    for info in legend.classes:
        if dataset.nodata == info.code:
            yield f"{path} declares {info.code} ({info.name}) as nodata, so that class has no labels in it."
