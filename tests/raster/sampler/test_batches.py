"""Plans are pure and seeded; reads give what the files hold; surveys count each pixel once."""

import dask
import dask.array
import numpy as np
import pytest
import rasterio
import xarray
from numpy.testing import assert_array_equal
from rasterio.windows import Window

from geounet.core.legend import Legend
from geounet.raster.labels import Labels, open_labels
from geounet.raster.sampler import Pair, Sample, plan_random, read_batches
from geounet.raster.scene import open_scene
from tests.making import BANDS, reflectance, write_raster

LEGEND = Legend.of(["land", "water"])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three scenes of two groups, one with nodata, labels with holes."""
    folder = tmp_path_factory.mktemp("pairs")
    made = []
    for number, (shape, group) in enumerate([((64, 80), "a"), ((50, 40), "b"), ((128, 128), "b")]):
        pixels = reflectance(shape, seed=number)
        truth = (pixels[3] < 1500).astype(np.uint8)
        truth[:3] = 255
        if number == 1:
            pixels[:, :10] = -9999
        scene = open_scene(write_raster(folder / f"{number}.tif", pixels, bands=BANDS, nodata=-9999))
        labels = open_labels(write_raster(folder / f"{number}_truth.tif", truth, nodata=255), scene.grid, LEGEND)
        made.append(Pair(scene, labels, group))
    return made


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_batches_hold_what_rasterio_reads_in_the_order_of_the_plan(pairs, scheduler):
    plan = plan_random(pairs, 32, 21, np.random.default_rng(3))
    with dask.config.set(scheduler=scheduler):
        batches = list(read_batches(pairs, plan, batch_size=8))
    assert [len(batch.image) for batch in batches] == [8, 8, 5]
    images = np.concatenate([batch.image for batch in batches])
    masks = np.concatenate([batch.mask for batch in batches])
    for sample, image, mask in zip(plan, images, masks, strict=True):
        with rasterio.open(pairs[sample.scene].scene.source) as dataset:
            truth = dataset.read(window=sample.window, masked=True)
        assert_array_equal(np.isnan(image), truth.mask)
        assert_array_equal(image[~truth.mask], truth.compressed())
        assert (mask[truth.mask.any(axis=0)] == 255).all()


def test_a_chip_of_a_lazy_array_computes_the_blocks_it_touches_alone():
    computed = []

    def block(block_info=None):
        computed.append(block_info[None]["chunk-location"])
        return np.full((2, 16, 16), 500, np.int16)

    lazy = dask.array.map_blocks(
        block, chunks=((2,), (16,) * 4, (16,) * 4), dtype=np.int16, meta=np.empty((0, 0, 0), np.int16)
    )
    pixel = 30.0
    array = xarray.DataArray(
        lazy,
        dims=("band", "y", "x"),
        coords={"y": 5e6 - pixel * (np.arange(64) + 0.5), "x": 5e5 + pixel * (np.arange(64) + 0.5)},
    )
    scene = open_scene(array, bands=["red", "nir"])

    class Void(Labels):
        def _ids(self, window):
            return np.zeros((window.height, window.width), np.uint8)

    labels = Void("nothing", LEGEND, scene.grid, ())
    next(read_batches([Pair(scene, labels)], [Sample(0, Window(0, 0, 16, 16))], 1))
    assert computed == [(0, 0, 0)]
