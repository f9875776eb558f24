"""Scenes, labels and models, kilobytes big, made for a test."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS
from torch import nn

from geounet.core.legend import Legend
from geounet.nn.features import Features
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from geounet.nn.unet import UNet

SHARED = Path(os.environ.get("GEOUNET_SHARED") or Path(__file__).parents[2] / "shared" / "data")
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared example data are not here")

UTM = CRS.from_epsg(32633)
PLACE = Affine(30, 0, 500_000, 0, -30, 5_300_000)
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")


def write_raster(path, pixels, *, bands=(), nodata=None, crs=UTM, transform=PLACE, **profile):
    """Write (band, y, x) or (y, x) as a GeoTIFF, and return its path."""
    pixels = np.atleast_3d(np.asarray(pixels)) if np.ndim(pixels) < 2 else np.asarray(pixels)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    count, height, width = pixels.shape
    settings = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype.name,
        "crs": crs, "transform": transform, "nodata": nodata,
    }  # fmt: skip
    with rasterio.open(path, "w", **settings | profile) as dataset:
        dataset.write(pixels)
        for index, name in enumerate(bands, start=1):
            dataset.set_band_description(index, name)
    return path


class OnePixel(nn.Module):
    """A network that looks at one pixel at a time."""

    stride = 1

    def __init__(self, bands, classes, seed=0):
        super().__init__()
        self.layer = nn.Conv2d(bands, classes, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(self.layer.weight.shape, generator=generator))
            self.layer.bias.copy_(torch.randn(self.layer.bias.shape, generator=generator))

    def forward(self, image):
        return self.layer(image)


def band_infos(names=BANDS, mean=1000.0, std=500.0, percentiles=None, unit="reflectance × 10000"):
    return [BandInfo(name, mean, std, unit=unit, percentiles=percentiles or {}) for name in names]


def pixel_model(names=BANDS, classes=("land", "water"), seed=0, **bands):
    """A segmenter whose map of a pixel depends on that pixel alone."""
    network = OnePixel(len(names), len(classes), seed)
    return Segmenter(network, band_infos(names, **bands), ModelInfo(Legend.of(classes))).eval()


def unet_model(
    names=BANDS, classes=("land", "water"), seed=0, pixel_size=None, depth=2, width=4, features=None, **bands
):
    """A small U-Net with random weights, loud enough that its map has both classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        channels = (features or Features()).channels(len(names))
        network = UNet(channels, len(classes), depth=depth, width=width)
    legend = classes if isinstance(classes, Legend) else Legend.of(classes)
    info = ModelInfo(legend, pixel_size=pixel_size)
    return Segmenter(network, band_infos(names, **bands), info, features).eval()


def reflectance(shape, bands=6, seed=0, low=200, high=3000):
    """Smooth int16 values, (band, y, x)."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(low, high, (bands, shape[0] // 8 + 2, shape[1] // 8 + 2))
    fine = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]]
    return (fine + rng.normal(0, 40, fine.shape)).round().astype(np.int16)
