"""A run folder has its name when it is whole; a slip is one message; cards show what is there."""

from dataclasses import replace

import click
import numpy as np
import pytest
import yaml
from affine import Affine
from click.testing import CliRunner

from geounet.cli import main
from geounet.cli.info import model_card
from geounet.cli.shared import parse_bands
from tests.making import BANDS, reflectance, unet_model, write_raster


@pytest.fixture
def run():
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def config(tmp_path):
    pixels = reflectance((48, 48))
    write_raster(tmp_path / "scene.tif", pixels, bands=BANDS)
    write_raster(tmp_path / "truth.tif", (pixels[3] < 1500).astype(np.uint8))
    values = {
        "scenes": {"train": "scene.tif", "validate": "scene.tif", "leaks": "allow"},
        "labels": {"path": "truth.tif", "legend": {0: "[red]land[/red]", 1: "water"}},
        "sampler": {"chip_size": 16, "chips_per_epoch": 4},
        "model": {"depth": 1, "width": 2},
        "training": {"epochs": 1, "batch_size": 4},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "config.yaml"


def test_classes_are_shown_by_the_names_they_have(run, config, tmp_path):
    result = run("train", config, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "[red]land[/red]" in result.output


def test_a_run_folder_has_its_name_only_with_config_and_plots_in_it(run, config, tmp_path, monkeypatch):
    def interrupted(folder, _):
        assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "config.yaml"}
        raise KeyboardInterrupt

    monkeypatch.setattr("geounet.report.plot_run", interrupted)
    assert run("train", config, "-o", tmp_path / "run").exit_code == 130
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "run.unfinished" / "run" / "model.safetensors").exists()


def test_ctrl_c_between_epochs_ends_with_one_message_and_status_130(run, config, tmp_path, monkeypatch):
    def press_ctrl_c(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("geounet.cli.train._tell", press_ctrl_c)
    result = run("train", config, "-o", tmp_path / "run")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "geounet: stopped; nothing was left half-written."
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "truth.tif", "config.yaml"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=[1", "--set training.epochs=[1: the value is not YAML"),
        ("training.epochs=0", "training.epochs: "),
        ("training.device=cuda:99", "there is no device cuda:99"),
        ("inference.device=cuda:99", "there is no device cuda:99"),
        ("inference.overlap=9999", "overlap is a number of pixels from 0 to below chip_size"),
        ("inference.chip_sise=64", "unknown key 'chip_sise'; did you mean chip_size?"),
    ],
)
def test_a_slip_is_one_message_without_a_traceback(run, config, tmp_path, override, message):
    result = run("train", config, "-o", tmp_path / "run", "--set", override)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.splitlines()[-1].startswith("geounet: ")
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2,3,4", r"'2,3,4' says which bands, but not what they are; write name=index"),
        ("blue,3", r"write name=index"),
        ("blue=1,blue=2", "gives blue more than once"),
        ("red,nir,red", "gives red more than once"),
        ("blue=1=2", "neither name=index"),
    ],
)
def test_bands_that_are_not_named_once_each_are_refused(text, message):
    with pytest.raises(click.BadParameter, match=message):
        parse_bands(text)


def test_the_pixel_of_a_rotated_scene_has_its_true_sides(run, tmp_path):
    turned = Affine(0, 20, 500_000, 10, 0, 5_300_000)  # a column further is 10 m north, a row further 20 m east
    scene = write_raster(tmp_path / "turned.tif", reflectance((20, 20)), bands=BANDS, transform=turned)
    assert "10 × 20 CRS units" in run("info", scene).output


@pytest.mark.parametrize(
    ("shape", "pixels"), [((128, 128), 128 * 128), ((1000, 70), 5 * 64 * 70), ((20, 330), 20 * 320)]
)
def test_no_pixel_is_probed_twice(run, tmp_path, shape, pixels):
    scene = write_raster(tmp_path / "scene.tif", reflectance(shape), bands=BANDS)
    assert f"100.0% of {pixels:,} pixels looked at" in run("info", scene).output


@pytest.mark.parametrize(
    "metrics", [{"test": 0.9}, {"test": {"iou": 0.9}}, {"test": {"iou": {"a": None}}}, ["a"], None]
)
def test_a_model_scored_by_another_program_is_shown(metrics):
    model = unet_model()
    model.info = replace(model.info, provenance={"metrics": metrics})
    card = model_card(model)
    assert "0 land, 1 water" in card
    assert ("test" in card) == isinstance(metrics, dict)


def test_a_folder_that_is_no_run_is_left_alone_by_the_switch_that_overwrites(run, config, tmp_path):
    before = set(tmp_path.iterdir())
    result = run("train", config, "-o", tmp_path, "-f")
    assert result.exit_code == 1
    assert "holds something else than a run" in result.stderr
    assert set(tmp_path.iterdir()) == before
