"""Chips add into rows: the whole scene comes back, and any part of it is the same as in the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window

from geounet.core.stitching import stitch
from geounet.core.windows import Tiling
from tests.strategies import tilings, windows


def scene(shape, bands=2, seed=0):
    return np.random.default_rng(seed).random((bands, *shape), dtype=np.float32)


def cut(image, tiling, key):
    """A chip of full size, 0 outside the scene."""
    window = tiling.window(*key)
    chip = np.zeros((len(image), window.height, window.width), np.float32)
    part = image[(..., *window.toslices())]
    chip[:, : part.shape[1], : part.shape[2]] = part
    return chip


def cuts(image, tiling, target=None):
    """Keys and chips, in the order in which they are stitched."""
    for key in tiling.keys(target):
        yield key, cut(image, tiling, key)


def mosaic(image, tiling, target=None, change=lambda _, chip: chip):
    """What `stitch` gives, pasted together; NaN where nothing came."""
    made = np.full(image.shape, np.nan, np.float32)
    chips = ((key, change(key, chip)) for key, chip in cuts(image, tiling, target))
    for window, sums in stitch(chips, tiling, target):
        place = (..., *window.toslices())
        assert np.isnan(made[place]).all()  # each row comes once
        made[place] = 0 if sums is None else np.asarray(sums)
    return made


@given(tilings())
def test_cutting_then_stitching_gives_the_scene_back(tiling):
    image = scene(tiling.shape)
    np.testing.assert_allclose(mosaic(image, tiling), image, rtol=1e-5, atol=1e-6)


@given(tilings(), st.data())
def test_a_part_has_the_same_bits_as_in_the_whole(tiling, data):
    target = data.draw(windows(tiling.shape))
    rng = np.random.default_rng(1)
    image = scene(tiling.shape)
    noise = {key: rng.random(dtype=np.float32) for key, _ in cuts(image, tiling)}
    options = {"change": lambda key, chip: chip + noise[key]}  # chips that disagree where they overlap
    place = (..., *target.toslices())
    part = mosaic(image, tiling, target, **options)
    np.testing.assert_array_equal(part[place], mosaic(image, tiling, **options)[place])
    outside = np.ones(image.shape, bool)
    outside[place] = False
    assert np.isnan(part[outside]).all()


@given(tilings())
def test_torch_and_numpy_chips_give_the_same_sums(tiling):
    image = scene(tiling.shape)
    as_torch = mosaic(image, tiling, change=lambda _, chip: torch.from_numpy(chip))
    np.testing.assert_array_equal(as_torch, mosaic(image, tiling))


@given(tilings(), st.data())
def test_a_missing_chip_counts_as_zeros(tiling, data):
    keys = list(tiling.keys())
    missing = data.draw(st.sets(st.sampled_from(keys)))
    image = scene(tiling.shape)
    absent = mosaic(image, tiling, change=lambda key, chip: None if key in missing else chip)
    zero = mosaic(image, tiling, change=lambda key, chip: chip * 0 if key in missing else chip)
    np.testing.assert_array_equal(absent, zero)


@given(tilings())
def test_rows_come_from_top_to_bottom_and_at_most_a_chip_s_height_is_held(tiling):
    image = scene(tiling.shape)
    done = 0
    for window, sums in stitch(cuts(image, tiling), tiling):
        assert (window.col_off, window.width) == (0, tiling.shape[1])
        assert window.row_off == done
        assert sums.base.shape[1] <= tiling.rows.size
        done += window.height
    assert done == tiling.shape[0]


def test_rows_are_let_go_as_soon_as_no_chip_can_reach_them():
    tiling = Tiling.of((100, 20), (40, 20), 10)
    image = scene(tiling.shape)
    asked = []

    def chips():
        for key, chip in cuts(image, tiling):
            asked.append(key)
            yield key, chip

    rows = [(window.row_off, window.height, len(asked)) for window, _ in stitch(chips(), tiling)]
    assert rows == [(0, 30, 1), (30, 30, 2), (60, 40, 3)]  # starts are 0, 30, 60


def test_a_pixel_s_sum_is_the_one_worked_out_by_hand():
    """Two windows of 3 with stride 1 on a line of 4: shares of pixel 1 are 2/3 and 1/3."""
    tiling = Tiling.of((1, 4), (1, 3), 0)
    tiling = Tiling(tiling.rows, type(tiling.cols)(4, 3, 1))
    chips = [((0, 0), np.full((1, 1, 3), 3.0)), ((0, 1), np.full((1, 1, 3), 9.0))]
    [(window, sums)] = [(window, sums.copy()) for window, sums in stitch(chips, tiling)]
    assert window == Window(0, 0, 4, 1)
    np.testing.assert_allclose(sums[0, 0], [3, 2 * 1 + 9 / 3, 3 / 3 + 6, 9])


def test_on_a_gpu_sums_stay_there(device):
    tiling = Tiling.of((30, 20), (16, 16), 4)
    image = scene(tiling.shape)
    chips = ((key, torch.from_numpy(chip).to(device)) for key, chip in cuts(image, tiling))
    for window, sums in stitch(chips, tiling):
        assert sums.device.type == device
        np.testing.assert_allclose(sums.cpu(), image[(..., *window.toslices())], rtol=1e-5, atol=1e-6)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request):
    return request.param
