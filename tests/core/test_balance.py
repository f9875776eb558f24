"""Windows are drawn so that classes have the shares asked for, and otherwise as before."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from geounet.core.balance import CLOSE, effective, spread, tilt

ALIKE = np.full(6, 1 / 6)


def divergence(q, p):
    there = q > 0
    return float((q[there] * np.log(q[there] / p[there])).sum())


def test_windows_of_one_class_each_are_drawn_by_the_shares():
    found = tilt(np.array([[4.0, 0], [0, 4]]), np.array([0.9, 0.1]), np.array([0.25, 0.75]), fewest=1)
    assert found.reached
    assert_allclose(found.weights, [0.25, 0.75], rtol=1e-4)


def test_a_die_of_mean_four_and_a_half_is_jaynes_die():
    """Faces as windows with 1 to 6 pixels of a class in 7; probabilities from Jaynes' Brandeis lectures, 1962."""
    faces = np.arange(1.0, 7)
    found = tilt(np.column_stack([faces, 7 - faces]), ALIKE, np.array([4.5, 2.5]) / 7, fewest=1)
    assert_allclose(found.weights, [0.05435, 0.07877, 0.11416, 0.16545, 0.23977, 0.34749], atol=1e-5)
    assert_allclose(found.weights @ faces, 4.5, rtol=1e-6)


@given(
    arrays(np.float64, (30, 3), elements=st.floats(0.01, 1)),
    arrays(np.float64, 30, elements=st.floats(0.05, 1)),
    arrays(np.float64, 30, elements=st.floats(0.05, 1)),
)
def test_shares_that_some_draw_has_are_reached_by_the_nearest_one(content, weights, other):
    content /= content.sum(axis=1, keepdims=True)
    weights, other = weights / weights.sum(), other / other.sum()
    found = tilt(content, weights, other @ content, fewest=1)
    assert found.reached
    assert_allclose(found.weights.sum(), 1)
    assert (found.weights >= 0).all()
    assert_allclose(found.shares, other @ content, rtol=CLOSE)
    assert divergence(found.weights, weights) <= divergence(other, weights) * (1 + CLOSE) + 1e-4


@given(arrays(np.float64, (20, 2), elements=st.floats(0.01, 1)))
def test_the_present_shares_leave_all_as_it_is(content):
    weights = np.full(20, 1 / 20)
    present = content.sum(axis=0) / content.sum()
    assert_allclose(tilt(content, weights, present).weights, weights, atol=1e-6)


def test_unlabelled_pixels_do_not_take_the_place_of_labelled_ones():
    rng = np.random.default_rng(0)
    mass = rng.uniform(0.01, 1, 4000)  # many windows are nearly without a label
    rare = mass * rng.uniform(0, 0.4, 4000) ** 3 * 4
    content = np.column_stack([mass - rare, rare])
    weights = np.full(4000, 1 / 4000)
    found = tilt(content, weights, np.array([0.85, 0.15]))
    assert found.reached
    assert found.weights @ mass == pytest.approx(mass.mean(), rel=0.1)


@pytest.mark.parametrize("asked", [0.4, 0.9])
def test_what_cannot_be_had_is_come_near_to_without_drawing_the_same_few_windows(asked):
    rare = np.linspace(0, 0.3, 5000) ** 2 / 0.3  # 0 to 30 %
    content = np.column_stack([1 - rare, rare])
    found = tilt(content, np.full(5000, 1 / 5000), np.array([1 - asked, asked]), fewest=100)
    assert not found.reached
    assert 0.25 < found.shares[1] < 0.3
    assert effective(found.weights) >= 100


def test_a_share_that_is_not_firm_gives_way():
    """Class 2 is never beside class 1, and is to keep half of the pixels; class 1 is to have a third of them."""
    content = np.array([[0.6, 0.4, 0.0]] * 50 + [[0.5, 0.0, 0.5]] * 5000)
    weights = np.full(5050, 1 / 5050)
    target = np.array([0.15, 0.35, 0.5])
    assert not tilt(content, weights, target, fewest=20).reached
    soft = tilt(content, weights, target, np.array([False, True, False]), fewest=20)
    assert soft.reached
    assert soft.shares[1] == pytest.approx(0.35, rel=CLOSE)


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)), st.integers(1, 100), st.integers(0, 99))
def test_each_is_drawn_its_expected_number_of_times_up_to_rounding(weights, count, seed):
    assume(weights.sum() > 0)
    drawn = spread(weights, count, np.random.default_rng(seed))
    times = np.bincount(drawn, minlength=len(weights))
    assert len(drawn) == count
    assert (np.abs(times - count * weights / weights.sum()) < 1 + 1e-6).all()
    assert (times[weights == 0] == 0).all()


def test_draws_are_in_no_order():
    drawn = spread(np.full(1000, 1e-3), 1000, np.random.default_rng(1))
    assert abs(np.corrcoef(drawn, np.arange(1000))[0, 1]) < 0.1
    assert sorted(drawn.tolist()) == list(range(1000))
