"""A config says all it means, in keys that exist."""

import csv

import numpy as np
import pytest
import yaml

from geounet.config import Config, expand, load_config, schema
from geounet.errors import ConfigError
from tests.making import BANDS, reflectance, write_raster

MINIMAL = {
    "scenes": {"train": "train/*.tif", "validate": ["val/c.tif"]},
    "labels": {"path": "truth/{stem}.tif", "legend": {0: "land", 1: "water"}},
}


@pytest.fixture
def folder(tmp_path):
    for split, stem in (("train", "a"), ("train", "b"), ("val", "c")):
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / "truth").mkdir(exist_ok=True)
        write_raster(tmp_path / split / f"{stem}.tif", reflectance((20, 20)), bands=BANDS)
        write_raster(tmp_path / "truth" / f"{stem}.tif", np.zeros((20, 20), np.uint8))
    return tmp_path


def write(folder, values):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_globs_and_stems_pair_scenes_with_labels(folder):
    pairs = load_config(write(folder, MINIMAL)).pairs()
    assert {split: len(chosen) for split, chosen in pairs.items()} == {"train": 2, "validate": 1}
    for pair in pairs["train"]:
        assert pair.labels.source.split("/")[-1] == pair.scene.source.split("/")[-1]
    assert pairs["train"][0].scene.bands == BANDS


def test_bands_are_chosen_by_name_and_order(folder):
    values = MINIMAL | {"scenes": MINIMAL["scenes"] | {"bands": ["nir", "red"]}}
    assert load_config(write(folder, values)).pairs()["train"][0].scene.bands == ("nir", "red")


def test_a_table_gives_splits_groups_and_leaves_rows_out(folder):
    rows = [
        {"image": "train/a.tif", "mask": "truth/a.tif", "part": "train", "place": "x", "bad": 0},
        {"image": "train/b.tif", "mask": "truth/b.tif", "part": "train", "place": "y", "bad": 1},
        {"image": "val/c.tif", "mask": "truth/c.tif", "part": "val", "place": "z", "bad": 1},
    ]
    with (folder / "splits.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    table = {
        "path": "splits.csv", "scene": "image", "labels": "mask", "split": "part", "group": "place",
        "leave_out": [{"part": "train", "bad": 1}],
    }  # fmt: skip
    values = {"scenes": {"table": table}, "labels": {"legend": {0: "land", 1: "water"}}}
    pairs = load_config(write(folder, values)).pairs()
    assert [pair.group for pair in pairs["train"]] == ["x"]
    assert [pair.group for pair in pairs["validate"]] == ["z"]
    assert pairs["test"] == []


@pytest.mark.parametrize(
    ("section", "key", "near"),
    [("training", "epocs", "epochs"), ("scenes", "trian", "train"), ("labels", "legnd", "legend")],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(folder, section, key, near):
    values = {**MINIMAL, section: {**MINIMAL.get(section, {}), key: 3}}
    with pytest.raises(ConfigError, match=rf"{section}: unknown key '{key}'; did you mean {near}\?"):
        load_config(write(folder, values))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=many", r"training\.epochs: .*integer.*'many'"),
        ("loss.class_weights=fair", "loss.class_weights: .*'none', 'inverse', 'median' or 'effective'"),
        ("labels.legend={a: b}", "labels.legend"),
        ("epochs=3", "takes section.key=value"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(folder, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(folder, MINIMAL), [override])


def test_overrides_win(folder):
    loaded = load_config(write(folder, MINIMAL), ["training.learning_rate=3.0e-4", "sampler.chip-size=64"])
    assert loaded.config.training.learning_rate == 3e-4
    assert loaded.config.sampler.chip_size == 64


def test_variables_are_expanded_and_missing_ones_refused(monkeypatch):
    monkeypatch.setenv("DATA_HERE", "/data")
    values = {"a": ["${DATA_HERE}/x", "${NOT_SET_AT_ALL:-y}/z"], "b": 3}
    assert expand(values) == {"a": ["/data/x", "y/z"], "b": 3}
    with pytest.raises(ConfigError, match=r"\$\{NOT_SET_AT_ALL\}, which is not set"):
        expand("${NOT_SET_AT_ALL}")


def test_a_pattern_that_matches_nothing_is_said(folder):
    values = MINIMAL | {"scenes": {"train": "nowhere/*.tif", "validate": "val/*.tif"}}
    with pytest.raises(ConfigError, match=r"scenes\.train names nowhere/\*\.tif, and nothing matches"):
        load_config(write(folder, values)).pairs()


@pytest.mark.parametrize("text", ["- just\n- a list\n", "a: [unclosed", "!!python/object/apply:os.system ['true']"])
def test_what_is_no_config_is_refused_and_runs_nothing(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_config(path)


def test_the_schema_knows_every_section():
    assert set(schema()["properties"]) == set(Config.__dataclass_fields__)
