"""Each fault planted in a sound data set is found, and nothing else is; the sound set has none."""

import shutil
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

from geounet.config import load_config
from geounet.doctor import examine
from geounet.errors import ConfigError
from tests.doctor.healthy import SIDE, SPLIT, DataSet, make, place
from tests.making import write_raster


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def data(sound, tmp_path):
    shutil.copytree(sound.folder, tmp_path / "data")
    return DataSet(tmp_path / "data")


def faults(data, *overrides):
    return [finding for finding in examine(load_config(data.config, overrides)).findings if finding.level != "note"]


def exchange(one, two):
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)


def truncate(path):
    path.write_bytes(path.read_bytes()[:3000])


def to_longitude_latitude(data, name):
    """Warp labels to EPSG:4326, a quarter wider than the image on all sides."""
    path, geographic = data.labels(name), CRS.from_epsg(4326)
    old = place(list(SPLIT).index(name))
    west, south, east, north = transform_bounds(
        "EPSG:32633", geographic, old.c - 600, old.f - 30 * SIDE - 600, old.c + 30 * SIDE + 600, old.f + 600
    )
    size = 400
    new = Affine((east - west) / size, 0, west, 0, (south - north) / size, north)

    def warped(pixels):
        out = np.full((1, size, size), 255, np.uint8)
        reproject(
            pixels, out, src_transform=old, src_crs="EPSG:32633", dst_transform=new, dst_crs=geographic,
            resampling=Resampling.nearest, src_nodata=255, dst_nodata=255,
        )  # fmt: skip
        return out

    data.edit(path, warped, crs=geographic, transform=new)


def copy_ground(data, source, target):
    """Put one scene, with its labels and its place, where another was."""
    shutil.copy(data.scene(source), data.scene(target))
    shutil.copy(data.labels(source), data.labels(target))


def copy_pixels(data, source, target):
    """Put the pixels of one scene where another was, and leave it its place."""
    copy_ground(data, source, target)
    for path in (data.scene(target), data.labels(target)):
        data.edit(path, transform=place(list(SPLIT).index(target)))


def write_the_answer(data):
    for name in SPLIT:
        codes = data.codes(name)

        def put(pixels, codes=codes):
            noise = np.random.default_rng(1).integers(-40, 40, codes.shape)
            pixels[2] = np.where(codes == 80, 2500, 700) + noise
            return pixels

        data.edit(data.scene(name), put)


def without(code, keep=0.0):
    """Take all pixels of a class, but for the first part of the rows, out of the labels."""

    def change(pixels):
        gone = pixels == code
        gone[:, : int(keep * SIDE)] = False
        return np.where(gone, 255, pixels).astype(np.uint8)

    return change


def every(step):
    """Leave the labels of a class on every so many pixels along both axes alone."""

    def change(pixels):
        kept = np.zeros_like(pixels, bool)
        kept[:, ::step, ::step] = True
        return np.where((pixels == 60) & ~kept, 255, pixels).astype(np.uint8)

    return change


def fill(pixels):
    pixels[:, :20, :30] = -9999
    return pixels


def flat(pixels):
    pixels[2] = 300
    return pixels


def padding(pixels):
    pixels[:, :10] = 0
    return pixels


def in_two_splits(row):
    return row | ({"group": "g-a"} if row["scene"] in ("scenes/a.tif", "scenes/h.tif") else {})


def labels_of_its_neighbour(row):
    return row | ({"labels": "labels/c.tif"} if row["scene"] == "scenes/b.tif" else {})


def unplaced(data):
    """Take the place on Earth from all files."""
    for name in SPLIT:
        for path in (data.scene(name), data.labels(name)):
            data.edit(path, crs=None, transform=None)


FAULTS = [
    pytest.param(lambda d: truncate(d.scene("b")), "unreadable", "error", "b.tif", id="a scene is cut short"),
    pytest.param(lambda d: truncate(d.labels("b")), "unreadable", "error", "b.tif", id="labels are cut short"),
    pytest.param(lambda d: d.scene("b").write_text("no raster"), "unreadable", "error", "b.tif", id="a scene is text"),
    pytest.param(lambda d: d.labels("b").unlink(), "missing-labels", "error", "b.tif", id="no label file"),
    pytest.param(
        lambda d: shutil.copy(d.labels("a"), d.labels("z")), "orphan-labels", "warning", "labels", id="a label file too many"
    ),
    pytest.param(
        lambda d: exchange(d.labels("b"), d.labels("c")), "wrong-pair", "error", "b.tif", id="two label files exchanged"
    ),
    pytest.param(
        lambda d: (unplaced(d), d.rows(labels_of_its_neighbour)), "wrong-pair", "error", "b.tif",
        id="labels named after another scene",
    ),
    pytest.param(
        lambda d: (exchange(d.labels("b"), d.labels("c")), unplaced(d)), "wrong-pair", "error", "b.tif",
        id="two label files exchanged that have no place",
    ),
    pytest.param(lambda d: to_longitude_latitude(d, "b"), "crs-mismatch", "warning", "b.tif", id="labels in another CRS"),
    pytest.param(
        lambda d: d.edit(d.labels("b"), crs=None), "crs-mismatch", "warning", "b.tif", id="labels without a CRS"
    ),
    pytest.param(
        lambda d: d.edit(
            d.labels("b"), lambda p: p.repeat(2, 1).repeat(2, 2), transform=place(1) @ Affine.scale(0.5)
        ),
        "grid-mismatch", "warning", "b.tif", id="labels of half the pixel size",
    ),
    pytest.param(
        lambda d: d.edit(d.labels("b"), transform=place(1) @ Affine.translation(0.5, 0.5)),
        "half-pixel", "warning", "b.tif", id="labels half a pixel off",
    ),
    pytest.param(
        lambda d: d.edit(d.labels("b"), lambda p: np.where(np.arange(SIDE) < 2, 7, p).astype(np.uint8)),
        "undeclared-codes", "error", "b.tif", id="a code that nobody declared",
    ),
    pytest.param(
        lambda d: d.edit_all(d.labels, every(9), splits=["train"]), "imbalance", "warning", "bare", id="a rare class"
    ),
    pytest.param(
        lambda d: d.edit_all(d.labels, without(60), splits=["train"]), "missing-class", "error", "bare",
        id="a class that training lacks",
    ),
    pytest.param(
        lambda d: d.edit_all(d.labels, without(60), splits=["test"]), "missing-class", "warning", "bare",
        id="a class that the test lacks",
    ),
    pytest.param(
        lambda d: d.edit_all(d.labels, lambda p: np.full_like(p, 255), splits=["test"]), "few-labels", "warning", "test",
        id="a split without labels",
    ),
    pytest.param(lambda d: d.edit_all(d.scene, flat), "constant-band", "warning", "swir1", id="a band constant in all"),
    pytest.param(lambda d: d.edit(d.scene("b"), flat), "constant-band", "warning", "b.tif", id="a band constant in one"),
    pytest.param(
        lambda d: d.edit(d.scene("b"), fill, nodata=None), "nodata-in-statistics", "error", "b.tif",
        id="-9999 that nobody declared",
    ),
    pytest.param(
        lambda d: d.edit(d.scene("b"), padding), "nodata-in-statistics", "warning", "all bands", id="padding with zeros"
    ),
    pytest.param(
        lambda d: d.edit(d.scene("b"), lambda p: (p / 10_000).astype(np.float32)), "scale-mismatch", "error", "b.tif",
        id="reflectance from 0 to 1 in one scene",
    ),
    pytest.param(
        lambda d: d.edit(d.scene("b"), lambda p: p[:2]), "band-mismatch", "error", "b.tif", id="a scene lacks a band"
    ),
    pytest.param(lambda d: copy_ground(d, "a", "h"), "leak", "error", "h.tif", id="test ground in training"),
    pytest.param(
        lambda d: (copy_pixels(d, "a", "h"), d.set(scenes={"georeference": "nominal"})), "leak", "error", "h.tif",
        id="test pixels in training",
    ),
    pytest.param(lambda d: d.rows(in_two_splits), "group-straddles", "error", "g-a", id="a group in two splits"),
    pytest.param(write_the_answer, "answer-band", "warning", "swir1", id="labels written into a band"),
    pytest.param(
        lambda d: d.edit_all(d.labels, lambda p: np.roll(p, (-2, 3), (1, 2))), "misregistered", "warning",
        "labels of all 8 scenes", id="all labels three pixels off",
    ),
    pytest.param(
        lambda d: d.edit(d.labels("b"), lambda p: np.roll(p, 4, 2)), "misregistered", "warning", "b.tif",
        id="labels of one scene four pixels off",
    ),
    pytest.param(
        lambda d: d.set(split={"by": "block", "size": 1e7}), "indivisible", "error", "config.yaml", id="blocks too large"
    ),
]  # fmt: skip


def test_a_sound_data_set_has_no_fault(sound):
    diagnosis = examine(load_config(sound.config))
    assert diagnosis.findings == ()
    assert diagnosis.errors == ()


@pytest.mark.parametrize(("plant", "code", "level", "about"), FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(data, plant, code, level, about):
    plant(data)
    found = faults(data)
    assert {(finding.code, finding.level) for finding in found} == {(code, level)}
    assert about in {finding.about.rsplit("/", 1)[-1] for finding in found}


def test_equal_data_give_equal_findings(data):
    copy_ground(data, "a", "h")
    one, two = (examine(load_config(data.config)) for _ in range(2))
    assert one == two


def test_counts_of_a_code_are_those_of_its_pixels(data):
    data.edit(data.labels("b"), lambda p: np.where(np.arange(SIDE) < 2, 7, p).astype(np.uint8))
    (finding,) = faults(data)
    assert finding.values["codes"] == {"7": 2 * SIDE}
    assert f"7 on {2 * SIDE} pixels" in finding.message


def test_facts_are_those_of_the_data(sound):
    facts = examine(load_config(sound.config)).facts
    train = facts["splits"]["train"]
    assert (train["scenes"], train["groups"], train["labelled"], train["valid_share"]) == (4, 4, 4 * SIDE**2, 1.0)
    assert sum(one["share"] for one in train["classes"].values()) == pytest.approx(1)
    assert (facts["registration"]["rows"], facts["registration"]["columns"]) == (0, 0)
    assert facts["rules"]["water"]["rule"].startswith(("nir <", "swir1 <"))


def test_one_bad_scene_does_not_hide_the_faults_of_others(data):
    truncate(data.scene("a"))
    data.labels("c").unlink()
    data.edit(data.scene("b"), flat)
    assert {finding.code for finding in faults(data)} == {"unreadable", "missing-labels", "constant-band"}


def test_scenes_beside_those_in_use_are_noted(data):
    shutil.copy(data.scene("a"), data.scene("spare"))
    (note,) = examine(load_config(data.config)).findings
    assert (note.level, note.code) == ("note", "orphan-scenes")
    assert "spare.tif" in note.message


def test_rows_that_the_table_leaves_out_are_no_orphans(data):
    table = {"table": {"path": "splits.csv", "labels": "labels", "leave_out": [{"scene": "scenes/b.tif"}], "splits": {
        "train": "train", "validate": "validate", "test": "test"}}}  # fmt: skip
    data.set(scenes=table)
    assert examine(load_config(data.config)).findings == ()


def test_codes_that_may_be_ignored_are_a_note(data):
    data.edit(data.labels("b"), lambda p: np.where(np.arange(SIDE) < 2, 7, p).astype(np.uint8))
    data.set(labels={"unknown": "ignore"})
    (note,) = examine(load_config(data.config)).findings
    assert (note.level, note.code) == ("note", "undeclared-codes")


def test_leaks_that_are_allowed_are_a_note(data):
    copy_ground(data, "a", "h")
    data.set(scenes={"leaks": "allow"})
    assert faults(data) == []


def test_blocks_of_one_scene_are_no_leak_and_no_straddling_group(data):
    data.set(split={"by": "block", "size": 600, "shares": {"train": 0.6, "validate": 0.4}})
    diagnosis = examine(load_config(data.config))
    assert diagnosis.errors == ()
    labelled = {split: facts["labelled"] for split, facts in diagnosis.facts["splits"].items()}
    assert labelled["train"] == pytest.approx(0.6 * 6 * SIDE**2, rel=0.2)
    assert labelled["train"] + labelled["validate"] == 6 * SIDE**2
    assert labelled["test"] == 2 * SIDE**2  # the table's, which the division leaves alone


def test_declaring_the_value_as_nodata_heals_it(data):
    data.edit(data.scene("b"), fill, nodata=None)
    assert faults(data, "scenes.nodata=-9999") == []


def test_a_typed_band_is_not_held_to_what_amounts_are(data):
    def flags(pixels):
        return np.concatenate([pixels, np.where(pixels[:1] > 900, 32_767, 0).astype(np.int16)])

    for name in SPLIT:
        data.edit(data.scene(name), flags)
    names = ["red", "nir", "swir1", "qa"]
    data.set(scenes={"names": names, "types": {"qa": {"kind": "bitmask", "bits": [0, 3]}}})
    assert faults(data) == []


def test_one_bit_that_tells_a_class_is_found(data):
    for name in SPLIT:
        water = data.codes(name) == 80
        other = np.random.default_rng(0).integers(0, 2, water.shape)
        word = (water * 8 + other).astype(np.int16)[None]
        data.edit(data.scene(name), lambda pixels, word=word: np.concatenate([pixels, word]))
    data.set(scenes={"names": ["red", "nir", "swir1", "qa"], "types": {"qa": {"kind": "bitmask"}}})
    (finding,) = faults(data)
    assert (finding.code, finding.about) == ("answer-band", "qa")
    assert finding.values["rules"][0]["rule"] == "qa bit 3 = 1"
    assert finding.values["rules"][0]["iou"] == 1.0


def test_polygons_that_lie_elsewhere_are_the_wrong_labels(data):
    there = geopandas.GeoDataFrame(
        {"code": [80]}, geometry=[shapely.box(100_000, 100_000, 101_000, 101_000)], crs="EPSG:32633"
    )
    there.to_file(data.folder / "truth.gpkg")
    data.set(labels={"path": "truth.gpkg", "column": "code", "background": 10, "legend": {10: "land", 80: "water"}})
    data.set(scenes={"table": {"path": "splits.csv", "splits": {s: s for s in ("train", "validate", "test")}}})
    assert "wrong-pair" in {finding.code for finding in faults(data)}


def test_images_of_torchgeo_are_refused(data):
    loaded = load_config(data.config)
    with pytest.raises(ConfigError, match="torchgeo"):
        examine(replace(loaded, config=replace(loaded.config, scenes=None, labels=None, torchgeo=object())))


def test_when_nothing_can_be_read_each_scene_is_told(data):
    for name in SPLIT:
        truncate(data.scene(name))
    diagnosis = examine(load_config(data.config))
    assert [(finding.code, finding.level) for finding in diagnosis.findings] == [("unreadable", "error")] * len(SPLIT)
    assert diagnosis.facts["splits"] == {}


def test_a_class_that_polygons_hold_and_nobody_declared_is_named(data):
    geometry = [
        shapely.box(500_000, 5_299_000, 501_000, 5_300_000),
        shapely.box(501_000, 5_299_000, 502_000, 5_300_000),
    ]
    frame = geopandas.GeoDataFrame({"code": ["water", "lava"]}, geometry=geometry, crs="EPSG:32633")
    frame.to_file(data.folder / "truth.gpkg")
    data.set(labels={"path": "truth.gpkg", "column": "code", "background": 10, "legend": {10: "land", 80: "water"}})
    data.set(scenes={"table": {"path": "splits.csv", "splits": {s: s for s in ("train", "validate", "test")}}})
    (finding,) = [one for one in faults(data) if one.code == "undeclared-codes"]
    assert "lava" in finding.message
    assert finding.about.endswith("a.tif")


def test_orphans_are_told_apart_where_scenes_and_labels_share_a_folder(data):
    for name in SPLIT:
        data.labels(name).rename(data.folder / "scenes" / f"{name}_truth.tif")
    for name in ("y", "z_truth"):
        shutil.copy(data.scene("a"), data.folder / "scenes" / f"{name}.tif")
    data.set(labels={"path": "scenes/{stem}_truth.tif"})
    splits = {s: s for s in ("train", "validate", "test")}
    data.set(scenes={"table": {"path": "splits.csv", "group": "group", "splits": splits}})
    found = {finding.code: finding.message for finding in examine(load_config(data.config)).findings}
    assert found.keys() == {"orphan-labels", "orphan-scenes"}
    assert found["orphan-labels"].startswith("z_truth.tif lies")
    assert found["orphan-scenes"].startswith("y.tif lies")


def test_labels_half_a_world_away_in_polygons_of_one_scene_are_told_though_others_are_right(data):
    boxes = {name: place(number) @ (0, 0) for number, name in enumerate(SPLIT)}
    (data.folder / "vectors").mkdir()
    for name, (x, y) in boxes.items():
        west = x + (100_000 if name == "b" else 0)
        shape = shapely.box(west + 300, y - 1200, west + 1200, y - 300)
        geopandas.GeoDataFrame({"code": [80]}, geometry=[shape], crs="EPSG:32633").to_file(
            data.folder / "vectors" / f"{name}.gpkg"
        )
    data.set(
        labels={"path": "vectors/{stem}.gpkg", "column": "code", "background": 10, "legend": {10: "land", 80: "water"}}
    )
    data.set(scenes={"table": {"path": "splits.csv", "splits": {s: s for s in ("train", "validate", "test")}}})
    assert [one.about[-5:] for one in faults(data) if one.code == "wrong-pair"] == ["b.tif"]


def test_a_code_that_only_the_second_scene_of_one_label_file_shows_is_counted(data):
    west, east = data.codes("a"), data.codes("b")
    between = np.full((SIDE, 300 - SIDE), 255, np.uint8)  # scenes lie 300 pixels apart
    east[:3] = 7
    write_raster(data.folder / "all.tif", np.hstack([west, between, east]), nodata=255, transform=place(0))
    data.set(labels={"path": "all.tif"})
    splits = {"train": "train"}
    data.set(
        scenes={
            "table": {"path": "splits.csv", "splits": splits, "leave_out": [{"scene": f"scenes/{n}.tif"} for n in "cd"]}
        }
    )
    (finding,) = [one for one in faults(data) if one.code == "undeclared-codes"]
    assert finding.values["codes"] == {"7": 3 * SIDE}
    assert finding.about.endswith("b.tif")
