"""What accumulates, adds: the parts say the same as the whole."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from geounet.core.stats import BandStats, ClassCounts

pixels = arrays(np.float64, st.tuples(st.just(2), st.integers(1, 40)), elements=st.floats(-1e4, 1e4))


def close(one, two):
    assert (one.count, one.pixels) == (two.count, two.pixels)
    assert_allclose(one.mean, two.mean, rtol=1e-9, atol=1e-7)
    assert_allclose(one.m2, two.m2, rtol=1e-7, atol=1e-4)
    assert_array_equal(one.minimum, two.minimum)
    assert_array_equal(one.maximum, two.maximum)
    assert [dict(bins) for bins in one.sketch] == [dict(bins) for bins in two.sketch]


@given(st.lists(pixels, min_size=1, max_size=5))
def test_the_sum_of_the_parts_is_the_whole_and_numpy_agrees(parts):
    whole = np.concatenate(parts, axis=1)
    total = reduce(BandStats.__add__, map(BandStats.of, parts), BandStats.empty(2))
    close(total, BandStats.of(whole))
    assert_allclose(total.mean, whole.mean(axis=1), rtol=1e-9, atol=1e-7)
    assert_allclose(total.std, whole.std(axis=1), rtol=1e-6, atol=1e-6)
    assert_array_equal(total.minimum, whole.min(axis=1))
    assert_array_equal(total.maximum, whole.max(axis=1))


@given(pixels, pixels, pixels)
def test_a_sum_does_not_care_who_adds(a, b, c):
    a, b, c = map(BandStats.of, (a, b, c))
    close(a + b, b + a)
    close((a + b) + c, a + (b + c))
    close(a + BandStats.empty(2), a)


@given(pixels, st.data())
def test_only_valid_pixels_count(values, data):
    valid = data.draw(arrays(np.bool_, values.shape[1]))
    spoilt = np.where(valid, values, np.nan)
    stats = BandStats.of(spoilt, valid)
    assert (stats.count, stats.pixels) == (valid.sum(), valid.size)
    assert stats.valid_share == valid.mean()
    if valid.any():
        assert_allclose(stats.mean, values[:, valid].mean(axis=1), rtol=1e-9, atol=1e-7)


def test_no_pixels_have_no_mean_deviation_or_quantile():
    nothing = BandStats.of(np.full((3, 4, 4), np.nan), np.zeros((4, 4), bool)) + BandStats.empty(3)
    assert nothing.pixels == 16
    assert nothing.valid_share == 0
    assert np.isnan(nothing.std).all()
    assert np.isnan(nothing.quantiles([0.5])).all()
    assert np.isnan(BandStats.empty(3).valid_share)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng: rng.lognormal(5, 2, 4001), id="skewed"),
        pytest.param(lambda rng: rng.normal(0, 3000, 4001), id="negative and positive"),
        pytest.param(lambda rng: rng.integers(0, 255, 4001), id="bytes"),
        pytest.param(lambda _: np.full(4001, 0.25), id="constant"),
        pytest.param(lambda _: np.zeros(4001), id="zero"),
    ],
)
def test_quantiles_are_within_a_hundredth_of_their_value(draw):
    values = draw(np.random.default_rng(0))
    q = [0, 0.02, 0.25, 0.5, 0.75, 0.98, 1]
    halves = BandStats.of(values[None, :1000]) + BandStats.of(values[None, 1000:])
    expected = np.quantile(values, q, method="lower")  # 4000 gaps: quantiles are values that occur
    assert_allclose(halves.quantiles(q)[0], expected, rtol=0.01, atol=1e-9)


def test_large_numbers_with_a_small_spread_keep_their_deviation():
    values = 1e8 + np.array([0.0, 1.0, 2.0, 3.0])
    stats = BandStats.of(values[None, :2]) + BandStats.of(values[None, 2:])
    assert stats.std[0] == pytest.approx(np.sqrt(1.25))  # sums of squares would have lost it


@given(st.lists(arrays(np.uint8, st.integers(0, 30), elements=st.sampled_from([0, 1, 2, 7, 255])), min_size=1))
def test_class_counts_add_and_none_is_dropped(parts):
    total = reduce(ClassCounts.__add__, (ClassCounts.of(part, 3) for part in parts), ClassCounts.empty(3))
    whole = np.concatenate(parts)
    assert total.counts.tolist() == [(whole == k).sum() for k in range(3)]
    assert total.counts.sum() + total.ignored == whole.size


@pytest.mark.parametrize("rule", ["none", "inverse", "median", "effective"])
def test_weights_have_mean_one_and_favour_the_rare(rule):
    weights = ClassCounts(np.array([42, 21, 4])).weights(rule)
    assert weights.mean() == pytest.approx(1)
    assert (np.diff(weights) == 0 if rule == "none" else np.diff(weights) > 0).all()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param("inverse", [0.4, 1.6], id="8 : 2 → 1/8 : 1/2, of mean 1"),
        pytest.param("median", [0.4, 1.6], id="5/8 : 5/2, of mean 1"),
        # β = 9/10: 1/(1 - β⁸) = 1/0.56953279 and 1/(1 - β²) = 1/0.19, of mean 1
        pytest.param("effective", [0.38 / 0.75953279, 1.13906558 / 0.75953279], id="effective number"),
    ],
)
def test_weights_are_those_worked_out_by_hand(rule, expected):
    assert_allclose(ClassCounts(np.array([8, 2])).weights(rule), expected, rtol=1e-7)


@pytest.mark.parametrize("rule", ["none", "inverse", "median", "effective"])
def test_a_class_that_does_not_occur_has_no_weight_and_spoils_none(rule):
    assert_allclose(ClassCounts(np.array([8, 0, 2])).weights(rule)[[0, 2]], ClassCounts(np.array([8, 2])).weights(rule))
    assert ClassCounts(np.array([8, 0, 2])).weights(rule)[1] == 0
    assert ClassCounts(np.array([0, 0])).weights(rule).tolist() == [0, 0]
    assert ClassCounts(np.array([0, 1])).weights(rule).tolist() == [0, 1]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match=r"none, inverse, median or effective, not 'sqrt'"):
        ClassCounts(np.array([1, 1])).weights("sqrt")


def test_a_histogram_counts_what_numpy_counts_but_for_values_near_an_edge():
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.normal(1000, 300, 4000), rng.uniform(-5, 5, 4000)])
    stats = BandStats.of(pixels[:, :1500]) + BandStats.of(pixels[:, 1500:])
    for band, edges in ((0, [-1000, 500, 900, 1300, 5000]), (1, [-5, -2.5, 0, 2.5, 5])):
        ours, exact = stats.histogram(edges)[band], np.histogram(pixels[band], edges)[0]
        near = [(np.abs(pixels[band] - edge) <= 0.0101 * abs(edge)).sum() for edge in edges]
        assert ours.sum() == exact.sum() == 4000
        assert all(abs(a - b) <= near[i] + near[i + 1] for i, (a, b) in enumerate(zip(ours, exact, strict=True)))


def test_a_histogram_of_no_pixels_is_empty():
    assert BandStats.empty(2).histogram([0, 1, 2]).tolist() == [[0, 0], [0, 0]]
