"""Curves from which a learning rate or a batch size was chosen."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .figures import INK, MUTED, PALE, PathLike, new_figure, panel, save

if TYPE_CHECKING:
    from ..training.plan.finders import BatchSearch, RateSearch, Search

CURVES = {"rates": "learning_rate.png", "sizes": "batch_size.png"}
"""File in a run folder by what was tried."""
LINE = 80
"""Letters of a reason that stand side by side."""
_STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 13,
    "color": "#e0a100",
    "markeredgecolor": INK,
    "linestyle": "none",
    "zorder": 3,
}


def plot_searches(searches: "tuple[Search, ...]", folder: Path) -> list[Path]:
    """Draw each search that has a curve into a folder, under its name in `CURVES`."""
    from ..training.plan.finders import RateSearch  # wakes torch, which is awake where something was searched for

    drawn = []
    for search in searches:
        if isinstance(search, RateSearch):
            drawn += [plot_rates(search, folder / CURVES["rates"])] if search.rates else []
        elif search.sizes:
            drawn.append(plot_speeds(search, folder / CURVES["sizes"]))
    return drawn


def plot_rates(search: "RateSearch", path: PathLike, *, overwrite: bool = False) -> Path:
    """Loss by learning rate, as it was and smoothed, with the rate that was chosen, as a PNG.

    Raises
    ------
    OutputExistsError, OutputError
        The file is there already and `overwrite` is not set, or its folder is not.
    """
    figure = new_figure(6.6, 3.9)
    axes = figure.subplots(gridspec_kw={"left": 0.1, "right": 0.97, "bottom": 0.24, "top": 0.88})
    axes.plot(search.rates, search.losses, color=PALE, linewidth=1, label="loss of a batch")
    axes.plot(search.rates, search.smoothed, color="#c2603a", linewidth=2, label="smoothed")
    low, high = min(search.smoothed), max(search.smoothed[0], *search.smoothed[: len(search.smoothed) // 2 + 1])
    axes.set_ylim(low - 0.15 * (high - low or 1), high + 0.3 * (high - low or 1))
    axes.axvline(search.chosen, color=PALE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    nearest = min(range(len(search.rates)), key=lambda place: abs(search.rates[place] - search.chosen))
    axes.plot(search.chosen, search.smoothed[nearest], **_STAR)
    axes.set_xscale("log")
    axes.set_xlabel(f"learning rate\n{fill(search.why, LINE)}", color=INK, fontsize=9)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    panel(axes, f"Range test: {search.chosen:g} is taken")
    return save(figure, path, overwrite)


def plot_speeds(search: "BatchSearch", path: PathLike, *, overwrite: bool = False) -> Path:
    """Samples a second by batch size, with the size that was chosen, as a PNG.

    Raises
    ------
    OutputExistsError, OutputError
        The file is there already and `overwrite` is not set, or its folder is not.
    """
    figure = new_figure(6.6, 3.9)
    axes = figure.subplots(gridspec_kw={"left": 0.12, "right": 0.97, "bottom": 0.24, "top": 0.88})
    axes.plot(search.sizes, search.speeds, color="#2f6db3", marker="o")
    axes.plot(search.chosen, search.speeds[search.sizes.index(search.chosen)], **_STAR)
    shown = list(search.sizes)
    axes.set_xscale("log", base=2)
    if search.too_large is not None:
        shown.append(search.too_large)
        axes.axvline(search.too_large, color="#c2603a", linewidth=1.2)
        axes.annotate(
            "out of memory", (search.too_large, 0), (-4, 6), textcoords="offset points", ha="right", color=MUTED
        )
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(0, 1.12 * max(search.speeds))
    axes.set_xlabel(f"samples a batch\n{fill(search.why, LINE)}", color=INK, fontsize=9)
    panel(axes, f"Samples a second: batches of {search.chosen} are taken")
    return save(figure, path, overwrite)
