import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from matplotlib.figure import Figure
from rasterio.crs import CRS
from rasterio.windows import Window

from geounet.core.legend import IGNORE
from geounet.core.metrics import Confusion
from geounet.evaluation import Evaluation
from geounet.raster.scene import open_scene
from geounet.training import Run
from geounet.training.outcome.examples import Example, Examples
from geounet.training.source.batches import Place
from tests.making import unet_model

UTM = CRS.from_epsg(32633)
PLACE = Affine(10, 0, 500_000, 0, -10, 5_000_000)


@pytest.fixture
def scene_of(tmp_path):
    def make(pixels, bands, name="scene.tif", nodata=-1, transform=PLACE, crs=UTM):
        pixels = np.asarray(pixels)
        count, height, width = pixels.shape
        profile = {"driver": "GTiff", "dtype": pixels.dtype, "crs": crs, "transform": transform, "nodata": nodata}
        with rasterio.open(tmp_path / name, "w", count=count, height=height, width=width, **profile) as file:
            file.write(pixels)
            file.descriptions = tuple(bands)
        return open_scene(tmp_path / name)

    return make


@pytest.fixture
def mask_of(tmp_path):
    def make(codes, name="mask.tif", transform=PLACE):
        codes = np.asarray(codes, np.uint8)
        profile = {"driver": "GTiff", "dtype": "uint8", "crs": UTM, "transform": transform, "nodata": 255}
        with rasterio.open(tmp_path / name, "w", count=1, height=codes.shape[0], width=codes.shape[1], **profile) as f:
            f.write(codes, 1)
        return tmp_path / name

    return make


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **more: (figures.append(self), save(self, *args, **more))[1]
    )
    return figures


NAMES = ("water", "forest")


@pytest.fixture
def example_of():
    """A scored chip of given labels and prediction, whose bands are all `light`."""

    def make(labels, predicted=None, light=500.0, name="/data/a.tif", bands=1, classes=2):
        labels = np.asarray(labels, np.uint8)
        image = np.broadcast_to(np.asarray(light, np.float32), (bands, *labels.shape)).copy()
        valid = ~np.isnan(image).all(axis=0)
        if predicted is None:
            return Example(Place(name), image, valid, labels)
        predicted = np.where(valid, np.asarray(predicted), IGNORE).astype(np.uint8)
        counts = Confusion.of(labels, predicted, classes)
        return Example(Place(name, Window(64, 128, *labels.shape[::-1])), image, valid, labels, predicted, counts)

    return make


@pytest.fixture
def run_of(tmp_path, example_of):
    """A finished run whose names may be anything, and the folder that it fills."""

    def make(names=NAMES, scenes=("/data/a.tif", "/data/b.tif"), **info):
        model = unet_model(classes=names)
        provenance = {
            "data": "made up", "licence": "none", "pixels": dict(zip(names, (750, 250), strict=True)),
            "split": {"train": {"scenes": 3, "groups": 2, "hash": "0123456789abcdef"}}, "best_epoch": 2,
        }  # fmt: skip
        model.info = replace(model.info, provenance=provenance, **({"name": "ponds"} | info))
        one = Confusion(np.array([[30, 10], [5, 55]]), 7)
        scores = Evaluation(tuple(names), one + one, dict.fromkeys(scenes, one))
        history = [
            {"epoch": n, "loss": 1 / n, "val_loss": 1.5 / n, "val_miou": 0.3 * n, "learning_rate": 1e-3, "data_wait": 0.1,
             **{f"val_iou_{name}": 0.3 * n for name in names}}
            for n in (1, 2)
        ]  # fmt: skip
        chips = [example_of([[0, 1], [1, 255]], [[0, 0], [1, 1]], name=scene, bands=3) for scene in scenes]
        examples = Examples(("red", "green", "blue"), tuple(chips), tuple(chips), tuple(chips))
        folder = tmp_path / "run"
        folder.mkdir()
        record = {
            "ended": "2026-01-02T03:04:05+00:00",
            "versions": {"geounet": "9.9"},
            "options": {"training": {"keep": "last"}},
        }
        (folder / "run.json").write_text(json.dumps(record))
        return Run(folder, model, history, scores, scores, examples)

    return make
