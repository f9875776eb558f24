"""Scenes are shared out between splits by scene, by group, and by blocks of ground."""

import itertools

import numpy as np
import pytest
from affine import Affine
from numpy.testing import assert_array_equal
from pyproj import Geod
from rasterio.crs import CRS

from geounet.core.legend import Legend
from geounet.core.stats import ClassCounts
from geounet.errors import SplitError
from geounet.raster.labels import open_labels
from geounet.raster.labels.region import lonlat
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.raster.splitting import split_pairs
from tests.making import PLACE, SHARED, UTM, needs_shared, write_raster

LEGEND = Legend.of(["land", "water"])


def pair(folder, name, truth, group="", transform=PLACE, crs=UTM):
    place = {"transform": transform, "crs": crs}
    scene = open_scene(write_raster(folder / f"{name}.tif", np.ones(truth.shape, np.uint8), **place))
    path = write_raster(folder / f"{name}_truth.tif", truth.astype(np.uint8), nodata=255, **place)
    return Pair(scene, open_labels(path, scene.grid, LEGEND), group)


def counted(pairs, classes=2):
    counts = (ClassCounts.of(p.labels.read(p.scene.grid.window), classes) for p in pairs)
    return sum(counts, ClassCounts.empty(classes)).counts


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twelve scenes in groups of two, the last without labels, with from 1/10 to 1/2 of water."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    made = []
    for number in range(12):
        truth = rng.random((20, 20)) < 0.1 + 0.4 * number / 11
        made.append(pair(folder, number, np.where(number == 11, 255, truth), f"g{number // 2}"))
    return made


def test_scenes_are_whole_each_in_one_split_and_those_without_labels_in_none(scenes):
    found = split_pairs(scenes, by="scene", seed=3)
    assert list(found) == ["train", "validate", "test"]
    assert sorted(itertools.chain(*found.values()), key=scenes.index) == scenes[:11]
    assert found == split_pairs(scenes, by="scene", seed=3)


def test_groups_are_whole(scenes):
    found = split_pairs(scenes, shares={"train": 0.5, "test": 0.5})
    groups = [{p.group for p in some} for some in found.values()]
    assert not groups[0] & groups[1]
    assert sorted(groups[0] | groups[1]) == [f"g{i}" for i in range(6)]


def test_a_split_without_a_share_is_not_made(scenes):
    assert list(split_pairs(scenes, shares={"train": 0.8, "validate": 0.2, "test": 0.0})) == ["train", "validate"]


def test_over_all_folds_each_scene_validates_once_and_trains_otherwise(scenes):
    rounds = [split_pairs(scenes, by="scene", folds=3, fold=fold) for fold in range(3)]
    validated = [p for each in rounds for p in each["validate"]]
    assert sorted(validated, key=scenes.index) == scenes[:11]
    for each in rounds:
        assert sorted(each["train"] + each["validate"], key=scenes.index) == scenes[:11]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """One stretch of ground in two overlapping scenes of two UTM zones."""
    folder = tmp_path_factory.mktemp("ground")
    rng = np.random.default_rng(1)
    coarse = rng.random((12, 12)) < 0.4
    truth = coarse.repeat(10, axis=0).repeat(10, axis=1)
    east = Affine(30, 0, 719_000, 0, -30, 5_300_000)  # 18° E
    west = Affine(30, 0, 278_000, 0, -30, 5_300_000)
    return [
        pair(folder, "east", truth, transform=east),
        pair(folder, "west", ~truth, transform=west, crs=CRS.from_epsg(32634)),
    ]


@pytest.mark.parametrize("how", [{}, {"folds": 4, "fold": 2}])
def test_by_block_labelled_pixels_of_two_splits_lie_a_buffer_apart_and_classes_keep_their_shares(ground, how):
    found = split_pairs(ground, by="block", size=600, buffer=100, **how)
    places = {}
    for name, some in found.items():
        at = [lonlat(p.scene.grid, p.scene.grid.window)[:, p.labels.read(p.scene.grid.window) < 2] for p in some]
        places[name] = np.concatenate(at, axis=1)
    rng = np.random.default_rng(0)
    for one, two in itertools.combinations(places.values(), 2):
        a, b = one[:, rng.permutation(one.shape[1])[:500]], two[:, rng.permutation(two.shape[1])[:500]]
        i, j = (v.ravel() for v in np.meshgrid(np.arange(a.shape[1]), np.arange(b.shape[1])))
        assert Geod(ellps="WGS84").inv(*a[:, i], *b[:, j])[2].min() >= 100
    total = counted(ground)
    wanted = {"train": 0.75, "validate": 0.25} if how else {"train": 0.7, "validate": 0.15, "test": 0.15}
    for name, share in wanted.items():
        assert (np.abs(counted(found[name]) / total / share - 1) < 0.4).all()
    assert (sum(counted(some) for some in found.values()) > 0.75 * total).all()


def test_ground_in_two_scenes_is_in_one_split_and_the_order_of_scenes_changes_nothing(ground):
    found = split_pairs(ground, by="block", size=600, buffer=100)
    other = split_pairs(ground[::-1], by="block", size=600, buffer=100)
    for name, some in found.items():
        for p in some:
            (same,) = [q for q in other[name] if q.scene is p.scene]
            assert_array_equal(p.labels.read(p.scene.grid.window), same.labels.read(p.scene.grid.window))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"shares": {"a": 1.0}, "folds": 3}, "both were given", id="shares and folds"),
        pytest.param({"by": "block"}, "blocks need a size", id="blocks without a size"),
        pytest.param({"by": "scene", "size": 100}, "others neither", id="size without blocks"),
        pytest.param({"by": "scene", "buffer": 100}, "others neither", id="buffer without blocks"),
        pytest.param({"by": "block", "size": 1e5}, "smaller", id="all in one block"),
        pytest.param({"by": "scene", "folds": 20}, "11 groups of scenes cannot fill", id="more folds than scenes"),
        pytest.param({"shares": {"a": 0.5, "b": 0.4}}, "add up to 1", id="shares short of one"),
        pytest.param(
            {"by": "block", "size": 299, "buffer": 298}, "no labelled pixel is left|cannot fill", id="no room"
        ),
    ],
)
def test_what_makes_no_split_is_refused(scenes, arguments, message):
    with pytest.raises(SplitError, match=message):
        split_pairs(scenes, **arguments)


def test_no_scenes_make_no_split():
    with pytest.raises(SplitError, match="no scenes"):
        split_pairs([])


@needs_shared
@pytest.mark.parametrize("seed", [0, 1])
def test_36_polygons_in_one_landsat_scene_give_every_class_to_every_split(seed):
    folder = SHARED / "landsat5-tm"
    scene = open_scene(folder)
    legend = Legend.of({1: "cleared", 2: "fallen_dry", 3: "forest", 4: "water"})
    whole = Pair(scene, open_labels(folder / "training_polygons.gpkg", scene.grid, legend, column="class_id"))
    found = split_pairs([whole], by="block", size=1000, buffer=300, seed=seed)
    counts = np.array([counted(some, 4) for some in found.values()])
    assert_array_equal(counted([whole], 4), [1124, 220, 2271, 795])  # as the data's README counts them
    part = counts / [1124, 220, 2271, 795]
    assert (np.abs(part - np.array([[0.7], [0.15], [0.15]])) < [[0.12], [0.06], [0.06]]).all()
    assert counts.sum() > 0.9 * 4410
