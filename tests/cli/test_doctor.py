"""The command tells what was found, writes it, and ends as its gravest finding asks."""

import json

import pytest
from click.testing import CliRunner

from geounet.cli import main
from tests.doctor.healthy import make


@pytest.fixture
def run():
    return lambda *args: CliRunner().invoke(main, ["doctor", *map(str, args)])


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make(tmp_path_factory.mktemp("sound"))


def test_sound_data_end_with_0_and_show_what_there_is(run, sound):
    result = run(sound.config)
    assert result.exit_code == 0, result.output
    assert "0 errors, 0 warnings, 0 notes" in result.stdout
    assert "25,600" in result.stdout  # 4 scenes of 80 × 80 pixels to train on


def test_an_error_ends_with_1_and_says_what_to_do(run, tmp_path):
    data = make(tmp_path)
    data.labels("b").unlink()
    result = run(data.config, "--json", tmp_path / "found.json")
    assert result.exit_code == 1
    assert "missing-labels" in result.stdout
    assert "There is no label file" in result.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(one["code"], one["level"]) for one in found["findings"]] == [("missing-labels", "error")]
    assert found["facts"]["splits"]["train"]["scenes"] == 3


def test_a_warning_alone_ends_with_0(run, tmp_path):
    data = make(tmp_path)
    data.labels("z").write_bytes(data.labels("a").read_bytes())
    result = run(data.config)
    assert result.exit_code == 0
    assert "orphan-labels" in result.stdout


def test_a_report_that_is_there_is_kept_unless_asked(run, sound, tmp_path):
    report = tmp_path / "found.json"
    report.write_text("mine")
    assert "exists already" in run(sound.config, "--json", report).stderr
    assert report.read_text() == "mine"
    assert run(sound.config, "--json", report, "-f", "-q").stdout == ""
    assert json.loads(report.read_text())["findings"] == []


def test_of_many_findings_of_one_kind_the_first_are_shown_and_the_others_counted(run, tmp_path):
    data = make(tmp_path)
    for name in "abcdefg":
        data.labels(name).unlink()
    result = run(data.config)
    assert "and 2 more" in result.stdout


def test_a_slip_in_the_config_is_one_message(run, sound):
    result = run(sound.config, "--set", "scenes.nodatta=0")
    assert result.exit_code == 1
    assert "did you mean nodata" in result.stderr
