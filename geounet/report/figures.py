"""What all pictures share: figures without a window, their inks, class colours, ground without data, and saving."""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from ..core.legend import ClassInfo, Legend, hex_color
from ..output import atomic

PathLike: TypeAlias = str | os.PathLike[str]

INK, PALE, NOWHERE = "#26323a", "#9aa5ab", "#e9ebec"
MUTED = "#5c6970"
"""Of second words: 5.7 to 1 on white."""
LONGEST = 24
"""Letters of a class name that are shown."""


def new_figure(width: float, height: float, dpi: int = 120) -> Figure:
    """White figure of a size in inches, on a canvas of its own."""
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: PathLike, overwrite: bool) -> Path:
    """Write a figure as PNG, atomically; a letter that the font lacks is a box."""
    with atomic(Path(path), overwrite=overwrite) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(part, format="png", metadata={"Software": "geounet"}, pil_kwargs={"optimize": True})
    return Path(path)


def panel(axes: Axes, title: str) -> None:
    """Dress the axes of a plot."""
    axes.set_title(title, fontsize=11, loc="left", color=INK, fontweight="bold")
    axes.grid(color="#eef0f1", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK, labelsize=9, length=0)


def paint(ids: NDArray[Any], legend: Legend) -> NDArray[np.uint8]:
    """Ids in the colours of the legend, (y, x, RGBA); clear where there is no class."""
    table = np.zeros((legend.ignore_index + 1, 4), np.uint8)
    table[: len(legend)] = [(*info.color, 255) for info in legend.classes]
    return np.asarray(table[ids])


def show(axes: Axes, picture: NDArray[np.uint8], shape: tuple[int, int], interpolation: str = "antialiased") -> None:
    """A picture (y, x, RGBA) stretched over (height, width) pixels; what is clear shows a hatched ground."""
    height, width = shape
    axes.set_facecolor(NOWHERE)
    axes.add_patch(
        Rectangle((0, 0), width, height, facecolor="none", edgecolor="#cfd4d7", hatch="////", linewidth=0, zorder=0)
    )
    axes.imshow(picture, extent=(0, width, height, 0), interpolation=interpolation, zorder=1)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.spines[:].set(color="#b9c1c6", linewidth=0.6)


@dataclass(frozen=True)
class Key:
    """What the colours of a figure stand for, below it."""

    patches: tuple[Patch, ...]
    columns: int

    @classmethod
    def of(
        cls, classes: Iterable[ClassInfo], width: float, *, more: Iterable[Patch] = (), blank: str = "no data"
    ) -> "Key":
        """Key of some classes, further colours and the hatched ground, in as many columns as fit `width` inches."""
        patches = (
            *(Patch(facecolor=hex_color(one.color), edgecolor="#00000030", label=clip(one.name)) for one in classes),
            *more,
            Patch(facecolor=NOWHERE, edgecolor="#b9c1c6", hatch="/////", label=blank),
        )
        widths = [0.55 + 0.1 * len(str(patch.get_label())) for patch in patches]
        return cls(patches, len(patches) if sum(widths) <= width else max(1, int(width / max(widths))))

    @property
    def height(self) -> float:
        """Inches that it takes."""
        return 0.26 + 0.24 * -(-len(self.patches) // self.columns)

    def draw(self, figure: Figure) -> None:
        """Put it at the foot of a figure."""
        figure.legend(
            handles=self.patches, loc="lower center", ncols=self.columns, frameon=False, fontsize=10, labelcolor=INK,
            handlelength=1.3, handleheight=1.0, columnspacing=1.6, borderaxespad=0.35,
        )  # fmt: skip


def line_color(color: Sequence[int]) -> tuple[float, float, float]:
    """A class colour, 0 to 1, darkened as far as a line on white needs it to be seen (3 to 1, as WCAG asks)."""
    for part in np.linspace(1, 0, 51):
        shade = unit(color, float(part))
        if 1.05 / (_luminance(shade) + 0.05) >= 3:
            return shade
    raise AssertionError("black is seen on white")


def unit(color: Sequence[int], part: float = 1.0) -> tuple[float, float, float]:
    """A colour from 0 to 1, darkened to `part` of its light."""
    red, green, blue = (part * channel / 255 for channel in color)
    return red, green, blue


def _luminance(color: Sequence[float]) -> float:
    """Relative luminance of sRGB from 0 to 1, as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def clip(name: str, longest: int = LONGEST) -> str:
    r"""A name as matplotlib is to show it: so many letters at most, on one line, and no formula between dollars.

    Examples
    --------
    >>> clip("broad-leaved evergreen trees")
    'broad-leaved evergreen …'
    >>> clip("$5")
    '\\$5'
    """
    name = " ".join(name.split())
    short = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return (f" {short}" if short.startswith("_") else short).replace("$", r"\$")  # _ is left out of legends
