"""Curves of a training, epoch by epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ..core.legend import Legend
from .figures import INK, PALE, PathLike, clip, line_color, new_figure, panel, save

_DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.5, 1.4, 1.5)))
"""Of the classes in turn: colours alone do not tell them apart for everybody."""
_ROWS = 17
"""Lines of a key beside a panel."""


def plot_curves(
    history: Sequence[Mapping[str, float]], path: PathLike, *, legend: Legend | None = None, overwrite: bool = False
) -> Path:
    """Loss, IoU and learning rate by epoch, as a PNG.

    Parameters
    ----------
    history : sequence of mapping
        One an epoch, as `training.Run.history` and ``history.csv`` have them: ``epoch``, ``loss``, ``val_loss``,
        ``val_miou``, ``learning_rate`` and ``val_iou_NAME``. NaN leaves a gap.
    path : path
        Written atomically.
    legend : Legend, optional
        Colours of the classes.

    Raises
    ------
    ValueError
        The history is empty.
    OutputExistsError, OutputError
        The file is there already and `overwrite` is not set, or its folder is not.
    """
    if not history:
        raise ValueError("the history has no epochs; there is nothing to plot.")
    column = {name: np.array([row.get(name, np.nan) for row in history], float) for name in history[0]}
    epoch = column["epoch"]
    figure, losses, scores, rates = _figure(_classes(column))
    marker = "o" if len(epoch) < 3 else None  # a line of one point would not be seen
    losses.plot(epoch, column["loss"], color="#c2603a", marker=marker, label="train")
    losses.plot(epoch, column["val_loss"], color="#2f6db3", marker=marker, linestyle=_DASHES[1], label="validate")
    panel(losses, "Loss")
    _scores(scores, column, legend, marker)
    rates.plot(epoch, column["learning_rate"], color="#6b7f3a", marker=marker)
    rates.set_ylim(bottom=0)
    rates.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel(rates, "Learning rate")
    for axes in (losses, scores, rates):
        axes.set_xlabel("epoch", color=INK, fontsize=9)
        axes.set_xlim(epoch.min() - 0.5, epoch.max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    _mark_best((losses, scores, rates), scores, epoch, column["val_miou"])
    losses.legend(frameon=False, fontsize=9)
    return save(figure, path, overwrite)


def _figure(names: Sequence[str]) -> tuple[Figure, Axes, Axes, Axes]:
    """Panels of loss, scores and learning rate, with room for a key of the classes; in inches."""
    columns = -(-(len(names) + 1) // _ROWS)
    key = columns * (0.6 + 0.085 * max(len(clip(name)) for name in (*names, "mean")))
    widths, gaps = (3.5, 4.0, 2.5), (0.6, 0.7, key + 0.95)
    width, left, drawn = sum(widths) + sum(gaps) + 0.2, 0.0, []
    figure = new_figure(width, 3.9)
    for gap, wide in zip(gaps, widths, strict=True):
        left += gap
        drawn.append(figure.add_axes((left / width, 0.14, wide / width, 0.74)))
        left += wide
    return figure, drawn[0], drawn[1], drawn[2]


def _classes(column: Mapping[str, object]) -> list[str]:
    """Names of the classes of a history."""
    return [name.removeprefix("val_iou_") for name in column if name.startswith("val_iou_")]


def _scores(axes: Axes, column: Mapping[str, NDArray[np.float64]], legend: Legend | None, marker: str | None) -> None:
    """IoU of each class, and their mean."""
    names = _classes(column)
    colors = {info.name: info.color for info in (legend or Legend.of(names)).classes}
    for place, name in enumerate(names):
        axes.plot(
            column["epoch"], column[f"val_iou_{name}"], color=line_color(colors[name]), linewidth=1.3,
            linestyle=_DASHES[place % len(_DASHES)], marker=marker, label=clip(name),
        )  # fmt: skip
    axes.plot(column["epoch"], column["val_miou"], color=INK, linewidth=2.4, marker=marker, label="mean")
    axes.set_ylim(0, 1)
    panel(axes, "IoU, validation")
    axes.legend(
        frameon=False, fontsize=8, ncols=-(-(len(names) + 1) // _ROWS), handlelength=2.8, borderaxespad=0,
        loc="upper left", bbox_to_anchor=(1.02, 1),
    )  # fmt: skip


def _mark_best(all_axes: Sequence[Axes], scores: Axes, epoch: NDArray[np.float64], miou: NDArray[np.float64]) -> None:
    """Show the epoch of the best mean IoU, if there is one."""
    if np.isnan(miou).all():
        return
    best = int(np.nanargmax(miou))
    for axes in all_axes:
        axes.axvline(epoch[best], color=PALE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    top = float(miou[best])
    scores.plot(epoch[best], top, marker="*", markersize=13, color="#e0a100", markeredgecolor=INK, linestyle="none")
    panel(scores, f"IoU, validation: best mean {top:.3f}, epoch {epoch[best]:g}")
