"""A scene beside its map."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path as MplPath
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from rasterio.windows import Window

from ..core.grid import Grid
from ..core.legend import ClassInfo, Legend
from ..core.windows import edges
from ..raster.gdal import open_raster, quiet
from ..raster.geotiff import read_legend
from ..raster.labels import Labels, open_labels
from ..raster.scene import Scene
from . import composites
from .figures import INK, Key, PathLike, new_figure, paint, save, show, unit


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
    grid, photo, ids = scene.grid.crop(window), composites.composite(scene, window, size), _thin(mask, window, size)
    panels: list[tuple[str, NDArray[np.uint8]]] = [("Image", photo)]
    if labels:
        panels.append(("Labels", paint(_thin(labels, window, size), labels.legend)))
    panels.append(("Map", paint(ids, legend)))
    if polygons is not None:
        panels.append(("Polygons", photo))
    seen = np.isin(np.arange(len(legend)), ids)
    classes = [info for info, there in zip(legend.classes, seen, strict=True) if there]
    figure, drawn = _map_figure(grid.shape, len(panels), title, classes)
    for axes, (name, picture) in zip(drawn, panels, strict=True):
        show(axes, picture, grid.shape)
        axes.set_title(name, fontsize=10.5, loc="left", color=INK, pad=5)
    if polygons is not None:
        _outline(drawn[-1], polygons, grid, legend)
    _scale_bar(drawn[0], grid)
    return save(figure, path, overwrite)


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
    rows = step * max(1, composites.STRIP // ((right - left) * step))
    strips = [
        labels.read(Window(left, row, right - left, min(rows, bottom - row)))[step // 2 :: step, step // 2 :: step]
        for row in range(top, bottom, rows)
    ]
    return np.concatenate(strips)


def _map_figure(
    shape: tuple[int, int], count: int, title: str | None, classes: Sequence[ClassInfo]
) -> tuple[Figure, list[Axes]]:
    """Panels in one row, each as tall and wide as the ground is, a title above and the key below."""
    height, width = shape
    tall = min(max(height / width, 0.3), 3.0)
    side = 3.2 / max(tall, 1) ** 0.5
    gap, edge = 0.14, 0.14  # inches, as all here
    wide = max(count * side + (count - 1) * gap + 2 * edge, 4.0)
    key = Key.of(classes, wide - 2 * edge)
    high = side * tall + 0.42 + (0.34 if title else 0) + key.height
    figure = new_figure(wide, high, dpi=160)
    drawn = [
        figure.add_axes(((edge + k * (side + gap)) / wide, key.height / high, side / wide, side * tall / high))
        for k in range(count)
    ]
    if title:
        figure.text(edge / wide, 1 - 0.12 / high, title, fontsize=14, fontweight="bold", color=INK, va="top")
    key.draw(figure)
    return figure, drawn


def _outline(axes: Axes, polygons: Any, grid: Grid, legend: Legend) -> None:
    """Polygons in the colours of their classes, a glaze inside strong outlines."""
    placed = polygons if polygons.crs is None or grid.crs is None else polygons.to_crs(grid.crs)
    back = ~grid.transform
    matrix = np.array([[back.a, back.d], [back.b, back.e]])
    pixels = shapely.transform(placed.geometry.values, lambda xy: xy @ matrix + (back.c, back.f))
    for info in legend.classes:
        parts = shapely.get_parts(pixels[np.asarray(placed["class"]) == info.code])
        glaze = PathCollection([_path(part) for part in parts], facecolor=(*unit(info.color), 0.28), linewidth=0)
        rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(parts)]
        dark, line = ((*unit(color, part), 1.0) for color, part in ((info.color, 0.35), (info.color, 1.0)))
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
