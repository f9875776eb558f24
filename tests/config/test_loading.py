"""A config says all it means, in keys that exist."""

import csv
from dataclasses import asdict
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from geounet.config import Config, expand, load_config, schema
from geounet.core.grid import Grid
from geounet.errors import ConfigError
from geounet.inference import predict
from geounet.training import Inference
from tests.making import BANDS, PLACE, UTM, reflectance, write_raster

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
    [
        ("training", "epocs", "epochs"),
        ("scenes", "trian", "train"),
        ("labels", "legnd", "legend"),
        ("split", "bufer", "buffer"),
    ],
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
        ("training.epochs=[1", r"--set training\.epochs=\[1: the value is not YAML"),
        ("training.epochs=0", r"training\.epochs: .*greater than or equal to 1, not 0"),
        ("training.batch_size=-2", r"training\.batch_size: .*not -2"),
        ("training.learning_rate=0", r"training\.learning_rate: .*greater than 0"),
        ("training.learning_rate=.nan", r"training\.learning_rate"),
        ("training.warmup=1.5", r"training\.warmup"),
        ("training.ema=1", r"training\.ema: .*less than 1"),
        ("training.patience=0", r"training\.patience"),
        ("sampler.chip_size=0", r"sampler\.chip_size"),
        ("sampler.chips_per_epoch=0", r"sampler\.chips_per_epoch"),
        ("sampler.group_power=-1", r"sampler\.group_power"),
        ("loss.label_smoothing=1", r"loss\.label_smoothing"),
        ("loss.dice=-1", r"loss\.dice"),
        ("augment.noise=-0.1", r"augment\.noise"),
        ("inference.chip_sise=3", r"inference: unknown key 'chip_sise'; did you mean chip_size\?"),
        ("inference.overlap=-1", r"inference\.overlap"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(folder, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(folder, MINIMAL), [override])


def test_a_loss_that_weighs_nothing_is_refused(folder):
    values = MINIMAL | {"loss": {"dice": 0, "cross_entropy": 0}}
    with pytest.raises(ConfigError, match=r"config\.yaml: loss: no loss has a weight, and nothing would be learnt"):
        load_config(write(folder, values))


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


def test_an_empty_variable_is_set_and_gives_way_to_a_default_as_in_a_shell(monkeypatch):
    monkeypatch.setenv("EMPTY_HERE", "")
    assert expand(["${EMPTY_HERE}x", "${EMPTY_HERE:-y}", "${EMPTY_HERE:-}"]) == ["x", "y", ""]


REMOTE = ("https://example.org/a.tif", "s3://bucket/x/a.tif", "/vsizip//data/all.zip/a.tif")


@pytest.mark.parametrize("remote", REMOTE)
def test_paths_that_gdal_fetches_are_handed_on_as_they_are(folder, opened, remote):
    labels = MINIMAL["labels"] | {"path": "/vsicurl/https://example.org/truth/{stem}.tif"}
    load_config(write(folder, {"scenes": {"train": remote}, "labels": labels})).pairs()
    assert opened == [remote, "/vsicurl/https://example.org/truth/a.tif"]


@pytest.mark.parametrize("remote", REMOTE)
def test_paths_in_a_table_that_gdal_fetches_are_handed_on_as_they_are(folder, opened, remote):
    (folder / "table.csv").write_text(f"scene,labels,split\n{remote},{remote},train\n")
    scenes = {"table": {"path": "table.csv", "labels": "labels"}}
    load_config(write(folder, {"scenes": scenes, "labels": {"legend": {0: "land"}}})).pairs()
    assert opened == [remote, remote]


@pytest.fixture
def opened(monkeypatch):
    """Paths that are opened, while none of them is."""
    paths = []

    def note(path, *_, **__):
        paths.append(path)
        scene = SimpleNamespace(source=path, grid=Grid((4, 4), PLACE, UTM), bands=BANDS)
        scene.by_nearest = lambda _: scene
        return scene

    monkeypatch.setattr("geounet.config.opening.open_scene", note)
    monkeypatch.setattr("geounet.config.opening.open_labels", note)
    return paths


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", r"table\.csv is empty", id="nothing at all"),
        pytest.param(b"scene,split\n", r"table\.csv is empty", id="a header alone"),
        pytest.param(b"scene,split\nM\xfcnchen.tif,train\n", r"table\.csv is not CSV in UTF-8", id="Latin-1"),
        pytest.param(
            b'scene,split\n"' + b"x" * 200_000 + b'",train\n', r"is not CSV in UTF-8: field", id="a huge cell"
        ),
        pytest.param(b"scene,part\na.tif,train\n", r"no column split; it has scene, part", id="other columns"),
    ],
)
def test_a_table_that_is_none_is_said(folder, content, message):
    (folder / "table.csv").write_bytes(content)
    values = MINIMAL | {"scenes": {"table": {"path": "table.csv"}}}
    with pytest.raises(ConfigError, match=message):
        load_config(write(folder, values)).pairs()


def test_a_table_saved_by_a_spreadsheet_is_read(folder):
    (folder / "table.csv").write_bytes(b"\xef\xbb\xbfscene,split\r\ntrain/a.tif,train\r\n")
    pairs = load_config(write(folder, MINIMAL | {"scenes": {"table": {"path": "table.csv"}}})).pairs()
    assert {split: len(chosen) for split, chosen in pairs.items()} == {"train": 1, "validate": 0, "test": 0}


def test_a_rule_that_leaves_rows_out_by_a_column_that_is_not_there_is_refused(folder):
    (folder / "table.csv").write_text("scene,split,suspect\ntrain/a.tif,train,1\n")
    table = {"path": "table.csv", "leave_out": [{"suspekt": 1}]}
    with pytest.raises(ConfigError, match="no column suspekt; it has scene, split, suspect"):
        load_config(write(folder, MINIMAL | {"scenes": {"table": table}})).pairs()


def test_a_split_that_is_none_is_refused(folder):
    values = MINIMAL | {"scenes": {"table": {"path": "table.csv", "splits": {"trian": "train"}}}}
    with pytest.raises(ConfigError, match=r"scenes\.table\.splits.*'train', 'validate' or 'test', not 'trian'"):
        load_config(write(folder, values))


def test_inference_has_the_options_of_predict_with_its_defaults():
    options = {name: one.default for name, one in signature(predict).parameters.items() if one.kind is one.KEYWORD_ONLY}
    assert asdict(Inference()) | {"force": False} == options


def test_bands_of_one_scene_are_not_taken_for_scenes(folder):
    for number in (1, 2, 3):
        write_raster(folder / "train" / f"x_B{number}.tif", reflectance((20, 20), bands=1))
        write_raster(folder / "truth" / f"x_B{number}.tif", np.zeros((20, 20), np.uint8))
    values = MINIMAL | {"scenes": {"train": "train/x_B*.tif", "validate": "val/*.tif"}}
    with pytest.raises(ConfigError, match=r"3 files of one unnamed band on one grid.*bands of one scene"):
        load_config(write(folder, values)).pairs()


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
