"""Tables of true and mapped classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from ..core.metrics import Confusion
from .figures import INK, MUTED, PathLike, clip, new_figure, save

_BLUES = LinearSegmentedColormap.from_list("share", ["#f6f8fa", "#a9c6e0", "#2f6db3", "#153a66"])


def plot_confusion(confusion: Confusion, names: Sequence[str], path: PathLike, *, overwrite: bool = False) -> Path:
    """Pixels by true and mapped class, and their share of each true class, as a PNG.

    Parameters
    ----------
    confusion : Confusion
        Counts (true, predicted).
    names : sequence of str
        Of the classes by id.
    path : path
        Written atomically.

    Raises
    ------
    ValueError
        There are not as many names as classes.
    OutputExistsError, OutputError
        The file is there already and `overwrite` is not set, or its folder is not.
    """
    counts = confusion.counts
    classes = len(counts)
    if len(names) != classes:
        raise ValueError(f"{classes} classes need as many names, not {len(names)}")
    total = counts.sum(axis=1, keepdims=True)
    share = np.where(total > 0, counts / np.maximum(total, 1), np.nan)
    side = min(max(0.62 * classes, 2.6), 11.0)  # inches of one table
    labels = [clip(name) for name in names]
    margin = 0.25 + 0.075 * max(map(len, labels))
    width, height = 2 * (side + margin) + 0.9, side + margin + 0.75
    figure = new_figure(width, height)
    left, right = figure.subplots(
        1, 2, gridspec_kw={
            "left": (margin + 0.2) / width, "right": 1 - 0.15 / width, "bottom": (margin + 0.1) / height,
            "top": 1 - 0.45 / height, "wspace": (margin + 0.35) / side,
        },
    )  # fmt: skip
    size = min(10.0, 72 * side / classes / 4.5)  # points: four bold figures and an air fit a cell
    depth = (np.log1p(counts) / max(float(np.log1p(counts).max()), 1.0)) ** 2
    _table(left, depth, [[_short(n) for n in row] for row in counts.tolist()], labels, size)
    _table(right, np.nan_to_num(share), [[_percent(part) for part in row] for row in share.tolist()], labels, size)
    for axes, title in ((left, "Pixels"), (right, "Share of each true class, %")):
        axes.set_title(title, fontsize=11, loc="left", color=INK, fontweight="bold")
    return save(figure, path, overwrite)


def _table(
    axes: Axes, tone: NDArray[np.float64], texts: Sequence[Sequence[str]], labels: Sequence[str], size: float
) -> None:
    """One table of numbers on a ground as dark as `tone`, 0 to 1, says."""
    classes = len(labels)
    axes.imshow(tone, cmap=_BLUES, vmin=0, vmax=1)
    for row, line in enumerate(texts):
        for col, text in enumerate(line):
            ink = "white" if tone[row, col] > 0.45 else INK
            weight = "bold" if row == col else "normal"
            axes.text(col, row, text, ha="center", va="center", fontsize=size, color=ink, fontweight=weight)
    axes.set_xticks(range(classes), labels, rotation=90 if classes > 6 else 45, fontsize=9, rotation_mode="anchor",
                    ha="right", va="center" if classes > 6 else "top")  # fmt: skip
    axes.set_yticks(range(classes), labels, fontsize=9)
    axes.set_xticks(np.arange(0.5, classes - 1), minor=True)
    axes.set_yticks(np.arange(0.5, classes - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("mapped as", fontsize=9, color=MUTED)
    axes.set_ylabel("true", fontsize=9, color=MUTED)


def _percent(part: float) -> str:
    return "–" if np.isnan(part) else f"{100 * part:.0f}" if part in (0, 1) else f"{100 * part:.1f}"


def _short(count: int) -> str:
    """A count in at most four figures.

    Examples
    --------
    >>> [_short(n) for n in (0, 999, 12_345, 1_234_567, 98_765_432)]
    ['0', '999', '12.3k', '1.23M', '98.8M']
    """
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
