"""Scenes and models at the size of a benchmark, or small ones when timings are off."""

import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from tests.making import BANDS, reflectance, unet_model


@pytest.fixture(scope="session")
def timed(request):
    """True with --benchmark-enable."""
    return bool(request.config.getoption("benchmark_enable"))


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    """A U-Net of the bundled model's kind: six bands, two classes."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return unet_model(depth=4, width=16).save(path)


@pytest.fixture(scope="session")
def large_scene(tmp_path_factory):
    """Make square scenes: six bands int16, tiled 512, deflate, two corners without data."""
    folder = tmp_path_factory.mktemp("scenes")

    def make(size):
        path = folder / f"{size}.tif"
        if path.exists():
            return path
        profile = {
            "driver": "GTiff", "height": size, "width": size, "count": 6, "dtype": "int16", "nodata": -9999,
            "crs": "EPSG:32633", "transform": Affine(30, 0, 5e5, 0, -30, 5.3e6), "tiled": True, "blockxsize": 512,
            "blockysize": 512, "compress": "deflate", "predictor": 2, "zlevel": 1, "BIGTIFF": "IF_SAFER",
        }  # fmt: skip
        block = reflectance((1024, 1024), seed=1)
        with rasterio.open(path, "w", **profile) as dataset:
            for index, name in enumerate(BANDS, start=1):
                dataset.set_band_description(index, name)
            for row in range(0, size, 512):
                for col in range(0, size, 512):
                    height, width = min(512, size - row), min(512, size - col)
                    top, left = row % 1024, col % 1024
                    pixels = block[:, top : top + height, left : left + width].copy()
                    rows, cols = np.mgrid[row : row + height, col : col + width]
                    pixels[:, (rows + cols < size // 5) | (rows + cols > 2 * size - size // 5)] = -9999
                    dataset.write(pixels, window=Window(col, row, width, height))
        return path

    return make


@pytest.fixture(scope="session")
def in_a_process():
    """Run code in a fresh interpreter; it prints JSON, and its peak memory (MB) is added."""

    def run(code, *args):
        tail = (
            "\nimport json, re\n"  # ru_maxrss would begin at the peak of the process that started this one
            "from pathlib import Path\n"
            "peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())\n"
            "result['peak_mb'] = int(peak[1]) / 1024\n"
            "print(json.dumps(result))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code + tail, *map(str, args)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
