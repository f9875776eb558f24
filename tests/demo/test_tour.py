import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from sklearn.metrics import jaccard_score

from geounet.demo import run
from geounet.demo.scenery import BANDS, LEGEND, NODATA
from geounet.errors import OutputError, OutputExistsError

SMALL = {"side": 160, "epochs": 2, "width": 4}


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def demo(tmp_path_factory, told):
    return run(tmp_path_factory.mktemp("work") / "a" / "demo", seed=1, progress=told.append, **SMALL)


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def test_the_demo_makes_all_it_names_in_its_folder(demo):
    assert {"train", "validate", "scene", "scene labels", "model", "mask", "polygons", "metrics", "picture"} <= set(
        demo.files
    )
    for path in demo.files.values():
        assert path.is_file()
        assert path.is_relative_to(demo.folder)
    assert not [path for path in demo.folder.rglob("*") if ".part" in path.name]


def test_progress_climbs_to_1(told, demo):  # noqa: ARG001 - what the demo told
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) >= SMALL["epochs"] + 3


def test_scenes_are_named_six_band_reflectance_with_a_wedge_of_nodata(demo):
    for name in ("train", "scene"):
        with rasterio.open(demo.files[name]) as file:
            assert file.descriptions == BANDS
            assert set(file.dtypes) == {"int16"}
            assert file.nodata == NODATA
            assert file.crs.is_projected
            pixels = file.read()
        outside = (pixels == NODATA).all(axis=0)
        assert_array_equal((pixels == NODATA).any(axis=0), outside)
        assert 0.02 < outside.mean() < 0.4


def test_what_is_trained_on_what_is_validated_with_and_what_is_mapped_are_apart(demo):
    places = {}
    for name in ("train", "validate", "scene"):
        with rasterio.open(demo.files[name]) as file:
            places[name] = file.crs, file.bounds
    assert places["train"][1].bottom - places["validate"][1].top == 320  # 32 pixels of 10 m between them
    assert places["scene"][0] != places["train"][0]


def test_the_map_has_nodata_exactly_where_the_scene_has(demo):
    assert_array_equal(read(demo.files["mask"])[0] == 255, read(demo.files["scene"])[0] == NODATA)


def test_scores_are_those_of_the_written_map(demo):
    codes, labels = read(demo.files["mask"]).ravel(), read(demo.files["scene labels"]).ravel()
    seen = codes != 255
    expected = jaccard_score(labels[seen], codes[seen], labels=list(LEGEND.codes), average=None, zero_division=0)
    assert [demo.iou[name] for name in LEGEND.names] == pytest.approx(expected.tolist())
    written = json.loads(demo.files["metrics"].read_text(encoding="utf-8"))
    assert written["classes"]["water"]["iou"] == demo.iou["water"]
    assert written["pixels"] == seen.sum()


def test_polygons_cover_what_is_mapped(demo):
    area = gpd.read_file(demo.files["polygons"]).area.sum()
    assert area == pytest.approx(100.0 * (read(demo.files["mask"]) != 255).sum())  # pixels of 10 m


def test_equal_seeds_make_equal_demos(demo, tmp_path):
    again = run(tmp_path, seed=1, **SMALL)
    for name in ("train", "scene", "scene labels", "mask"):
        assert_array_equal(read(again.files[name]), read(demo.files[name]))
    assert again.iou == demo.iou


def test_a_folder_with_something_in_it_is_left_alone_unless_overwriting_is_asked_for(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="not empty"):
        run(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    for seed in (2, 3):
        result = run(tmp_path, seed=seed, overwrite=True, side=160, epochs=1, width=2)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert np.isfinite(result.evaluation.miou)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        run(tmp_path / "file" / "demo", **SMALL)


def test_land_too_small_to_hold_a_part_back_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 160"):
        run(tmp_path / "demo", side=100)
    assert not (tmp_path / "demo").exists()
