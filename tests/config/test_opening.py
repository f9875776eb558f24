"""Scenes that a config names are divided without a leak, opened as what they hold, and labelled where somebody looked."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
import yaml
from affine import Affine

from geounet.config import load_config
from geounet.core.bandtypes import BandType
from geounet.errors import ConfigError, SplitError
from geounet.raster.sampler import survey
from tests.making import BANDS, PLACE, reflectance, write_raster

LEGEND = {0: "land", 1: "water"}


def written(folder, values):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_config(path)


def counts(pairs):
    return survey(pairs).counts.counts


@pytest.fixture
def scenes(tmp_path):
    """Six scenes side by side, half of each water."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(6):
        place = PLACE @ Affine.translation(40 * number, 0)
        truth = np.zeros((40, 40), np.uint8)
        truth[:, 20:] = 1
        write_raster(
            tmp_path / "images" / f"{number}.tif", reflectance((40, 40), seed=number), bands=BANDS, transform=place
        )
        write_raster(tmp_path / "masks" / f"{number}.tif", truth, transform=place)
    return tmp_path


def config(**more):
    return {
        "scenes": {"paths": "images/*.tif"}, "labels": {"path": "masks/{stem}.tif", "legend": LEGEND},
        "split": {"by": "scene", "shares": {"train": 0.5, "validate": 0.5}},
    } | more  # fmt: skip


def test_scenes_are_divided_whole_by_shares(scenes):
    pairs = written(scenes, config()).pairs()
    assert [len(pairs[split]) for split in ("train", "validate")] == [3, 3]
    names = [pair.scene.source for split in pairs.values() for pair in split]
    assert len(set(names)) == 6


def test_each_scene_validates_once_in_its_turn_of_the_folds(scenes):
    validated = []
    for fold in range(3):
        pairs = written(scenes, config(split={"by": "scene", "folds": 3, "fold": fold, "seed": 4})).pairs()
        assert len(pairs["train"]) == 4
        validated += [pair.scene.source for pair in pairs["validate"]]
    assert len(set(validated)) == len(validated) == 6


def test_one_scene_is_shared_by_blocks_with_ground_between(tmp_path):
    truth = np.zeros((96, 96), np.uint8)
    truth[::2] = 1
    write_raster(tmp_path / "scene.tif", reflectance((96, 96)), bands=BANDS)
    write_raster(tmp_path / "truth.tif", truth)
    values = {
        "scenes": {"paths": "scene.tif"}, "labels": {"path": "truth.tif", "legend": LEGEND},
        "split": {"by": "block", "size": 480, "buffer": 120, "shares": {"train": 0.5, "validate": 0.25, "test": 0.25}},
    }  # fmt: skip
    pairs = written(tmp_path, values).pairs()
    seen = {
        split: np.argwhere(chosen[0].labels.read(chosen[0].scene.grid.window) != 255) for split, chosen in pairs.items()
    }
    assert set(seen) == {"train", "validate", "test"}
    for one, two in (("train", "validate"), ("train", "test"), ("validate", "test")):
        tree = shapely.STRtree(shapely.points(seen[one]))
        nearest = shapely.distance(shapely.points(seen[two]), tree.geometries[tree.nearest(shapely.points(seen[two]))])
        assert nearest.min() * 30 >= 120


def test_a_random_split_takes_small_blocks_without_a_buffer(tmp_path):
    write_raster(tmp_path / "scene.tif", reflectance((96, 96)), bands=BANDS)
    truth = np.zeros((96, 96), np.uint8)
    truth[::2] = 1
    write_raster(tmp_path / "truth.tif", truth)
    values = {
        "scenes": {"paths": "scene.tif"}, "labels": {"path": "truth.tif", "legend": LEGEND}, "sampler": {"chip_size": 8},
        "split": {"by": "block", "size": 480, "buffer": 120, "shares": {"train": 0.5, "validate": 0.25, "test": 0.25}},
    }  # fmt: skip
    loaded = written(tmp_path, values)
    honest, by_chance = (
        {split: counts(chosen).sum() for split, chosen in pairs.items()}
        for pairs in (loaded.pairs(), loaded.shuffled())
    )
    assert set(by_chance) == {"train", "validate"}
    assert sum(by_chance.values()) == honest["train"] + honest["validate"]
    seen = [
        np.argwhere(np.concatenate([pair.labels.read(pair.scene.grid.window) for pair in chosen]) != 255)
        for chosen in loaded.shuffled().values()
    ]
    tree = shapely.STRtree(shapely.points(seen[0]))
    nearest = shapely.distance(shapely.points(seen[1]), tree.geometries[tree.nearest(shapely.points(seen[1]))])
    assert nearest.min() == 1  # side by side


def test_paths_and_split_go_together(scenes):
    with pytest.raises(ConfigError, match=r"scenes\.paths and the section split go together"):
        written(scenes, config(split=None)).pairs()
    with pytest.raises(ConfigError, match=r"scenes\.paths is for scenes that the section split divides.*give one"):
        written(scenes, config(scenes={"paths": "images/*.tif", "train": "images/0.tif"})).pairs()
    with pytest.raises(ConfigError, match="of 3 folds, numbered from 0, there is no fold 3"):
        written(scenes, config(split={"folds": 3, "fold": 3}))
    with pytest.raises(ConfigError, match="blocks need a size, in metres"):
        written(scenes, config(split={"by": "block"}))


def test_a_scene_in_two_splits_is_refused_told_or_let_be(scenes):
    shared = {"train": ["images/0.tif", "images/1.tif"], "validate": "images/1.tif"}
    values = {"scenes": shared, "labels": config()["labels"]}
    loaded = written(scenes, values)
    with pytest.raises(
        SplitError, match=r"two splits share ground(.|\n)*1\.tif \(train\) and .*1\.tif \(validate\) share 100"
    ):
        loaded.check_leaks(loaded.pairs())
    loaded = written(scenes, values | {"scenes": shared | {"leaks": "warn"}})
    assert "share" in loaded.check_leaks(loaded.pairs())[0]
    loaded = written(scenes, values | {"scenes": shared | {"leaks": "allow"}})
    assert loaded.check_leaks(loaded.pairs()) == []


def test_neighbours_that_touch_share_no_ground(scenes):
    loaded = written(scenes, config())
    assert loaded.check_leaks(loaded.pairs()) == []


def test_ground_outside_of_the_area_of_interest_has_no_label(scenes):
    west, north = PLACE.c, PLACE.f
    left_half = shapely.box(west, north - 1200, west + 600, north)
    geopandas.GeoDataFrame(geometry=[left_half], crs=32633).to_file(scenes / "aoi.gpkg")
    pond = shapely.box(west, north - 300, west + 300, north)
    geopandas.GeoDataFrame({"kind": ["water"]}, geometry=[pond], crs=32633).to_file(scenes / "ponds.gpkg")
    values = {
        "scenes": {"train": "images/0.tif", "validate": "images/0.tif", "leaks": "allow"},
        "labels": {"path": "ponds.gpkg", "column": "kind", "background": 0, "legend": LEGEND, "aoi": "aoi.gpkg"},
    }
    assert counts(written(scenes, values).pairs()["train"]).tolist() == [40 * 20 - 100, 100]


def test_typed_bands_are_told_by_name_and_each_band_has_its_own_nodata(scenes):
    stack = np.stack([reflectance((40, 40))[0], np.full((40, 40), 20, np.int16)])
    stack[0, :5], stack[1, 5:8] = -1, 7
    write_raster(scenes / "images" / "0.tif", stack, bands=("nir", "cover"))
    values = {
        "scenes": {
            "train": "images/0.tif", "validate": "images/0.tif", "leaks": "allow", "nodata": {"nir": -1, "cover": 7},
            "types": {"cover": {"kind": "categorical", "codes": [10, 20]}},
        },
        "labels": config()["labels"],
    }  # fmt: skip
    source = written(scenes, values).source()
    assert source.types == {"cover": BandType("categorical", codes=(10, 20))}
    values["scenes"]["types"] = {"cover": "categorical"}
    assert written(scenes, values).source().types == {"cover": BandType("categorical")}
    values["scenes"]["types"] = {"cover": {"kind": "categorical", "code": [1]}}
    with pytest.raises(ConfigError, match=r"types: cover: unknown key 'code'; did you mean codes\?"):
        written(scenes, values)
    values["scenes"]["types"] = {"cover": {"kind": "categorical", "codes": [10, 20]}}
    source = written(scenes, values).source()
    assert source.survey(load_config(scenes / "config.yaml").config.sampler).stats.count == 40 * 32


def test_bands_of_two_resolutions_come_to_the_one_asked_for(tmp_path):
    folder = tmp_path / "T33UUU_20200101"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size, factor in (("B04", 40, 10), ("B11", 20, 20)):
        pixels = rng.integers(100, 3000, (size, size)).astype(np.uint16)
        place = Affine(factor, 0, 500_000, 0, -factor, 5_300_000)
        write_raster(folder / f"T33UUU_20200101T100000_{name}_{factor}m.tif", pixels, transform=place)
    write_raster(
        tmp_path / "truth.tif", np.zeros((40, 40), np.uint8), transform=Affine(10, 0, 500_000, 0, -10, 5_300_000)
    )
    values = {
        "scenes": {"train": str(folder), "validate": str(folder), "leaks": "allow"},
        "labels": {"path": "truth.tif", "legend": LEGEND},
    }
    fine = written(tmp_path, values).pairs()["train"][0].scene
    assert (fine.grid.shape, fine.bands) == ((40, 40), ("red", "swir1"))
    values["scenes"]["resolution"] = 20.0
    assert written(tmp_path, values).pairs()["train"][0].scene.grid.shape == (20, 20)


CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_config_of_the_project_is_one(path):
    assert load_config(path).path == path


def test_a_test_that_is_named_stays_one_beside_folds(scenes):
    values = config(scenes={"paths": "images/[0-3].tif", "test": "images/[45].tif"}, split={"by": "scene", "folds": 2})
    pairs = written(scenes, values).pairs()
    assert [len(pairs[split]) for split in ("train", "validate", "test")] == [2, 2, 2]
    assert {Path(pair.scene.source).stem for pair in pairs["test"]} == {"4", "5"}


def test_rows_of_the_test_stay_there_when_a_table_is_divided_into_folds(scenes):
    rows = [f"images/{n}.tif,masks/{n}.tif,{'test' if n > 3 else 'train'}" for n in range(6)]
    (scenes / "table.csv").write_text("\n".join(["scene,mask,split", *rows]))
    table = {"table": {"path": "table.csv", "labels": "mask"}}
    for fold in (0, 1):
        values = config(scenes=table, split={"by": "scene", "folds": 2, "fold": fold}, labels={"legend": LEGEND})
        pairs = written(scenes, values).pairs()
        assert {Path(pair.scene.source).stem for pair in pairs["test"]} == {"4", "5"}
        assert len(pairs["train"]) == len(pairs["validate"]) == 2
    everything = written(scenes, config(scenes=table, split={"by": "scene"}, labels={"legend": LEGEND})).pairs()
    assert sum(len(chosen) for chosen in everything.values()) == 6


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"size": 500}, "size and buffer are of blocks, and the split is by group"),
        ({"by": "scene", "buffer": 10}, "size and buffer are of blocks, and the split is by scene"),
        ({"fold": 2}, "fold 2 of how many"),
        ({"folds": 3, "shares": {"train": 0.5, "validate": 0.5}}, "by shares or by folds, and both are given"),
    ],
)
def test_options_of_a_split_that_would_go_unused_are_refused(scenes, split, message):
    with pytest.raises(ConfigError, match=message):
        written(scenes, config(split=split))


def test_two_ways_of_naming_scenes_or_labels_are_refused(scenes):
    (scenes / "table.csv").write_text("scene,mask,split\nimages/0.tif,masks/0.tif,train\n")
    table = {"table": {"path": "table.csv", "labels": "mask"}}
    legend = {"legend": LEGEND}
    with pytest.raises(ConfigError, match="from the table or from train, and both are given"):
        written(scenes, {"scenes": table | {"train": "nosuch*.tif"}, "labels": legend})
    with pytest.raises(ConfigError, match=r"labels\.path and the table's column both say"):
        written(scenes, {"scenes": table, "labels": legend | {"path": "a.tif"}})


def test_splits_that_a_table_calls_otherwise_are_told(scenes):
    (scenes / "table.csv").write_text("scene,mask,split\nimages/0.tif,masks/0.tif,Train\n")
    table = {"table": {"path": "table.csv", "labels": "mask"}}
    with pytest.raises(ConfigError, match=r"table\.csv calls its splits Train, and none of train, val, test: say what"):
        written(scenes, {"scenes": table, "labels": {"legend": LEGEND}}).pairs()


def test_a_cache_lies_beside_the_config(scenes):
    loaded = written(scenes, config(sampler={"cache": "disk", "cache_folder": "kept"}))
    assert loaded.sections()["sampler"].cache_folder == str(scenes / "kept")
