"""Labels that were moved are found where they were moved to; noise is found nowhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from geounet.doctor.registration import DISTANCE, REACH, fit
from tests.doctor.healthy import SPECTRA, ground


def picture(number, noise=300):
    """Image (3, H, W) and class ids (H, W)."""
    ids = ground(number)
    spread = np.random.default_rng(number).normal(0, noise, (3, *ids.shape))
    return (SPECTRA[ids].transpose(2, 0, 1) + spread).astype(np.float32), ids


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_the_way_back_of_moved_labels_is_the_best_shift(number, rows, cols):
    image, ids = picture(number)
    found = fit(image, np.roll(ids, (rows, cols), (0, 1)), 3)
    assert found.best == (-rows, -cols)
    assert found.shifted() == (np.hypot(rows, cols) >= DISTANCE)


def test_fit_is_the_sum_over_the_boundary_worked_out_pixel_by_pixel():
    """Two classes told apart without doubt: a pixel looks like its class with certainty 1."""
    ids = np.zeros((24, 40), int)
    ids[:, 21:] = 1
    image = np.where(ids, 1000.0, 0.0)[None]
    found = fit(image, ids, 2)
    inner = 24 - 2 * REACH
    assert found.boundary == inner  # a boundary of so many rows, away from the edge
    expected = np.zeros(2 * REACH + 1)
    expected[REACH] = 2 * inner  # a step of 1 up in one class and down in the other
    assert_allclose(found.surface, np.tile(expected, (2 * REACH + 1, 1)), atol=1e-9)


def test_labels_of_another_place_are_not_called_shifted():
    found = [fit(picture(one)[0], picture(two)[1], 3) for one in range(4) for two in range(4, 8)]
    assert not any(one.shifted() for one in found)


def test_fits_add():
    one, two = fit(*picture(0), 3), fit(*picture(1), 3)
    assert_allclose((one + two).surface, one.surface + two.surface)
    assert (one + two).boundary == one.boundary + two.boundary


@pytest.mark.parametrize(
    ("image", "ids"),
    [
        pytest.param(np.ones((1, 64, 64)), ground(0)[:64, :64], id="an image of one value"),
        pytest.param(np.full((2, 64, 64), np.nan), ground(0)[:64, :64], id="no valid pixel"),
        pytest.param(np.ones((1, 64, 64)), np.zeros((64, 64), int), id="one class"),
        pytest.param(np.ones((1, 10, 10)), np.eye(10, dtype=int), id="smaller than the reach"),
        pytest.param(np.ones((0, 64, 64)), ground(0)[:64, :64], id="no band of amounts"),
    ],
)
def test_where_there_is_nothing_to_compare_nothing_is_shifted(image, ids):
    assert not fit(image, ids, 3).shifted()
