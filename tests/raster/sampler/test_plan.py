"""Plans are pure and seeded; windows have the labels, and the classes, that were asked for."""

import gc
import logging
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geounet.core.cells import Cells, count_cells
from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.errors import ConfigError
from geounet.raster.labels import Labels
from geounet.raster.sampler import Pair, Sample, plan_grid, plan_random, plan_shares, shares
from geounet.raster.scene import Scene
from tests.making import PLACE, UTM

LEGEND = Legend.of({10: "land", 80: "water", 90: "ice"})
IGNORE = LEGEND.ignore_index


class NoPixels(Scene):
    """A plan reads nothing."""

    def _take(self, _):
        raise AssertionError

    def _fill(self, *_):
        raise AssertionError


class NoLabels(Labels):
    def _ids(self, _):
        raise AssertionError


def pair_of(shape, group="", labelled=True):
    grid = Grid(shape, PLACE, UTM)
    scene = NoPixels("scene", grid, ("red",), np.dtype("uint8"), (64, 64), {}, ())
    return Pair(scene, NoLabels("labels", LEGEND, grid, ()) if labelled else None, group)


class World:
    """Scenes of known class ids, as a survey sees them."""

    def __init__(self, *truths, groups=None, size=16):
        self.truths = truths
        self.pairs = [pair_of(t.shape, g) for t, g in zip(truths, groups or [""] * len(truths), strict=True)]
        self.cells = [Cells.of(t.shape, size, count_cells(t, np.ones(t.shape, bool), 3, size)) for t in truths]

    def draw(self, side, count, seed=0, **options):
        return plan_random(self.pairs, side, count, np.random.default_rng(seed), cells=self.cells, **options)

    def chips(self, plan):
        for scene, window in plan:
            top, left = max(window.row_off, 0), max(window.col_off, 0)
            yield self.truths[scene][top : window.row_off + window.height, left : window.col_off + window.width]

    def shares(self, plan):
        counts = sum(np.bincount(chip[chip < 3], minlength=3) for chip in self.chips(plan))
        return counts / counts.sum()


def blobs(shape, rng, count, side, ids=2, region=slice(None)):
    """Land left, water right, and squares of a rare class in a part of the columns."""
    truth = np.zeros(shape, np.uint8)
    truth[:, shape[1] // 2 :] = 1
    cols = range(shape[1] - side)[region]
    for _ in range(count):
        row, col = rng.integers(shape[0] - side), cols[rng.integers(len(cols))]
        truth[row : row + side, col : col + side] = ids
    return truth


@pytest.fixture(scope="module")
def rare():
    """Three scenes with 1 % of ice in the first third of their columns, in squares of 25 pixels."""
    rng = np.random.default_rng(7)
    return World(*[blobs((640, 960), rng, 10, 25, region=slice(0, 320)) for _ in range(3)])


PLAIN = [pair_of((64, 80), "a"), pair_of((50, 40), "b"), pair_of((128, 128), "b")]


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 32, 64, 200]))
@settings(max_examples=20)
def test_equal_seeds_give_equal_plans_and_windows_lie_in_their_scene(seed, size):
    plan = plan_random(PLAIN, size, 30, np.random.default_rng(seed))
    assert plan == plan_random(PLAIN, size, 30, np.random.default_rng(seed))
    for sample in plan:
        for offset, length in zip(
            (sample.window.row_off, sample.window.col_off), PLAIN[sample.scene].scene.grid.shape, strict=True
        ):
            assert 0 <= offset <= length - size if length >= size else offset == (length - size) // 2


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_groups_are_drawn_by_area_to_the_power_asked_for(power):
    plan = plan_random(PLAIN, 16, 20_000, np.random.default_rng(0), group_power=power)
    counts = Counter(PLAIN[sample.scene].group for sample in plan)
    a, b = (64 * 80) ** power, (50 * 40 + 128 * 128) ** power
    assert counts["a"] / 20_000 == pytest.approx(a / (a + b), abs=0.015)


def test_scenes_without_a_group_stand_alone():
    plan = plan_random([pair_of((64, 64)), pair_of((64, 192))], 16, 20_000, np.random.default_rng(0), group_power=0)
    assert np.mean([sample.scene for sample in plan]) == pytest.approx(0.5, abs=0.015)


def test_every_place_is_as_likely_as_every_other():
    plan = plan_random([pair_of((11, 12))], 8, 20_000, np.random.default_rng(0))
    counts = Counter((sample.window.row_off, sample.window.col_off) for sample in plan)
    assert set(counts) == {(row, col) for row in range(4) for col in range(5)}
    assert max(counts.values()) < 1.15 * 1000
    assert min(counts.values()) > 0.85 * 1000


def test_a_grid_plan_holds_every_pixel_once():
    for index, pair in enumerate(PLAIN):
        tally = np.zeros(pair.scene.grid.shape, int)
        for sample in plan_grid(PLAIN, 48):
            if sample.scene == index:
                row, col = sample.window.row_off, sample.window.col_off
                tally[row : row + 48, col : col + 48] += 1
        assert (tally == 1).all()


@pytest.fixture(scope="module")
def sparse():
    """Labels in whole cells here and there, so that their share of any window is known exactly."""
    rng = np.random.default_rng(3)
    coarse = rng.choice([0, 1, IGNORE], p=[0.2, 0.1, 0.7], size=(20, 30)).astype(np.uint8)
    coarse[:, 15:] = IGNORE
    return World(coarse.repeat(16, axis=0).repeat(16, axis=1), np.full((320, 480), IGNORE, np.uint8))


@pytest.mark.parametrize("least", [1e-9, 0.3, 0.5])
def test_windows_have_the_labels_asked_for(sparse, least):
    plan = sparse.draw(40, 500, min_valid=least)
    parts = [(chip < 3).mean() for chip in sparse.chips(plan)]
    assert min(parts) >= max(least, 1 / 1600)
    assert len({(s.window.row_off, s.window.col_off) for s in plan}) > 200
    plain = sparse.draw(40, 500)
    assert sum((chip < 3).mean() < least for chip in sparse.chips(plain)) > 50
    assert plan == sparse.draw(40, 500, min_valid=least)


def test_windows_with_enough_labels_are_as_likely_as_each_other(sparse):
    plan = sparse.draw(40, 20_000, min_valid=0.3)
    counts = np.zeros((281, 441))
    np.add.at(counts, tuple(np.array([(s.window.row_off, s.window.col_off) for s in plan]).T), 1)
    labelled = np.pad((sparse.truths[0] < 3).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = labelled[40:, 40:] - labelled[:-40, 40:] - labelled[40:, :-40] + labelled[:-40, :-40]
    enough = inside >= 0.3 * 1600
    assert (counts[~enough] == 0).all()
    top, bottom = (part.sum() / 20_000 for part in np.split(counts, [140]))
    assert top == pytest.approx(enough[:140].mean() * 140 / (enough.mean() * 281), abs=0.015)
    assert top + bottom == 1


def test_area_is_that_of_the_windows_with_enough_labels():
    full, half = np.zeros((160, 160), np.uint8), np.zeros((160, 160), np.uint8)
    half[:, 80:] = IGNORE
    world = World(full, half, np.full((960, 960), IGNORE, np.uint8), groups=["full", "half", "none"])
    for power, expected in ((1.0, 1 / 3), (0.0, 1 / 2)):
        plan = world.draw(16, 20_000, min_valid=0.5, group_power=power)
        counts = Counter(sample.scene for sample in plan)
        assert counts[1] / 20_000 == pytest.approx(expected, abs=0.03)
        assert counts[2] == 0


def test_a_single_place_with_enough_labels_is_found_in_a_large_scene():
    truth = np.full((1024, 2048), IGNORE, np.uint8)
    truth[800:832, 1008:1040] = 1
    assert set(World(truth).draw(32, 5, min_valid=1.0)) == {Sample(0, Window(1008, 800, 32, 32))}


def test_a_scene_smaller_than_a_window_counts_by_what_is_inside():
    world = World(np.zeros((20, 20), np.uint8), np.full((20, 20), IGNORE, np.uint8))
    assert {sample.scene for sample in world.draw(64, 50, min_valid=0.9)} == {0}
    assert plan_grid(world.pairs, 64, cells=world.cells, min_valid=0.9) == [Sample(0, Window(0, 0, 64, 64))]


def test_a_scene_without_labels_counts_by_its_valid_pixels():
    valid = np.zeros((64, 64), bool)
    valid[:, :32] = True
    cells = Cells.of((64, 64), 16, count_cells(np.zeros((64, 64), np.uint8), valid, 0, 16))
    plan = plan_random(
        [pair_of((64, 64), labelled=False)], 16, 200, np.random.default_rng(0), cells=[cells], min_valid=0.5
    )
    assert max(sample.window.col_off for sample in plan) == 24


def test_a_grid_plan_leaves_out_windows_without_labels_and_no_labelled_pixel(sparse):
    for side in (48, 50):
        plan = plan_grid(sparse.pairs, side, cells=sparse.cells, min_valid=1e-9)
        assert sum((chip < 3).sum() for chip in sparse.chips(plan)) == sum((t < 3).sum() for t in sparse.truths)
        assert {sample.scene for sample in plan} == {0}
        assert max(sample.window.col_off for sample in plan) < 240
        every = plan_grid(sparse.pairs, side)
        assert set(plan) < set(every)
        assert plan_grid(sparse.pairs, side, cells=sparse.cells) == every


def test_nothing_to_draw_from_is_refused(sparse):
    with pytest.raises(ConfigError, match="no window of 64 pixels has labels on 100% of its pixels"):
        sparse.draw(64, 5, min_valid=1.0)


@pytest.mark.parametrize("asked", [0.03, 0.1, 0.2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_class_on_a_hundredth_of_the_ground_has_the_share_asked_for(rare, asked, seed):
    assert rare.shares(rare.draw(64, 1000, seed))[2] == pytest.approx(0.01, abs=0.004)
    plan = rare.draw(48, 1000, seed, shares={"ice": asked})
    assert len(plan) == 1000
    assert rare.shares(plan)[2] == pytest.approx(asked, rel=0.1)
    assert plan_shares(plan, rare.cells)[2] == pytest.approx(asked, rel=0.02)
    assert plan == rare.draw(48, 1000, seed, shares={90: asked})
    assert len(set(plan)) > 200
    for sample in plan:
        assert 0 <= sample.window.row_off <= 640 - 48
        assert 0 <= sample.window.col_off <= 960 - 48


def test_the_others_keep_their_proportion(rare):
    land, water, _ = rare.shares(rare.draw(64, 4000, shares={"ice": 0.05}))
    plain = rare.shares(rare.draw(64, 4000))
    assert land / water == pytest.approx(plain[0] / plain[1], rel=0.15)


def test_equal_gives_every_class_that_occurs_the_same_share(rare):
    two = World(*[np.where(truth == 1, 0, truth) for truth in rare.truths])
    land, water, ice = two.shares(two.draw(32, 3000, shares="equal"))
    assert (land, water, ice) == (pytest.approx(0.5, rel=0.1), 0, pytest.approx(0.5, rel=0.1))


@pytest.mark.parametrize("class_", ["land", "water"])
def test_a_frequent_class_can_be_made_rarer(rare, class_):
    place = LEGEND.names.index(class_)
    assert rare.shares(rare.draw(64, 2000, shares={class_: 0.2}))[place] == pytest.approx(0.2, rel=0.1)


def test_a_spot_on_a_hundred_thousandth_of_the_ground_is_found():
    spot = np.zeros((2000, 2000), np.uint8)
    spot[1100:1108, 1208:1214] = 2  # 8 pixels in a million
    world = World(np.zeros((1000, 2000), np.uint8), spot)
    plan = world.draw(64, 2000, shares={"ice": 0.004})
    assert world.shares(plan)[2] == pytest.approx(0.004, rel=0.1)
    there = [s for s, chip in zip(plan, world.chips(plan), strict=True) if (chip == 2).any()]
    assert len(set(there)) > 300  # of 4900 places from which it is seen


def test_drawing_more_of_a_class_does_not_make_good_for_where_it_lies():
    """Ice lies in one scene; to ask for hardly more of it than there is changes hardly anything."""
    rng = np.random.default_rng(0)
    world = World(blobs((640, 640), rng, 12, 30), blobs((640, 640), rng, 0, 1), blobs((320, 640), rng, 0, 1))
    present = sum(cells.totals[2] for cells in world.cells) / sum(t.size for t in world.truths)
    plan = world.draw(64, 20_000, shares={"ice": present * 1.05})
    counts = np.bincount([sample.scene for sample in plan]) / 20_000
    assert counts == pytest.approx([0.4, 0.4, 0.2], abs=0.02)
    cols = np.array([sample.window.col_off for sample in plan if sample.scene == 1])
    assert np.histogram(cols, 4, (0, 577))[0] / len(cols) == pytest.approx([0.25] * 4, abs=0.03)


def test_windows_without_a_label_do_not_take_the_place_of_others(sparse):
    plan = sparse.draw(40, 1000, shares={"water": 0.5})
    assert min((chip < 3).sum() for chip in sparse.chips(plan)) > 0
    labelled = np.mean([(chip < 3).mean() for chip in sparse.chips(plan)])
    plain = np.mean([p for chip in sparse.chips(sparse.draw(40, 4000)) if (p := (chip < 3).mean())])
    assert labelled == pytest.approx(plain, rel=0.25)
    assert sparse.shares(plan)[1] == pytest.approx(0.5, rel=0.1)


def test_both_wishes_hold_at_once(sparse):
    plan = sparse.draw(40, 1000, shares={"water": 0.5}, min_valid=0.3)
    assert min((chip < 3).mean() for chip in sparse.chips(plan)) >= 0.3
    assert sparse.shares(plan)[1] == pytest.approx(0.5, rel=0.1)


def test_what_cannot_be_had_is_come_near_to_and_said_once(rare, caplog):
    with caplog.at_level(logging.WARNING):
        first, second = (rare.draw(128, 1000, seed, shares={"ice": 0.7}) for seed in (0, 1))
    assert len(caplog.records) == 1
    assert "(ice 0.7) cannot be had from windows of 128 pixels; drawn are those that come nearest (0.0" in caplog.text
    for plan in (first, second):
        assert 0.03 < rare.shares(plan)[2] < 0.3
        assert len(set(plan)) > 200


def test_another_training_is_told_anew_and_nothing_stays_behind(caplog):
    def train():
        world = World(*[blobs((320, 320), np.random.default_rng(7), 2, 20)])
        for epoch in range(3):
            world.draw(128, 100, epoch, shares={"ice": 0.7})

    gc.collect()
    before = len(shares._told)
    with caplog.at_level(logging.WARNING):
        train()
        train()
    assert len(caplog.records) == 2
    gc.collect()
    assert len(shares._told) == before


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        pytest.param({"sea": 0.1}, r"names the class sea, .*10 land, 80 water, 90 ice", id="unknown"),
        pytest.param({"land": 0.7, "ice": 0.4}, r"sum to 1\.1; .*less than 1, as water has the rest", id="too much"),
        pytest.param({"land": 0.2, "water": 0.2, "ice": 0.2}, r"sum to 0\.6; .*sum to 1, as every", id="too little"),
        pytest.param({"land": 1.2, "ice": -0.2}, r"below 0", id="negative"),
    ],
)
def test_shares_that_make_no_sense_are_refused(rare, shares, message):
    with pytest.raises(ConfigError, match=message):
        rare.draw(64, 5, shares=shares)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        pytest.param({80: 0.3, "water": 0.6}, r"names the class water twice", id="twice"),
        pytest.param({"land": float("nan")}, r"below 0 or no number", id="no number"),
    ],
)
def test_shares_that_say_two_things_or_none_are_refused(rare, asked, message):
    with pytest.raises(ConfigError, match=message):
        rare.draw(64, 5, shares=asked)


@pytest.mark.parametrize("asked", ["equal", {"ice": 0.1}, {"ice": 0}])
def test_without_a_labelled_pixel_there_are_no_shares(asked):
    with pytest.raises(ConfigError, match="no scene has a valid, labelled pixel"):
        World(np.full((64, 64), IGNORE, np.uint8)).draw(16, 5, shares=asked)


def test_windows_of_no_scene_or_no_size_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="no scene to draw windows from"):
        plan_random([], 16, 5, rng)
    for plan in (lambda side: plan_random(PLAIN, side, 5, rng), lambda side: plan_grid(PLAIN, side)):
        for side in (0, -8):
            with pytest.raises(ConfigError, match=f"a window of {side} pixels has no side"):
                plan(side)
    with pytest.raises(ConfigError, match="-1 windows cannot be drawn"):
        plan_random(PLAIN, 16, -1, rng)
    assert plan_random(PLAIN, 16, 0, rng) == []


def test_a_class_that_nowhere_occurs_cannot_be_asked_for(sparse):
    with pytest.raises(ConfigError, match="asks for ice, of which no scene has a labelled pixel"):
        sparse.draw(64, 5, shares={"ice": 0.1})


def test_shares_need_labels():
    cells = [Cells.of((64, 64), 16, count_cells(np.zeros((64, 64), np.uint8), np.ones((64, 64), bool), 0, 16))]
    with pytest.raises(ConfigError, match="no scene has labels"):
        plan_random([pair_of((64, 64), labelled=False)], 16, 5, np.random.default_rng(0), cells=cells, shares="equal")


def test_what_rests_on_counts_asks_for_them():
    for options in ({"min_valid": 0.1}, {"shares": "equal"}):
        with pytest.raises(ValueError, match="pass its cells"):
            plan_random(PLAIN, 16, 5, np.random.default_rng(0), **options)
    with pytest.raises(ValueError, match="pass its cells"):
        plan_grid(PLAIN, 16, min_valid=0.1)


def test_a_plan_of_nothing_has_no_shares(rare):
    assert np.isnan(plan_shares([], rare.cells)).all()
