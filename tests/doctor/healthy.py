"""A small, sound data set, from which faults are made."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import yaml
from affine import Affine

from geounet.raster.gdal import quiet
from tests.making import write_raster

SIDE = 80
SPLIT = {
    "a": "train",
    "b": "train",
    "c": "train",
    "d": "train",
    "e": "validate",
    "f": "validate",
    "g": "test",
    "h": "test",
}
BANDS = ("red", "nir", "swir1")
SPECTRA = np.array([[900, 2100, 1700], [500, 900, 900], [1400, 1600, 2300]])  # vegetation, water, bare
CODES = np.array([10, 80, 60])
LEGEND = {10: "vegetation", 80: "water", 60: "bare"}


def place(number):
    """Scenes stand 9 km apart."""
    return Affine(30, 0, 500_000 + 9_000 * number, 0, -30, 5_300_000)


def ground(number):
    """Class ids in smooth patches, (SIDE, SIDE); each class on a third of the pixels."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = sum(
        np.cos(2 * np.pi * (k * x * np.cos(t) + k * y * np.sin(t)) + p)
        for k, t, p in zip(rng.uniform(1, 5, 12), rng.uniform(0, np.pi, 12), rng.uniform(0, 7, 12), strict=True)
    )
    return np.digitize(waves, np.quantile(waves, [1 / 3, 2 / 3]))


@dataclass(frozen=True)
class DataSet:
    """A folder with a config, and ways to spoil it."""

    folder: Path

    @property
    def config(self):
        return self.folder / "config.yaml"

    def scene(self, name):
        return self.folder / "scenes" / f"{name}.tif"

    def labels(self, name):
        return self.folder / "labels" / f"{name}.tif"

    def codes(self, name):
        with rasterio.open(self.labels(name)) as dataset:
            return dataset.read(1)

    def edit(self, path, change=None, **profile):
        """Write a raster again, its pixels (band, y, x) changed by a function."""
        with rasterio.open(path) as dataset:
            pixels, kept, bands = dataset.read(), dataset.profile, dataset.descriptions
        pixels = pixels if change is None else change(pixels)
        names = ("nodata", "crs", "transform")
        settings = {name: kept[name] for name in names} | profile
        with quiet():  # some are to have no place
            write_raster(path, pixels, bands=[band for band in bands if band][: len(pixels)], **settings)

    def edit_all(self, path, change, splits=("train", "validate", "test")):
        """The same with every path that a function of the name gives."""
        for name, split in SPLIT.items():
            if split in splits:
                self.edit(path(name), change)

    def rows(self, change):
        """Write the table again, each row changed by a function."""
        path = self.folder / "splits.csv"
        with path.open(newline="") as file:
            rows = [change(row) for row in csv.DictReader(file)]
        write_table(path, rows)

    def set(self, **sections):
        """Change keys of the config's sections."""
        values = yaml.safe_load(self.config.read_text())
        for section, keys in sections.items():
            values[section] = values.get(section, {}) | keys
        self.config.write_text(yaml.safe_dump(values))


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def make(folder):
    """Eight scenes of three classes, their labels, a table of splits and a config."""
    data = DataSet(folder)
    for sub in ("scenes", "labels"):
        (folder / sub).mkdir()
    for number, name in enumerate(SPLIT):
        ids = ground(number)
        noise = np.random.default_rng(100 + number).normal(0, 350, (3, SIDE, SIDE))
        pixels = (SPECTRA[ids].transpose(2, 0, 1) + noise).round().astype(np.int16)
        write_raster(data.scene(name), pixels, bands=BANDS, nodata=-9999, transform=place(number))
        write_raster(data.labels(name), CODES[ids].astype(np.uint8), nodata=255, transform=place(number))
    write_table(
        folder / "splits.csv",
        [
            {"scene": f"scenes/{name}.tif", "labels": f"labels/{name}.tif", "split": split, "group": f"g-{name}"}
            for name, split in SPLIT.items()
        ],
    )
    table = {
        "path": "splits.csv",
        "labels": "labels",
        "group": "group",
        "splits": {s: s for s in ("train", "validate", "test")},
    }
    values = {
        "scenes": {"table": table},
        "labels": {"legend": LEGEND},
        "sampler": {"chip_size": 32},
    }
    data.config.write_text(yaml.safe_dump(values))
    return data
