"""What all labels are: class ids on the image's grid, read window by window."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.grid import Grid
from ...core.legend import Legend
from ...core.windows import edges


@dataclass(frozen=True, eq=False)
class Labels(ABC):
    """True class ids on an image's grid, whose windows are read from any thread."""

    source: str
    """What messages call them."""
    legend: Legend
    grid: Grid
    """The image's, so that one window cuts both."""
    notes: tuple[str, ...]
    """Sentences about what deserves a warning: a shift, a repair, an empty layer."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that they come from."""
        return (self.source,)

    def read(self, window: Window) -> NDArray[np.unsignedinteger]:
        """Class ids of a window, (H, W), `legend.id_dtype`; `legend.ignore_index` without a label or off the image.

        Raises
        ------
        LegendError
            There is a code that the legend does not know.
        LabelError
            The labels cannot be read; the message names the file.
        """
        top, left, bottom, right = edges(window, self.grid.shape)
        height, width = self.grid.shape
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
        ids = np.full((bottom - top, right - left), self.legend.ignore_index, self.legend.id_dtype)
        if y0 < y1 and x0 < x1:
            ids[y0 - top : y1 - top, x0 - left : x1 - left] = self._ids(Window(x0, y0, x1 - x0, y1 - y0))
        return ids

    @abstractmethod
    def _ids(self, window: Window) -> NDArray[np.unsignedinteger]:
        """Class ids of a window inside the image, (H, W)."""
