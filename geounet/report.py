"""Pictures of a training, of scores and of maps.

Drawn by matplotlib's Agg canvas through figures of their own: no window, no global state. Import it where a picture
is wanted; matplotlib takes a moment to wake.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.path import Path as MplPath
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from .core.grid import Grid
from .core.legend import ClassInfo, Legend
from .core.metrics import Confusion
from .core.windows import edges
from .output import atomic
from .raster.gdal import open_raster, quiet
from .raster.geotiff import read_legend
from .raster.labels import Labels, open_labels
from .raster.scene import Scene

if TYPE_CHECKING:
    from .training import Run

PathLike: TypeAlias = str | os.PathLike[str]

COMPOSITES = (("red", "green", "blue"), ("nir", "red", "green"), ("nir08", "red", "green"))
"""Bands shown as red, green and blue: the first of these that a scene has."""
GAMMA = 0.75
"""Exponent of the stretch; below 1 opens the dark tones in which most land lies."""
INK, PALE, NOWHERE = "#26323a", "#9aa5ab", "#e9ebec"
_STRIP = 2**24
"""Values read at once for a quick-look."""


def plot_run(folder: Path, run: "Run") -> None:
    """Draw a training's curves and its confusion in validation: ``curves.png`` and ``confusion.png`` in a folder.

    Raises
    ------
    OutputExistsError, OutputError
        A file is there already, or the folder is not.
    """
    plot_curves(run.history, folder / "curves.png")
    plot_confusion(run.validation.confusion, run.validation.names, folder / "confusion.png")


def plot_curves(history: Sequence[Mapping[str, float]], path: PathLike, *, overwrite: bool = False) -> Path:
    """Loss, IoU and learning rate by epoch, as a PNG.

    Parameters
    ----------
    history : sequence of mapping
        One an epoch, as `training.Run.history` and ``history.csv`` have them: ``epoch``, ``loss``, ``val_loss``,
        ``val_miou``, ``learning_rate`` and ``val_iou_NAME``. NaN leaves a gap.
    path : path
        Written atomically.

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
    figure, (losses, scores, rates) = _figure(
        (12.6, 3.9), 1, 3, width_ratios=(1, 1.25, 0.75), left=0.05, right=0.985, bottom=0.14, top=0.88, wspace=0.22
    )
    marker = "o" if len(epoch) < 3 else None  # a line of one point would not be seen
    losses.plot(epoch, column["loss"], color="#c2603a", marker=marker, label="train")
    losses.plot(epoch, column["val_loss"], color="#2f6db3", marker=marker, label="validate")
    _panel(losses, "Loss")
    names = [name for name in column if name.startswith("val_iou_")]
    colors = {info.name: _hex(info.color) for info in Legend.of([n.removeprefix("val_iou_") for n in names]).classes}
    for name in names:
        label = name.removeprefix("val_iou_")
        scores.plot(epoch, column[name], color=colors[label], linewidth=1.2, marker=marker, label=label)
    scores.plot(epoch, column["val_miou"], color=INK, linewidth=2.2, marker=marker, label="mean")
    scores.set_ylim(0, 1)
    _panel(scores, "IoU, validation")
    rates.plot(epoch, column["learning_rate"], color="#6b7f3a", marker=marker)
    rates.set_ylim(bottom=0)
    rates.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _panel(rates, "Learning rate")
    if not np.isnan(column["val_miou"]).all():
        best = int(np.nanargmax(column["val_miou"]))
        for axes in (losses, scores, rates):
            axes.axvline(epoch[best], color=PALE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        top = float(column["val_miou"][best])
        scores.plot(epoch[best], top, marker="*", markersize=13, color="#e0a100", markeredgecolor=INK, linestyle="none")
        _panel(scores, f"IoU, validation: best mean {top:.3f}, epoch {epoch[best]:g}")
    for axes in (losses, scores, rates):
        axes.set_xlabel("epoch", color=INK, fontsize=9)
        axes.set_xlim(epoch.min() - 0.5, epoch.max() + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
    losses.legend(frameon=False, fontsize=9)
    scores.legend(framealpha=0.85, edgecolor="none", fontsize=8, ncols=max(1, round(len(names) / 6)), loc="lower right")
    return _save(figure, path, overwrite)


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
    margin = 0.25 + 0.075 * min(max(len(name) for name in names), 24)
    width, height = 2 * (side + margin) + 0.9, side + margin + 0.75
    figure, panels = _figure(
        (width, height), 1, 2,
        left=(margin + 0.2) / width, right=1 - 0.15 / width, bottom=(margin + 0.1) / height, top=1 - 0.45 / height,
        wspace=(margin + 0.35) / side,
    )  # fmt: skip
    blues = LinearSegmentedColormap.from_list("share", ["#f6f8fa", "#a9c6e0", "#2f6db3", "#153a66"])
    size = min(10.0, 72 * side / classes / 4.5)  # points: four bold figures and an air fit a cell
    depth = (np.log1p(counts) / max(float(np.log1p(counts).max()), 1.0)) ** 2
    cells = [[_short(n) for n in row] for row in counts.tolist()]
    shares = [["–" if np.isnan(v) else f"{100 * v:.0f}" if v in (0, 1) else f"{100 * v:.1f}" for v in r] for r in share]
    for axes, tone, texts, title in (
        (panels[0], depth, cells, "Pixels"),
        (panels[1], np.nan_to_num(share), shares, "Share of each true class, %"),
    ):
        axes.imshow(tone, cmap=blues, vmin=0, vmax=1)
        for row, line in enumerate(texts):
            for col, text in enumerate(line):
                ink = "white" if tone[row, col] > 0.45 else INK
                weight = "bold" if row == col else "normal"
                axes.text(col, row, text, ha="center", va="center", fontsize=size, color=ink, fontweight=weight)
        labels = [_clip(name) for name in names]
        axes.set_xticks(range(classes), labels, rotation=90 if classes > 6 else 45, fontsize=9, rotation_mode="anchor",
                        ha="right", va="center" if classes > 6 else "top")  # fmt: skip
        axes.set_yticks(range(classes), labels, fontsize=9)
        axes.set_xticks(np.arange(0.5, classes - 1), minor=True)
        axes.set_yticks(np.arange(0.5, classes - 1), minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="both", length=0, colors=INK)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("mapped as", fontsize=9, color=PALE)
        axes.set_ylabel("true", fontsize=9, color=PALE)
        axes.set_title(title, fontsize=11, loc="left", color=INK, fontweight="bold")
    return _save(figure, path, overwrite)


def composite(scene: Scene, window: Window | None = None, size: int = 1024) -> NDArray[np.uint8]:
    """Quick-look of a scene, (y, x, RGBA), stretched from the 2nd to the 98th percentile of its valid pixels.

    Parameters
    ----------
    scene : Scene
        Shown in red, green and blue by name, else nir, red and green, else by what the file marks as red, green and
        blue, else by its first three bands, else in grey by its first. Read once at full resolution, in strips of rows; never held whole.
    window : Window, optional
        The part to show; by default all of it.
    size : int
        Pixels that the longer side of the picture may have. Larger scenes are averaged over square groups of pixels,
        and at the right and lower edges over what is left of one.

    Returns
    -------
    array (height, width, 4), uint8
        Alpha is 0 where no pixel of a group is valid, and white lies beneath.
    """
    top, left, bottom, right = edges(window, scene.grid.shape)
    step = max(1, -(-max(bottom - top, right - left) // size))
    scene, chosen = _shown(scene)
    parts = []
    rows = step * max(1, _STRIP // (len(scene.bands) * (right - left) * step))
    for row in range(top, bottom, rows):
        chip = scene.read(Window(left, row, right - left, min(rows, bottom - row)))
        parts.append(_average(np.asarray(chip.pixels)[chosen], np.asarray(chip.valid), step))
    image = np.concatenate(parts, axis=1)
    seen = ~np.isnan(image[0])
    picture = np.full((*seen.shape, 4), 255, np.uint8)
    picture[..., 3] = np.where(seen, 255, 0)
    for place, band in enumerate(image):
        picture[seen, place] = _stretch(band[seen])
    return picture


def plot_map(
    scene: Scene,
    mask_path: PathLike,
    path: PathLike,
    *,
    labels: Labels | None = None,
    legend: Legend | None = None,
    polygons: Any = None,
    title: str | None = None,
    size: int = 900,
    overwrite: bool = False,
) -> Path:
    """A scene and its map side by side, as a PNG: image, labels, mask, image with the outlines of the polygons.

    Parameters
    ----------
    scene : Scene
    mask_path : path
        Class codes, as `predict` writes them; the part of the scene that it covers is shown.
    path : path
        Written atomically.
    labels : Labels, optional
        On the scene's grid; adds a panel.
    legend : Legend, optional
        Names and colours; by default those of `labels`, else what the mask file says of itself.
    polygons : GeoDataFrame, optional
        Of the mask, in any CRS, with the column ``class`` (code); adds a panel.
    title : str, optional
        Above the picture.
    size : int
        Pixels that the longer side of a panel may have.

    Raises
    ------
    LabelError, GridError
        The mask cannot be read, or does not meet the scene.
    OutputExistsError, OutputError
        The file is there already and `overwrite` is not set, or its folder is not.
    """
    legend = legend or (labels.legend if labels else read_legend(Path(mask_path)))
    mask = open_labels(mask_path, scene.grid, legend, unknown="ignore")
    window = _extent(scene.grid, mask_path)
    grid, photo, ids = scene.grid.crop(window), composite(scene, window, size), _thin(mask, window, size)
    panels: list[tuple[str, NDArray[np.uint8]]] = [("Image", photo)]
    if labels:
        panels.append(("Labels", _paint(_thin(labels, window, size), labels.legend)))
    panels.append(("Map", _paint(ids, legend)))
    if polygons is not None:
        panels.append(("Polygons", photo))
    seen = np.isin(np.arange(len(legend)), ids)
    key = [info for info, there in zip(legend.classes, seen, strict=True) if there]
    figure, drawn = _map_figure(grid.shape, len(panels), title, key)
    for axes, (name, picture) in zip(drawn, panels, strict=True):
        _show(axes, picture, grid.shape, name)
    if polygons is not None:
        _outline(drawn[-1], polygons, grid, legend)
    _scale_bar(drawn[0], grid)
    return _save(figure, path, overwrite)


def _figure(size: tuple[float, float], rows: int, cols: int, **spacing: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, cols, gridspec_kw=spacing)


def _save(figure: Figure, path: PathLike, overwrite: bool) -> Path:
    with atomic(Path(path), overwrite=overwrite) as part:
        figure.savefig(part, format="png", metadata={"Software": "geounet"})
    return Path(path)


def _panel(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left", color=INK, fontweight="bold")
    axes.grid(color="#eef0f1", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK, labelsize=9, length=0)


def _shown(scene: Scene) -> tuple[Scene, list[int]]:
    """The scene, cut down to the bands to show if they have names, and where red, green and blue stand in it."""
    for wanted in COMPOSITES:
        if all(scene.bands.count(name) == 1 for name in wanted):
            return scene.select(wanted), [0, 1, 2]
    return scene, _marked(scene) or ([0, 1, 2] if len(scene.bands) >= 3 else [0, 0, 0])


def _marked(scene: Scene) -> list[int] | None:
    """Where the bands stand that their one file marks as red, green and blue; None where it does not."""
    rows = scene.origin["bands"]
    files = {row.get("file") for row in rows}
    if None in files or len(files) != 1:
        return None
    with quiet():
        dataset = open_raster(files.pop())
    with dataset:
        kinds = [dataset.colorinterp[row["index"] - 1] for row in rows]
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    return [kinds.index(color) for color in colors] if all(color in kinds for color in colors) else None


def _average(pixels: NDArray[Any], valid: NDArray[np.bool_], step: int) -> NDArray[np.float32]:
    """Mean of the valid pixels in each square of `step`, (C, ceil(H / step), ceil(W / step)); NaN where none is."""
    rows, cols = (np.arange(0, length, step) for length in valid.shape)
    weight = np.add.reduceat(np.add.reduceat(valid.astype(np.float64), rows, axis=0), cols, axis=1)
    values = np.where(valid, pixels, 0).astype(np.float64)
    total = np.add.reduceat(np.add.reduceat(values, rows, axis=1), cols, axis=2)
    return np.where(weight > 0, total / np.maximum(weight, 1), np.nan).astype(np.float32)


def _stretch(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bytes from the 2nd percentile to the 98th; mid-grey where all values are one."""
    if not values.size:
        return values.astype(np.uint8)
    low, high = np.percentile(values, (2, 98))
    if low == high:
        return np.full(values.shape, 128, np.uint8)
    bright: NDArray[np.uint8] = np.rint(255 * np.clip((values - low) / (high - low), 0, 1) ** GAMMA).astype(np.uint8)
    return bright


def _extent(grid: Grid, path: PathLike) -> Window:
    """The part of the scene that a mask covers."""
    with quiet():  # a mask without a place has the scene's pixels
        dataset = open_raster(os.fspath(path))
    with dataset:
        own = Grid(dataset.shape, dataset.transform, dataset.crs)
    return grid.window if own.shape == grid.shape else grid.window_of(own.bounds, own.crs)


def _thin(labels: Labels, window: Window, size: int) -> NDArray[Any]:
    """Label ids in a window, every so many pixels."""
    top, left, bottom, right = edges(window, (0, 0))
    step = max(1, -(-max(bottom - top, right - left) // size))
    rows = step * max(1, _STRIP // ((right - left) * step))
    strips = [
        labels.read(Window(left, row, right - left, min(rows, bottom - row)))[step // 2 :: step, step // 2 :: step]
        for row in range(top, bottom, rows)
    ]
    return np.concatenate(strips)


def _paint(ids: NDArray[Any], legend: Legend) -> NDArray[np.uint8]:
    """Ids in the colours of the legend, (y, x, RGBA); clear where there is no class."""
    table = np.zeros((legend.ignore_index + 1, 4), np.uint8)
    table[: len(legend)] = [(*info.color, 255) for info in legend.classes]
    return np.asarray(table[ids])


def _map_figure(
    shape: tuple[int, int], count: int, title: str | None, key: Sequence[ClassInfo]
) -> tuple[Figure, list[Axes]]:
    """Panels in one row, each as tall and wide as the ground is, a title above and the key below."""
    height, width = shape
    tall = min(max(height / width, 0.3), 3.0)
    side = 3.2 / max(tall, 1) ** 0.5
    gap, edge = 0.14, 0.14  # inches, as all here
    wide = max(count * side + (count - 1) * gap + 2 * edge, 4.0)
    names = [*(_clip(info.name) for info in key), "no data"]
    cols = max(1, min(len(names), int((wide - 2 * edge) / (0.55 + 0.1 * max(map(len, names))))))
    above, below = 0.42 + (0.34 if title else 0), 0.26 + 0.24 * -(-len(names) // cols)
    high = side * tall + above + below
    figure = Figure(figsize=(wide, high), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    drawn = [
        figure.add_axes(((edge + k * (side + gap)) / wide, below / high, side / wide, side * tall / high))
        for k in range(count)
    ]
    if title:
        figure.text(edge / wide, 1 - 0.12 / high, title, fontsize=14, fontweight="bold", color=INK, va="top")
    handles = [
        *(Patch(facecolor=_hex(info.color), edgecolor="#00000030") for info in key),
        Patch(facecolor=NOWHERE, edgecolor="#b9c1c6", hatch="/////"),
    ]
    figure.legend(
        handles, names, loc="lower center", ncols=cols, frameon=False, fontsize=10, labelcolor=INK,
        handlelength=1.3, handleheight=1.0, columnspacing=1.6, borderaxespad=0.35,
    )  # fmt: skip
    return figure, drawn


def _show(axes: Axes, picture: NDArray[np.uint8], shape: tuple[int, int], name: str) -> None:
    """A picture stretched over the pixels of the grid; what is clear shows a hatched ground."""
    height, width = shape
    axes.set_facecolor(NOWHERE)
    axes.add_patch(
        Rectangle((0, 0), width, height, facecolor="none", edgecolor="#cfd4d7", hatch="////", linewidth=0, zorder=0)
    )
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="antialiased", zorder=1)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.spines[:].set(color="#b9c1c6", linewidth=0.6)
    axes.set_title(name, fontsize=10.5, loc="left", color=INK, pad=5)


def _outline(axes: Axes, polygons: Any, grid: Grid, legend: Legend) -> None:
    """Polygons in the colours of their classes, a glaze inside strong outlines."""
    placed = polygons if polygons.crs is None or grid.crs is None else polygons.to_crs(grid.crs)
    back = ~grid.transform
    matrix = np.array([[back.a, back.d], [back.b, back.e]])
    pixels = shapely.transform(placed.geometry.values, lambda xy: xy @ matrix + (back.c, back.f))
    for info in legend.classes:
        parts = shapely.get_parts(pixels[np.asarray(placed["class"]) == info.code])
        glaze = PathCollection([_path(part) for part in parts], facecolor=(*_unit(info.color), 0.28), linewidth=0)
        rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(parts)]
        dark, line = ((*_unit(color, part), 1.0) for color, part in ((info.color, 0.35), (info.color, 1.0)))
        for collection in (
            glaze,
            LineCollection(rings, colors=[dark], linewidths=0.9, alpha=0.55),
            LineCollection(rings, colors=[line], linewidths=0.5),
        ):
            collection.set_zorder(2)
            axes.add_collection(collection, autolim=False)


def _path(polygon: Any) -> MplPath:
    """Shell and holes as one path; holes turn the other way, so that they stay clear."""
    rings = shapely.get_rings(shapely.orient_polygons(polygon))
    return MplPath.make_compound_path(*(MplPath(shapely.get_coordinates(ring), closed=True) for ring in rings))


def _scale_bar(axes: Axes, grid: Grid) -> None:
    """A bar of round length in the lower left, where the ground can be measured."""
    pixel = grid.pixel_size_m
    if pixel is None:
        return
    height, width = grid.shape
    goal = pixel * width / 4
    power = 10.0 ** np.floor(np.log10(goal))
    length = max(n * power for n in (1, 2, 5) if n * power <= goal)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    left, low, bar = 0.045 * width, height - 0.05 * min(height, width), length / pixel
    halo = [withStroke(linewidth=3.2, foreground="#000000a0")]
    axes.plot([left, left + bar], [low, low], color="white", linewidth=2.6, solid_capstyle="butt", zorder=4,
              path_effects=[withStroke(linewidth=4.6, foreground="#000000a0")])  # fmt: skip
    axes.text(left + bar / 2, low - 0.02 * height, text, color="white", fontsize=9, fontweight="bold", ha="center",
              va="bottom", zorder=4, path_effects=halo)  # fmt: skip


def _unit(color: Sequence[int], part: float = 1.0) -> tuple[float, float, float]:
    """A colour from 0 to 1, darkened to `part` of its light."""
    red, green, blue = (part * channel / 255 for channel in color)
    return red, green, blue


def _hex(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


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


def _clip(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
