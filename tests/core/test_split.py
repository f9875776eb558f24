"""Splits keep groups whole and classes in proportion; blocks keep labelled ground apart."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from pyproj import Geod

from geounet.core.split import Blocks, BlockSplit, assign, folds, roles, search
from geounet.errors import SplitError

SHARES = {"train": 0.7, "validate": 0.15, "test": 0.15}
WGS84 = Geod(ellps="WGS84")


def rng(seed=0):
    return np.random.default_rng(seed)


def share_of_each(weights, found, splits):
    held = np.array([weights[found == split].sum(axis=0) for split in range(splits)])
    return held / weights.sum(axis=0)


@given(
    arrays(np.int64, st.tuples(st.integers(4, 30), st.integers(1, 5)), elements=st.integers(0, 1000)),
    st.integers(0, 2**32 - 1),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_groups_are_whole_and_equal_seeds_give_equal_splits(weights, seed, data):
    groups = data.draw(st.lists(st.integers(0, 8), min_size=len(weights), max_size=len(weights)))
    groups[:3] = "abc"  # as many groups as splits at least
    found = assign(weights, SHARES, rng(seed), groups=groups)
    assert set(found) <= {0, 1, 2}
    for name in set(groups):
        assert len({split for split, group in zip(found, groups, strict=True) if group == name}) == 1
    assert_array_equal(found, assign(weights, SHARES, rng(seed), groups=groups))


def test_many_small_units_come_within_a_percent_of_the_shares_in_every_class():
    weights = rng(1).gamma(0.5, [1000, 100, 10, 1], (400, 4))
    found = assign(weights, SHARES, rng())
    np.testing.assert_allclose(
        share_of_each(weights, found, 3), np.array([[0.7], [0.15], [0.15]]) * np.ones(4), atol=0.01
    )


def test_a_class_of_three_units_is_in_all_three_splits():
    weights = np.zeros((60, 2))
    weights[:, 0] = rng(2).uniform(50, 150, 60)
    weights[[5, 17, 40], 1] = [1, 2, 3]
    for seed in range(3):
        assert set(assign(weights, SHARES, rng(seed))[[5, 17, 40]]) == {0, 1, 2}


def cost(weights, found, shares):
    """χ² of the shares of each class and of all, as worked out from its definition."""
    total = np.column_stack([weights, weights.sum(axis=1)])
    held = share_of_each(total, found, len(shares))
    return sum(((held[i] - share) ** 2 / share).sum() + 1e3 * (held[i] == 0).sum() for i, share in enumerate(shares))


@given(arrays(np.int64, (7, 2), elements=st.integers(1, 50)), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_few_units_are_shared_out_nearly_as_well_as_by_trying_all_ways(weights, seed):
    found = assign(weights, SHARES, rng(seed))
    best = min(cost(weights, np.array(way), SHARES.values()) for way in itertools.product(range(3), repeat=7))
    assert cost(weights, found, SHARES.values()) <= best + 0.02


def test_folds_of_equal_units_are_equal():
    found = folds(np.full((20, 3), 7), 5, rng())
    assert_array_equal(np.bincount(found), [4] * 5)


def test_each_fold_validates_once():
    assert [roles(3, fold)["validate"] for fold in range(3)] == [[0], [1], [2]]
    assert roles(3, 1) == {"train": [0, 2], "validate": [1]}


def test_units_that_share_a_weight_stay_together_where_that_costs_no_balance():
    # eight blocks of one weight, and pixels between the first two and between the next two
    weights = np.append(np.full(8, 100), [40, 40])[:, None]
    members = np.array([*[(i, i) for i in range(8)], (0, 1), (2, 3)])
    found = search(weights, members, {"train": 0.5, "test": 0.5}, rng())
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0] != found[2]
    assert_array_equal(np.bincount(found), [4, 4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: assign(np.ones((5, 1)), {"train": 0.7, "test": 0.2}, rng()), "add up to 1", id="sum"),
        pytest.param(lambda: assign(np.ones((5, 1)), {"train": 1.2, "test": -0.2}, rng()), "positive", id="sign"),
        pytest.param(lambda: assign(np.ones((2, 1)), SHARES, rng()), "2 groups of scenes cannot fill", id="few"),
        pytest.param(lambda: folds(np.ones((2, 1)), 3, rng()), "2 groups of scenes cannot fill", id="few folds"),
        pytest.param(lambda: roles(5, 5), "found 5 of 5", id="no such fold"),
        pytest.param(lambda: roles(1, 0), "at least 2 folds", id="one fold"),
        pytest.param(lambda: Blocks(0), "0 m", id="no size"),
        pytest.param(lambda: Blocks(100, 100), "smaller than size", id="buffer as wide as a block"),
        pytest.param(lambda: Blocks(100, -1), "at least 0", id="negative buffer"),
    ],
)
def test_what_makes_no_split_is_refused_with_what_was_found(call, message):
    with pytest.raises(SplitError, match=message):
        call()


@st.composite
def grounds(draw):
    """Blocks, all of them around a place in splits by chance, and points there; near poles and the date line too."""
    size = draw(st.floats(20, 50_000))
    blocks = Blocks(size, size * draw(st.floats(0, 0.99)))
    generator = rng(draw(st.integers(0, 2**32 - 1)))
    lat = draw(st.one_of(st.floats(-89.9, 89.9), st.sampled_from([0.0, 60.0, -89.5])))
    lon = draw(st.one_of(st.floats(-180, 180), st.sampled_from([180.0, -180.0, 0.0])))
    reach = 2 * size / 111_000  # degrees
    across = min(reach / np.cos(np.radians(min(abs(lat) + reach, 89.99))), 180)
    lons = (lon + generator.uniform(-across, across, 300) + 180) % 360 - 180
    lats = np.clip(lat + generator.uniform(-reach, reach, 300), -90, 90)
    numbers = np.unique(np.append(blocks.near(lons, lats), blocks.at(lons, lats)))
    numbers = numbers[numbers >= 0]
    ground = BlockSplit(blocks, numbers, generator.integers(0, 2, len(numbers)), ("train", "test"))
    return ground, lons, lats


@given(grounds())
@settings(max_examples=60, deadline=None)
def test_points_of_two_splits_lie_a_buffer_apart_on_the_ellipsoid(drawn):
    ground, lon, lat = drawn
    found = ground.at(lon, lat)
    one, two = np.flatnonzero(found == 0), np.flatnonzero(found == 1)
    i, j = (v.ravel() for v in np.meshgrid(one, two))
    if len(i):
        _, _, metres = WGS84.inv(lon[i], lat[i], lon[j], lat[j])
        assert np.min(metres) >= ground.blocks.buffer


@given(grounds())
@settings(max_examples=40, deadline=None)
def test_a_point_is_lost_to_the_buffer_only_near_a_block_of_another_split(drawn):
    """Half the buffer away in eight directions there is another split, or one is nearer than that to its corner."""
    ground, lon, lat = drawn
    lost = (ground.at(lon, lat) < 0) & (np.abs(lat) < 80)
    blocks = ground.blocks
    if not lost.any() or not blocks.buffer:
        return
    lon, lat = lon[lost], lat[lost]
    own = ground._split(blocks.at(lon, lat))
    other = np.zeros(len(lon), bool)
    for azimuth in np.arange(0, 360, 3):
        # 1 % for the ellipsoid, and √2 for the corners of the box around the disc
        for metres in (0.51, 0.61, 0.72):
            x, y, _ = WGS84.fwd(
                lon, lat, np.full(len(lon), azimuth), np.full(len(lon), metres * blocks.buffer * 1.01 + 0.2)
            )
            other |= ground._split(blocks.at(x, y)) != own
    assert other.all()


@given(st.floats(20, 50_000), st.floats(-75, 75), st.floats(-170, 170))
@settings(max_examples=30, deadline=None)
def test_blocks_are_as_wide_as_asked_at_least(size, lat, lon):
    """Along a parallel, by steps of a hundredth of a block, as WGS 84 has it."""
    steps = np.arange(500) * size / 100
    radius = 6_378_137 / np.sqrt(1 - 0.00669438 * np.sin(np.radians(lat)) ** 2) * np.cos(np.radians(lat))
    numbers = Blocks(size).at(lon + np.degrees(steps / radius), np.full(500, lat))
    sides = np.diff(np.flatnonzero(np.diff(numbers)))  # without the first and the last, which are cut
    assert len(sides)
    assert (sides >= 99).all()


@given(st.floats(20, 50_000), st.floats(-85, 80))
@settings(max_examples=30, deadline=None)
def test_blocks_are_as_high_as_asked_and_at_most_a_percent_more(size, lat):
    """On the meridian where columns of all rows begin."""
    steps = np.arange(500) * size / 100
    _, north, _ = WGS84.fwd(np.full(500, -180.0), np.full(500, lat), np.zeros(500), steps)
    sides = np.diff(np.flatnonzero(np.diff(Blocks(size).at(np.full(500, -180.0), north))))
    assert len(sides)
    assert (sides >= 99).all()
    assert (sides <= 103).all()


def test_places_off_the_earth_are_in_no_block():
    blocks = Blocks(1000, 100)
    lon, lat = np.array([np.inf, 10.0, np.nan]), np.array([50.0, np.inf, 50.0])
    assert_array_equal(blocks.at(lon, lat), -1)
    ground = BlockSplit(blocks, np.array([5]), np.array([0]), ("train",))
    assert_array_equal(ground.at(lon, lat), -1)


def test_the_date_line_is_no_edge():
    blocks = Blocks(1000)
    lat = np.linspace(-60, 60, 50)
    assert_array_equal(blocks.at(np.full(50, 180.0), lat), blocks.at(np.full(50, -180.0), lat))
    assert_array_equal(blocks.at(np.full(50, 365.0), lat), blocks.at(np.full(50, 5.0), lat))
