"""The area in which labels count: beyond its polygons a pixel was never looked at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.grid import Grid
from .base import Labels
from .region import RegionLabels
from .shapes import Shapes, read_features, shapes_of


@dataclass(frozen=True, eq=False)
class Area:
    """Ground inside polygons."""

    path: str
    shapes: Shapes

    def __call__(self, window: Window) -> NDArray[np.bool_]:
        """True at the pixels of a window, (H, W), whose centres lie inside."""
        return self.shapes.burn(window, 0).astype(bool)


@dataclass(frozen=True, eq=False)
class AreaLabels(RegionLabels):
    """Labels that count inside an area of interest, and nowhere else."""

    region: Area

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of the labels, and that of the area."""
        return (*self.labels.paths, self.region.path)


def within(labels: Labels, path: str, layer: str | None) -> AreaLabels:
    """Labels that count only inside the polygons of a vector file.

    Raises
    ------
    LabelError
        As `open_labels` for polygons.
    """
    area, notes = open_area(path, labels.grid, layer)
    return AreaLabels(labels.source, labels.legend, labels.grid, (*labels.notes, *notes), labels, area)


def open_area(path: str, grid: Grid, layer: str | None) -> tuple[Area, tuple[str, ...]]:
    """Polygons on an image's grid, and what deserves a warning."""
    frame = read_features(path, layer, grid, option="aoi_layer")
    shapes, notes = shapes_of(frame, np.ones(len(frame), np.uint8), path, grid)
    if not len(frame):
        notes = (
            *notes,
            f"{path} has no polygon on the image: no pixel is in the area of interest, so none has a label.",
        )
    return Area(path, shapes), notes
