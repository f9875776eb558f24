"""Train on one made-up scene, map another."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from ..core.grid import Grid
from ..errors import OutputError, OutputExistsError
from ..evaluation import Evaluation, compare
from ..inference import predict
from ..raster.geotiff import CogWriter, mask_writer
from ..raster.labels import open_labels
from ..raster.sampler import Pair
from ..raster.scene import open_scene
from ..raster.vector import polygonize
from ..report import plot_map, plot_run
from ..training import Augmentation, Card, Fitting, Loss, Network, Run, Sampling, train
from . import scenery
from .scenery import BANDS, LEGEND, NODATA, Conditions

PIXEL = 10.0
"""Metres."""
TRAINING_DAY = Conditions(season=0.4, haze=0.012, sun_azimuth=145.0, relief=1.0, noise=0.002)
MAPPED_DAY = Conditions(season=0.55, haze=0.02, sun_azimuth=165.0, relief=0.75, noise=0.0035)
"""Later in the year, hazier, noisier, under a higher sun: the model meets land and air it was not trained on."""
LEAST_SIDE = 160
GAP = 32
"""Rows left out between the land to train on and the land to validate with."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    folder: Path
    files: Mapping[str, Path]
    """Scenes, labels, model, mask, polygons, picture, metrics."""
    iou: Mapping[str, float | None]
    """Of each class on the mapped scene, which training has not seen; None for a class that it lacks."""
    evaluation: Evaluation
    """Of the mapped scene."""
    training: Run


def run(
    folder: str | os.PathLike[str],
    *,
    seed: int = 7,
    side: int = 512,
    epochs: int = 24,
    width: int = 16,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> DemoResult:
    """Make two scenes, train a U-Net on one, map the other, score the map, trace it and draw it.

    The two scenes are different land on different days (`TRAINING_DAY`, `MAPPED_DAY`), so the scores are those of
    a new scene. The south of the first scene is held back to choose the epoch with.

    Parameters
    ----------
    folder : path
        Made if it is not there. Holds ``train.tif``, ``validate.tif``, ``scene.tif``, a ``…_labels.tif`` of each,
        ``model/`` (a run folder), ``mask.tif``, ``mask.gpkg``, ``metrics.json`` and ``demo.png``.
    seed : int
        Of the land, the noise and the training: equal seeds make equal folders on one machine.
    side : int
        Width of the training scene, pixels of 10 m, at least 160; it is a third taller, and the mapped scene is half wider.
    epochs, width : int
        Of the training, and of the U-Net's first level.
    overwrite : bool
        Replace the files of an earlier demo; others in the folder stay.
    progress : callable, optional
        Told the finished part, 0 to 1.

    Raises
    ------
    OutputExistsError
        The folder holds something, and `overwrite` is not set.
    OutputError
        The folder cannot be made.
    """
    if side < LEAST_SIDE:
        raise ValueError(f"side is a number of pixels, at least {LEAST_SIDE}, not {side}")
    folder, tell = _folder(folder, overwrite), progress or (lambda _: None)
    rng = np.random.default_rng(seed)
    files = {
        **_training_land(folder, side, rng, overwrite),
        **_land_to_map(folder, side, rng, overwrite),
    }
    tell(0.1)
    run_ = train(
        {split: [_pair(files[split], files[f"{split} labels"])] for split in ("train", "validate")},
        folder / "model",
        sampler=Sampling(chip_size=128, chips_per_epoch=max(1, side**2 // 128**2) * 4, seed=seed),
        model=Network(depth=4, width=width),
        loss=Loss(class_weights="none"),  # what is rare is learnt by Dice; weights would call too much of it
        augment=Augmentation(gain=0.1, band_gain=0.05, band_offset=0.1, noise=0.03),
        training=Fitting(epochs=epochs, batch_size=8, learning_rate=2e-3),
        card=Card(
            name="demo", description="Land cover of made-up scenes.", data="geounet demo: synthetic, no measurement",
            unit=f"reflectance × {scenery.SCALE}", notes="Trained on made-up land: of no use on real scenes.",
        ),
        overwrite=overwrite,
        progress=lambda epoch: tell(0.1 + 0.75 * epoch.epoch / epoch.epochs),
        finish=plot_run,
    )  # fmt: skip
    files |= {"model": run_.folder / "model.safetensors", "curves": run_.folder / "curves.png"}

    target = _pair(files["scene"], files["scene labels"])
    prediction = predict(target.scene, run_.model)
    mask = prediction.to_geotiff(folder / "mask.tif", overwrite=overwrite)
    tell(0.9)
    scores = compare(prediction, target.truth)
    evaluation = Evaluation(LEGEND.names, scores, {target.scene.source: scores})
    polygons = polygonize(mask.path, legend=LEGEND)
    files |= {
        "mask": mask.path,
        "polygons": Path(polygons.to_file(folder / "mask.gpkg", overwrite=overwrite)),
        "metrics": evaluation.to_json(folder / "metrics.json", overwrite=overwrite),
    }
    tell(0.95)
    files["picture"] = plot_map(
        target.scene, mask.path, folder / "demo.png", labels=target.truth, polygons=polygons.frame,
        title=f"A scene the model has not seen: mean IoU {evaluation.miou:.2f}", overwrite=overwrite,
    )  # fmt: skip
    tell(1.0)
    iou = {name: scores["iou"] for name, scores in evaluation.report()["classes"].items()}
    return DemoResult(folder, files, iou, evaluation, run_)


def _folder(folder: str | os.PathLike[str], overwrite: bool) -> Path:
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputExistsError(f"{folder} is not empty; choose another folder, or ask to overwrite it (-f).")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder} ({error.strerror}); name another.") from error
    return folder


def _training_land(folder: Path, side: int, rng: np.random.Generator, overwrite: bool) -> dict[str, Path]:
    """One scene in two files: its north to train on, its south to validate with; the river runs through both."""
    shape = side + side // 3, side
    ground = scenery.land(shape, rng)
    image = scenery.stored(scenery.reflectance(ground, rng, TRAINING_DAY), scenery.beyond_swath(shape, 0.15, east=True))
    grid = _grid(shape, 400_000, 5_400_000, zone=33)
    cut = shape[0] * 3 // 4
    north, south = Window(0, 0, side, cut), Window(0, cut + GAP, side, shape[0] - cut - GAP)
    return _write(folder, "train", image, ground.ids, grid, north, overwrite) | _write(
        folder, "validate", image, ground.ids, grid, south, overwrite
    )


def _land_to_map(folder: Path, side: int, rng: np.random.Generator, overwrite: bool) -> dict[str, Path]:
    """Another scene, elsewhere on another day."""
    shape = side + side // 4, side + side // 2
    ground = scenery.land(shape, rng)
    image = scenery.stored(scenery.reflectance(ground, rng, MAPPED_DAY), scenery.beyond_swath(shape, 0.2, east=False))
    grid = _grid(shape, 620_000, 5_210_000, zone=32)
    return _write(folder, "scene", image, ground.ids, grid, grid.window, overwrite)


def _grid(shape: tuple[int, int], west: float, north: float, zone: int) -> Grid:
    return Grid(shape, Affine(PIXEL, 0, west, 0, -PIXEL, north), CRS.from_epsg(32600 + zone))


def _write(
    folder: Path,
    name: str,
    image: NDArray[np.int16],
    ids: NDArray[np.uint8],
    grid: Grid,
    window: Window,
    overwrite: bool,
) -> dict[str, Path]:
    """Part of a scene and of its labels, as GeoTIFFs."""
    paths = {name: folder / f"{name}.tif", f"{name} labels": folder / f"{name}_labels.tif"}
    rows, cols = window.toslices()
    part = grid.crop(window)
    with CogWriter(
        paths[name], part, dtype="int16", count=len(BANDS), nodata=NODATA, descriptions=BANDS, overwrite=overwrite
    ) as writer:
        writer.write(part.window, image[:, rows, cols])
    with mask_writer(paths[f"{name} labels"], part, LEGEND, overwrite=overwrite) as writer:
        writer.write(part.window, LEGEND.decode(ids[rows, cols]))
    return paths


def _pair(scene_path: Path, labels_path: Path) -> Pair:
    scene = open_scene(scene_path)
    return Pair(scene, open_labels(labels_path, scene.grid, LEGEND))
