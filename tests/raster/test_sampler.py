"""Plans are pure and seeded; reads give what the files hold; surveys count each pixel once."""

from collections import Counter

import dask
import dask.array
import numpy as np
import pytest
import rasterio
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.windows import Window

from geounet.core.legend import Legend
from geounet.raster.labels import Labels, open_labels
from geounet.raster.sampler import Pair, Sample, plan_grid, plan_random, read_batches, survey
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


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 32, 64, 200]))
@settings(max_examples=20, deadline=None)
def test_equal_seeds_give_equal_plans_and_windows_lie_in_their_scene(pairs, seed, size):
    plan = plan_random(pairs, size, 30, np.random.default_rng(seed))
    assert plan == plan_random(pairs, size, 30, np.random.default_rng(seed))
    for sample in plan:
        for offset, length in zip(
            (sample.window.row_off, sample.window.col_off), pairs[sample.scene].scene.grid.shape, strict=True
        ):
            assert 0 <= offset <= length - size if length >= size else offset == (length - size) // 2


def test_groups_are_drawn_by_area_to_the_power_asked_for(pairs):
    def share(power):
        plan = plan_random(pairs, 16, 20_000, np.random.default_rng(0), group_power=power)
        counts = Counter(pairs[sample.scene].group for sample in plan)
        return counts["a"] / 20_000

    a, b = 64 * 80, 50 * 40 + 128 * 128
    assert share(1.0) == pytest.approx(a / (a + b), abs=0.015)
    assert share(0.0) == pytest.approx(0.5, abs=0.015)
    assert share(0.5) == pytest.approx(a**0.5 / (a**0.5 + b**0.5), abs=0.015)


def test_a_grid_plan_holds_every_pixel_once(pairs):
    for index, pair in enumerate(pairs):
        tally = np.zeros(pair.scene.grid.shape, int)
        for sample in plan_grid(pairs, 48):
            if sample.scene == index:
                row, col = sample.window.row_off, sample.window.col_off
                tally[row : row + 48, col : col + 48] += 1
        assert (tally == 1).all()


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


def test_a_survey_is_numpys_mean_and_count_over_the_valid_pixels(pairs):
    found = survey(pairs)
    pixels, ids = [], []
    for pair in pairs:
        with rasterio.open(pair.scene.source) as dataset:
            image = dataset.read()
        with rasterio.open(pair.labels.source) as dataset:
            truth = dataset.read(1)
        good = (image != -9999).all(axis=0)
        pixels.append(image[:, good])
        ids.append(truth[good])
    flat, truth = np.concatenate(pixels, axis=1), np.concatenate(ids)
    assert found.stats.count == flat.shape[1]
    assert_allclose(found.stats.mean, flat.mean(axis=1), rtol=1e-9)
    assert_allclose(found.stats.std, flat.std(axis=1), rtol=1e-9)
    assert_array_equal(found.counts.counts, [(truth == 0).sum(), (truth == 1).sum()])
    assert found.counts.ignored == (truth == 255).sum()
