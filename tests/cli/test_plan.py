"""``geounet train --plan`` says what would be chosen and why, and trains nothing."""

import re

import pytest
import yaml
from click.testing import CliRunner

from geounet.cli import main
from tests.making import BANDS, reflectance, write_raster


def config(folder, **sections):
    pixels = reflectance((48, 48))
    write_raster(folder / "scene.tif", pixels, bands=BANDS)
    write_raster(folder / "truth.tif", (pixels[3] < 1500).astype("uint8"))
    values = {
        "scenes": {"train": "scene.tif", "validate": "scene.tif", "leaks": "allow"},
        "labels": {"path": "truth.tif", "legend": {0: "land", 1: "water"}},
        **sections,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "config.yaml"


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def rows(output):
    """Option and value of each line of the table."""
    lines = [line.split() for line in output.splitlines()]
    return {line[0]: line[1] for line in lines if line and "." in line[0] and len(line) > 2}


def test_the_plan_of_an_empty_config_is_shown_and_no_folder_made(tmp_path):
    result = run("train", config(tmp_path), "-o", tmp_path / "run", "--plan", "--set", "training.batch_size=auto")
    assert result.exit_code == 0, result.output
    assert rows(result.output) == {
        "sampler.chip_size": "32", "model.depth": "1", "model.width": "16", "model.normalisation": "standardise",
        "training.batch_size": "1",
    }  # fmt: skip
    assert "the scenes are 48 pixels wide" in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


def test_a_training_shows_its_plan_and_draws_what_it_searched_for(tmp_path):
    path = config(
        tmp_path,
        sampler={"chip_size": 16, "chips_per_epoch": 40},
        model={"depth": 1, "width": 2},
        training={"epochs": 1},
    )
    result = run(
        "train",
        path,
        "-o",
        tmp_path / "run",
        "--set",
        "training.batch_size=auto",
        "--set",
        "training.learning_rate=auto",
    )
    assert result.exit_code == 0, result.output
    assert rows(result.output)["sampler.chip_size"] == "16"
    # what is to be tried stands in the plan, and after training what was found
    assert re.search(r"^training\.learning_rate +auto +found by trying", result.output, re.MULTILINE)
    found = yaml.safe_load((tmp_path / "run" / "run.json").read_text())["plan"]["choices"]
    for what in ("training.batch_size", "training.learning_rate"):
        assert f"{what} {found[what]['value']:g}: {found[what]['why']}" in result.output.splitlines()
    assert "as the config says" in " ".join(result.output.split())
    assert {"learning_rate.png", "batch_size.png"} <= {file.name for file in (tmp_path / "run").iterdir()}
    assert (
        "auto"
        not in (tmp_path / "run" / "run.json")
        .read_text()
        .split('"plan"')[0]
        .split('"training"')[1]
        .split('"precision"')[0]
    )


def test_a_number_out_of_range_is_refused_and_the_word_is_offered(tmp_path):
    result = run("train", config(tmp_path), "--plan", "--set", "sampler.chip_size=0")
    assert result.exit_code == 1
    assert "sampler.chip_size: input should be greater than or equal to 1, or auto, not 0." in result.stderr


@pytest.mark.parametrize(
    ("switch", "message"),
    [("--cross-validate", "--cross-validate makes several"), ("--resume", "one that goes on keeps its own")],
)
def test_a_plan_is_refused_of_what_has_not_one_to_be_made(tmp_path, switch, message):
    folds = ("--set", "split.by=block", "--set", "split.size=100", "--set", "split.folds=2")
    result = run("train", config(tmp_path), "-o", tmp_path / "run", "--plan", switch, *folds)
    assert result.exit_code == 2
    assert message in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "truth.tif", "config.yaml"}


def test_a_reason_stays_on_its_line_where_the_table_goes_to_a_file(tmp_path):
    result = run("train", config(tmp_path), "--plan", "--set", "model.depth=1")
    assert any(
        line.startswith("training.batch_size") and line.rstrip().endswith("that are free")
        for line in result.output.splitlines()
    )
