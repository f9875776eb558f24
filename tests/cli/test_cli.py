"""Doors parse, call and print: status, messages, and what is left on disk."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from rasterio.windows import from_bounds

import geounet
from geounet.cli import COMMANDS, main
from geounet.cli.shared import parse_bands, parse_bounds
from tests.making import BANDS, SHARED, needs_shared, reflectance, unet_model, write_raster


@pytest.fixture
def run():
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scene, labels on its grid, and a model that reads it."""
    folder = tmp_path_factory.mktemp("place")
    pixels = reflectance((90, 110))
    pixels[:, :20, :20] = -9999
    write_raster(folder / "scene.tif", pixels, bands=BANDS, nodata=-9999)
    write_raster(folder / "truth.tif", (pixels[3] < 1500).astype(np.uint8))
    unet_model(pixel_size=30.0).save(folder / "model.safetensors")
    return folder


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_and_a_bare_import_wake_nothing_heavy():
    heavy = ("torch", "lightning", "openvino", "rasterio", "geopandas", "matplotlib", "pandas", "xarray", "numpy")
    code = (
        "import sys, geounet; from click.testing import CliRunner; from geounet.cli import main\n"
        "print(CliRunner().invoke(main, ['--help']).exit_code, CliRunner().invoke(main, ['predict', '--help']).exit_code)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert python(code).split("\n")[:2] == ["0 0", "[]"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.output.split("Options:")[0].splitlines()[1:]]
    assert any(line.startswith(f"geounet {command}") for line in lines)
    assert "\\b" not in result.output


@pytest.mark.parametrize(
    "args",
    [
        ["predcit"],
        ["predict"],
        ["predict", "scene.tif", "--chip-size", "many"],
        ["predict", "scene.tif", "--bands", "blue=two"],
        ["predict", "scene.tif", "--bbox", "1,2,3"],
        ["predict", "scene.tif", "--co", "COMPRESS"],
        ["predict", "scene.tif", "--backend", "tensorflow"],
        ["evaluate", "water", "--scene", "a.tif", "--scene", "b.tif", "--labels", "c.tif"],
        ["predict", "scene.tif", "--bbox-crs", "EPSG:4326"],
        ["train"],
    ],
)
def test_wrong_usage_is_status_2(run, args):
    result = run(*args)
    assert result.exit_code == 2
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["predict", "{place}/scene.tif", "-m", "{place}/model.safetensors", "-o", "{tmp}/x.png"], "ends in .tif"),
        (["predict", "{place}/scene.tif", "-m", "{place}/scene.tif", "-o", "{tmp}/x.tif"], "is a raster, not a model"),
        (["predict", "{place}/scene.tif", "-m", "{place}/fake.ckpt", "-o", "{tmp}/x.tif"], "are never read"),
        (["predict", "{place}/scene.tif", "-m", "{place}/model.safetensors", "--nodata", "99999"], "cannot hold it"),
        (["predict", ""], "empty name"),
        (["polygonize", "."], "is a folder"),
        (["predict", "{place}/scene.tif", "-m", "{place}/model.safetensors", "--polygons", "{tmp}/x.txt"], ".gpkg"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(run, place, tmp_path, args, said):
    (place / "fake.ckpt").write_text("weights")
    result = run(*(arg.format(place=place, tmp=tmp_path) for arg in args))
    assert result.exit_code == 1
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_status_1_and_one_message_without_a_traceback(run, place, tmp_path):
    result = run("predict", tmp_path / "nowhere.tif", "-m", place / "model.safetensors")
    assert result.exit_code == 1
    assert result.output.startswith("geounet: ")
    assert "nowhere.tif" in result.output
    assert "Traceback" not in result.output


def test_verbose_shows_where_a_refusal_came_from(tmp_path):
    command = [sys.executable, "-m", "geounet", "predict", str(tmp_path / "nowhere.tif"), "-v"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "nowhere.tif" in result.stderr


def test_the_mask_goes_beside_the_scene_and_is_not_replaced_unasked(run, place, tmp_path):
    scene = tmp_path / "scene.tif"
    scene.write_bytes((place / "scene.tif").read_bytes())
    first = run("predict", scene, "-m", place / "model.safetensors")
    assert first.exit_code == 0, first.output
    written = (tmp_path / "scene_mask.tif").read_bytes()
    again = run("predict", scene, "-m", place / "model.safetensors")
    assert again.exit_code == 1
    assert "scene_mask.tif exists already" in again.output
    forced = run("predict", scene, "-m", place / "model.safetensors", "-f", "-q")
    assert (forced.exit_code, forced.output) == (0, "")
    assert (tmp_path / "scene_mask.tif").read_bytes() == written


def test_underscores_and_dashes_are_both_accepted(run, place, tmp_path):
    for name, size in (("a.tif", "--chip-size"), ("b.tif", "--chip_size")):
        command = ["predict", place / "scene.tif", "-m", place / "model.safetensors", "-o", tmp_path / name, size, "64"]
        result = run(*command, "--overlap", "16")
        assert result.exit_code == 0, result.output
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_box_is_cut_from_the_whole_map(run, place, tmp_path):
    common = ["predict", place / "scene.tif", "-m", place / "model.safetensors", "--chip-size", "48", "--overlap", "16"]
    assert run(*common, "-o", tmp_path / "whole.tif").exit_code == 0
    box = (500_300, 5_298_000, 502_400, 5_299_400)
    result = run(*common, "-o", tmp_path / "part.tif", "--bbox", ",".join(map(str, box)))
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / "whole.tif") as whole, rasterio.open(tmp_path / "part.tif") as part:
        west, south, east, north = part.bounds
        assert west <= box[0] < west + 30 and north - 30 < box[3] <= north  # noqa: PT018 - one box
        assert east - 30 < box[2] <= east and south <= box[1] < south + 30  # noqa: PT018
        expected = whole.read(1, window=from_bounds(*part.bounds, transform=whole.transform))
        assert_array_equal(part.read(1), expected)
    outside = run(*common, "-o", tmp_path / "none.tif", "--bbox", "0,0,1,1")
    assert outside.exit_code == 1
    assert "do not meet the scene" in outside.output


def test_polygons_are_those_of_the_mask_and_options_reach_gdal(run, place, tmp_path):
    result = run(
        "predict", place / "scene.tif", "-m", place / "model.safetensors", "-o", tmp_path / "m.tif",
        "--polygons", tmp_path / "m.gpkg", "--co", "COMPRESS=LZW",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert mask.compression.name == "lzw"
        counts = {code: int((mask.read(1) == code).sum()) for code in (0, 1)}
    import geopandas

    frame = geopandas.read_file(tmp_path / "m.gpkg")
    areas = frame.groupby("class")["area_m2"].sum()
    assert {int(code): round(area / 900) for code, area in areas.items()} == {c: n for c, n in counts.items() if n}
    assert run("polygonize", tmp_path / "m.tif", "-o", tmp_path / "again.fgb", "--class", "water").exit_code == 0
    again = geopandas.read_file(tmp_path / "again.fgb")
    assert set(again["name"]) == {"water"}
    assert again["area_m2"].sum() == pytest.approx(counts[1] * 900)


def test_evaluate_prints_and_writes_scores_by_class_name(run, place, tmp_path):
    model = place / "model.safetensors"
    result = run(
        "evaluate",
        model,
        "--scene",
        place / "scene.tif",
        "--labels",
        place / "truth.tif",
        "--json",
        tmp_path / "r.json",
    )
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "r.json").read_text())
    assert set(scores["classes"]) == {"land", "water"}
    assert set(scores["classes"]["water"]) == {"iou", "f1", "precision", "recall", "support"}
    mask = geounet.predict(place / "scene.tif", model).to_numpy()
    with rasterio.open(place / "truth.tif") as dataset:
        truth = dataset.read(1)
    valid = mask != 255
    assert scores["micro"]["accuracy"] == pytest.approx((mask == truth)[valid].mean())
    assert scores["confusion"][0][1] == int(((truth == 0) & (mask == 1)).sum())
    assert "water" in result.output


def test_info_says_what_a_scene_and_a_model_are(run, place):
    scene = run("info", place / "scene.tif").output
    assert "110 × 90 pixels" in scene
    assert "EPSG:32633" in scene
    assert all(name in scene for name in BANDS)
    model = run("info", place / "model.safetensors").output
    assert "blue, green, red, nir, swir1, swir2" in model
    assert "0 land, 1 water" in model
    assert "30 m" in model


def test_models_lists_the_bundled_ones_with_their_scores(run):
    result = run("models")
    assert result.exit_code == 0
    assert "water: " in result.output
    assert "test" in result.output
    assert "IoU" in result.output


def test_train_writes_a_run_folder_that_predict_can_use(run, place, tmp_path):
    values = {
        "scenes": {"train": str(place / "scene.tif"), "validate": str(place / "scene.tif"), "leaks": "warn"},
        "labels": {"path": str(place / "truth.tif"), "legend": {0: "land", 1: "water"}},
        "sampler": {"chip_size": 32, "chips_per_epoch": 16},
        "model": {"depth": 1, "width": 4},
        "training": {"epochs": 2, "batch_size": 8},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    result = run("train", tmp_path / "config.yaml", "-o", tmp_path / "run", "--set", "card.name=tiny")
    assert result.exit_code == 0, result.output
    assert re.search(r"scene\.tif \(train\) and .*scene\.tif \(validate\) share 100", result.output), result.output
    assert re.search(r"waited for data \d+\.\d% of the training time", result.output)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "model.safetensors", "metrics.json", "history.csv", "run.json", "config.yaml", "curves.png", "confusion.png",
        "inputs.png", "sample.png", "worst.png", "report.html",
    }  # fmt: skip
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["card"] == {"name": "tiny"}
    mapped = run("predict", place / "scene.tif", "-m", tmp_path / "run" / "model.safetensors", "-o", tmp_path / "m.tif")
    assert mapped.exit_code == 0, mapped.output


def test_a_config_with_a_slip_is_refused_with_the_nearest_key(run, tmp_path):
    (tmp_path / "c.yaml").write_text("scenes: {train: a.tif}\nlabls: {}\n")
    result = run("train", tmp_path / "c.yaml")
    assert result.exit_code == 1
    assert "unknown key 'labls'; did you mean labels?" in result.output


def test_the_schema_of_a_config_is_json(run):
    assert json.loads(run("train", "--schema").output)["properties"].keys() >= {"scenes", "labels", "training"}


@pytest.mark.parametrize("moment", [0.0, 0.15, 0.5, 1.0])
def test_killed_at_any_moment_nothing_stands_under_the_final_name(place, tmp_path, moment):
    scene = write_raster(tmp_path / "large.tif", reflectance((1500, 1500)), bands=BANDS, tiled=True)
    out = tmp_path / "out"
    out.mkdir()
    command = [
        sys.executable, "-m", "geounet", "predict", str(scene), "-m", str(place / "model.safetensors"),
        "-o", str(out / "mask.tif"), "--chip-size", "128", "--overlap", "64", "--backend", "torch",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any(out.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)  # until it has begun to write
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "mask.tif").exists()
    assert not (out / "mask.run.json").exists()


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("blue,green", ["blue", "green"]),
        ("blue=2, nir = 4", {"blue": 2, "nir": 4}),
    ],
)
def test_bands_are_parsed(text, parsed):
    assert parse_bands(text) == parsed


def test_bounds_are_parsed():
    assert parse_bounds("1,2.5,-3,4e2") == (1, 2.5, -3, 400)


@needs_shared
def test_the_refusals_of_real_files_say_what_to_do(run, tmp_path):
    naip = min((SHARED / "naip-timeseries").glob("*.tif"))
    unnamed = run("predict", naip, "-o", tmp_path / "m.tif")
    assert unnamed.exit_code == 1
    assert "band_1, band_2, band_3, band_4" in unnamed.output
    assert "swir1" in unnamed.output
    assert "--bands" in unnamed.output
    landsat = [SHARED / "landsat5-tm" / f"LT52240631988227CUB02_B{n}.TIF" for n in (1, 2, 3, 4, 5, 7)]
    numbers = run("predict", *landsat, "--bands", "blue,green,red,nir,swir1,swir2", "-o", tmp_path / "m.tif")
    assert numbers.exit_code == 1
    assert "8-bit" in numbers.output
    assert "reflectance × 10000" in numbers.output
    assert list(tmp_path.iterdir()) == []
