"""A training that was ended at any moment goes on to the very model that it would have been."""

import csv
import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from dataclasses import replace
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from geounet.cli import main
from geounet.core.legend import Legend
from geounet.errors import ConfigError, ModelFileError, OutputError, OutputExistsError
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.training import Augmentation, Card, Fitting, Inference, Network, Sampling, train
from geounet.training.epochs.checkpoint import epochs_in
from geounet.training.outcome.unfinished import differences
from geounet.training.sections import Sections
from tests.making import BANDS, reflectance, write_raster

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.training.test_resume"])
EPOCHS = 4
OPTIONS = {
    "sampler": Sampling(chip_size=16, chips_per_epoch=20, seed=5),
    "model": Network(depth=1, width=2, dropout=0.3),
    "augment": Augmentation(cutmix=0.5, noise=0.1),
    "training": Fitting(
        epochs=EPOCHS, batch_size=4, accumulate=2, ema=0.8, patience=3, schedule="plateau", plateau_patience=1,
        learning_rate=1e-2, device="cpu", precision="fp32",
    ),
    "inference": Inference(chip_size=32, backend="torch", device="cpu", precision="fp32"),
}  # fmt: skip
"""Chance, moving averages, best weights, accumulation, and a schedule and an end that follow the scores."""

MOMENTS = {
    "before the first step": ("training.epochs.task.Task.training_step", 1, 0),
    "within the first epoch": ("training.epochs.task.Task.training_step", 4, 0),
    "within the third epoch": ("training.epochs.task.Task.training_step", 13, 2),
    "at the end of an epoch": ("training.epochs.logs.Report.on_train_epoch_end", 2, 1),
    "with the history half written": ("output.check_output", 4, 1),  # it is looked up once more before it is renamed
    "in validation": ("training.epochs.task.Task.validation_step", 4, 1),
    "with the first checkpoint half written": ("training.epochs.checkpoint.torch.save", 1, 0),
    "with a later checkpoint half written": ("training.epochs.checkpoint.torch.save", 3, 2),
    "with the checkpoint of the last epoch half written": ("training.epochs.checkpoint.torch.save", EPOCHS, EPOCHS - 1),
    "before the run is begun to be filled": ("training.outcome.unfinished.Unfinished.inside", 1, EPOCHS),
    "while validation is scored": ("training.source.data.evaluate", 1, EPOCHS),
    "while the test is scored": ("training.source.data.evaluate", 2, EPOCHS),
    "when it is whole but not marked so": ("training.outcome.unfinished._make_whole", 1, EPOCHS),
}
"""The call that does not come back, and how many epochs are kept by then."""


def scenes(folder):
    """A scene each to train on, validate with and test on, where water is what is dark in the near infrared."""
    pairs = {}
    for seed, split in enumerate(("train", "validate", "test")):
        pixels = reflectance((48, 48), seed=seed)
        truth = np.where(pixels[3] < 1500, 80, 10).astype(np.uint8)
        image, labels = folder / f"{split}.tif", folder / f"{split}_truth.tif"
        if not labels.exists():
            write_raster(image, pixels, bands=BANDS)
            write_raster(labels, truth)
        scene = open_scene(image)
        pairs[split] = [Pair(scene, open_labels(labels, scene.grid, Legend.of({10: "land", 80: "water"})))]
    return pairs


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()


def write_half_and_die(_, path):
    path.write_bytes(b"PK\x03\x04 and no more")
    die()


def kill_at(name, number):
    """Let this process be killed by a call, counted from 1."""
    owner, _, attribute = f"geounet.{name}".rpartition(".")
    owner = resolve_name(owner)
    original, calls = getattr(owner, attribute), []

    def watched(*args, **options):
        calls.append(1)
        if len(calls) == number:
            (write_half_and_die if name.endswith("torch.save") else die)(*args)
        return original(*args, **options)

    setattr(owner, attribute, watched)


def train_and_die(folder, out, name, number, options):
    kill_at(name, number)
    train(scenes(folder), out, **options, progress=lambda _: None)


def command_and_die(arguments, name, number):
    kill_at(name, number)
    main(arguments, standalone_mode=False)


def ends_by(target, *args):
    """Signal that ends a process that runs `target`."""
    process = PROCESSES.Process(target=target, args=args)
    process.start()
    process.join()
    return -process.exitcode


def history(run):
    """Scores of each epoch, without the time that was spent waiting."""
    with (run / "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "data_wait"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def never_interrupted(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(scenes(folder), out, **OPTIONS)
    return out


@pytest.fixture(scope="module")
def interrupted(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("interrupted") / "run"
    assert ends_by(train_and_die, folder, out, *MOMENTS["within the third epoch"][:2], OPTIONS) == signal.SIGKILL
    return out.with_name("run.unfinished")


@pytest.fixture
def two_epochs(interrupted, tmp_path):
    """Name of a training that was killed in its third epoch."""
    shutil.copytree(interrupted, tmp_path / "run.unfinished")
    return tmp_path / "run"


def is_the_same(run, other):
    """The model files are equal byte for byte, and so are the scores."""
    names = {path.name for path in run.iterdir()}
    return (
        names == {path.name for path in other.iterdir()}
        and all(
            (run / n).read_bytes() == (other / n).read_bytes() for n in names if n not in ("run.json", "history.csv")
        )
        and history(run) == history(other)
    )


def test_equal_seeds_give_equal_files(folder, never_interrupted, tmp_path):
    train(scenes(folder), tmp_path / "again", **OPTIONS)
    assert is_the_same(tmp_path / "again", never_interrupted)
    other = train(scenes(folder), tmp_path / "other", **OPTIONS | {"sampler": replace(OPTIONS["sampler"], seed=6)})
    assert not is_the_same(other.folder, never_interrupted)


@pytest.mark.parametrize(("name", "number", "kept"), MOMENTS.values(), ids=MOMENTS)
def test_a_training_killed_at_any_moment_goes_on_to_the_same_model(
    folder, never_interrupted, tmp_path, name, number, kept
):
    out = tmp_path / "run"
    assert ends_by(train_and_die, folder, out, name, number, OPTIONS) == signal.SIGKILL
    assert not out.exists()
    checkpoint = tmp_path / "run.unfinished" / "checkpoint.pt"
    assert (epochs_in(checkpoint) if checkpoint.exists() else 0) == kept
    epochs = []
    train(scenes(folder), out, **OPTIONS, resume=True, progress=epochs.append)
    assert [one.epoch for one in epochs] == list(range(kept + 1, EPOCHS + 1))
    assert is_the_same(out, never_interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_training_killed_again_and_again_comes_to_its_end(folder, never_interrupted, tmp_path):
    options = OPTIONS | {"resume": True}
    for kept in range(1, EPOCHS):  # each attempt gets one epoch further
        assert (
            ends_by(train_and_die, folder, tmp_path / "run", "training.epochs.checkpoint.Checkpoints._save", 2, options)
            == 9
        )
        assert epochs_in(tmp_path / "run.unfinished" / "checkpoint.pt") == kept
    train(scenes(folder), tmp_path / "run", **options)
    assert is_the_same(tmp_path / "run", never_interrupted)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param("training.outcome.unfinished.put", 1, id="before it is renamed"),
        pytest.param("training.outcome.folder.shutil.rmtree", 2, id="renamed, with the working files in place"),
        pytest.param("training.outcome.unfinished.Unfinished._clear", 2, id="renamed, and about to be tidied up"),
    ],
)
def test_a_run_that_is_whole_gets_its_name_without_being_scored_again(
    folder, never_interrupted, tmp_path, monkeypatch, caplog, name, number
):
    out = tmp_path / "run"
    assert ends_by(train_and_die, folder, out, name, number, OPTIONS) == signal.SIGKILL
    monkeypatch.setattr("geounet.training.source.data.evaluate", lambda *_, **__: pytest.fail("scored again"))
    run = train(scenes(folder), out, **OPTIONS, resume=True)
    assert is_the_same(out, never_interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert f"{out} is finished already" in caplog.text
    assert run.history[-1]["epoch"] == EPOCHS


def test_between_the_names_of_two_runs_none_is_lost(folder, never_interrupted, tmp_path):
    out, options = tmp_path / "run", OPTIONS | {"training": replace(OPTIONS["training"], epochs=1)}
    before = train(scenes(folder), out, **options).model.hash
    assert (
        ends_by(train_and_die, folder, out, "training.outcome.folder.Path.rename", 2, OPTIONS | {"overwrite": True})
        == 9
    )
    assert not out.exists()  # just then
    replaced = json.loads((tmp_path / "run.unfinished" / "replaced" / "run.json").read_text())
    assert replaced["model"]["hash"] == before
    train(scenes(folder), out, **OPTIONS, resume=True)
    assert is_the_same(out, never_interrupted)


def test_a_training_that_stopped_early_learns_no_more(folder, tmp_path):
    idle = OPTIONS | {"training": replace(OPTIONS["training"], learning_rate=1e-12, patience=1, epochs=9)}
    train(scenes(folder), tmp_path / "whole", **idle)
    assert ends_by(train_and_die, folder, tmp_path / "run", "training.source.data.evaluate", 1, idle) == signal.SIGKILL
    train(scenes(folder), tmp_path / "run", **idle, resume=True, progress=lambda _: pytest.fail("another epoch"))
    assert len(history(tmp_path / "run")) == 2
    assert is_the_same(tmp_path / "run", tmp_path / "whole")


def test_what_was_left_open_is_settled_once(folder, tmp_path, monkeypatch):
    left_open = OPTIONS | {"training": replace(OPTIONS["training"], learning_rate="auto", batch_size="auto")}
    assert (
        ends_by(train_and_die, folder, tmp_path / "run", "training.source.data.evaluate", 1, left_open)
        == signal.SIGKILL
    )
    settled = json.loads((tmp_path / "run.unfinished" / "started.json").read_text())["settled"]["training"]
    monkeypatch.setattr("geounet.training.run.settle", lambda *_, **__: pytest.fail("tried again"))
    run = train(scenes(folder), tmp_path / "run", **left_open, resume=True)
    options = json.loads((run.folder / "run.json").read_text())["options"]["training"]
    assert (options["learning_rate"], options["batch_size"]) == (settled["learning_rate"], settled["batch_size"])
    assert len(run.searches) == 2


def test_what_is_searched_for_leaves_no_trace_in_what_is_learnt(folder, tmp_path):
    options = OPTIONS | {"sampler": Sampling(chip_size=16, chips_per_epoch=40, seed=5)}
    left_open = Fitting(epochs=1, batch_size="auto", learning_rate="auto", ema=0.8, device="cpu", precision="fp32")
    searched = train(scenes(folder), tmp_path / "searched", **options | {"training": left_open})
    found = searched.plan.training
    stated = train(scenes(folder), tmp_path / "stated", **options | {"training": found})
    assert (found.batch_size, found.learning_rate) == tuple(search.chosen for search in searched.searches)
    assert searched.history[0]["loss"] == stated.history[0]["loss"]
    assert all(
        torch.equal(one, other)
        for one, other in zip(searched.model.state_dict().values(), stated.model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", ["write_text", "write_bytes"])
def test_a_full_disk_is_one_message_and_no_epoch_is_lost(folder, two_epochs, monkeypatch, name):
    def fail(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(f"pathlib.Path.{name}", fail)
    with pytest.raises(OutputError, match=r"no room left.*--resume"):
        train(scenes(folder), two_epochs, **OPTIONS, resume=True)
    assert epochs_in(two_epochs.with_name("run.unfinished") / "checkpoint.pt") >= 2


def test_epochs_are_not_dropped_unless_that_is_asked_for(folder, two_epochs):
    with pytest.raises(OutputExistsError, match=r"2 epochs of it are in .*Go on .*--resume.*begin anew \(-f\)"):
        train(scenes(folder), two_epochs, **OPTIONS)
    epochs = []
    train(scenes(folder), two_epochs, **OPTIONS, overwrite=True, progress=epochs.append)
    assert len(epochs) == EPOCHS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": replace(OPTIONS["training"], epochs=9)}, "training.epochs was 4 and is 9"),
        ({"sampler": replace(OPTIONS["sampler"], seed=6)}, "sampler.seed was 5 and is 6"),
        ({"model": Network(depth=2, width=2)}, r"model\.depth was 1 and is 2; model\.dropout was 0\.3 and is 0\.0"),
    ],
)
def test_another_training_does_not_go_on_from_these_epochs(folder, two_epochs, options, message):
    with pytest.raises(ConfigError, match=message):
        train(scenes(folder), two_epochs, **OPTIONS | options, resume=True)
    assert epochs_in(two_epochs.with_name("run.unfinished") / "checkpoint.pt") == 2


def test_other_data_are_other_data(two_epochs, tmp_path):
    (tmp_path / "other").mkdir()
    write_raster(tmp_path / "other" / "train.tif", reflectance((48, 48), seed=9), bands=BANDS)
    write_raster(tmp_path / "other" / "train_truth.tif", np.full((48, 48), 80, np.uint8))
    with pytest.raises(ConfigError, match=r"data\.split\.train\.hash was .* and is"):
        train(scenes(tmp_path / "other"), two_epochs, **OPTIONS, resume=True)


def test_what_no_weight_depends_on_may_be_changed(folder, never_interrupted, two_epochs):
    smaller = {
        "sampler": replace(OPTIONS["sampler"], cache="none", ahead=1),
        "inference": replace(OPTIONS["inference"], batch_size=2),
        "card": Card(description="went on with less memory"),
    }
    train(scenes(folder), two_epochs, **OPTIONS | smaller, resume=True)
    assert history(two_epochs) == history(never_interrupted)


def test_a_finished_run_is_returned_unless_it_is_another(folder, never_interrupted):
    before = {path.name: path.stat().st_mtime_ns for path in never_interrupted.iterdir()}
    run = train(scenes(folder), never_interrupted, **OPTIONS, resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in never_interrupted.iterdir()} == before
    scores = json.loads((never_interrupted / "metrics.json").read_text())
    assert run.validation.report()["classes"] == scores["classes"]
    longer = OPTIONS | {"training": replace(OPTIONS["training"], epochs=9)}
    with pytest.raises(OutputExistsError, match=r"finished run of other options: training\.epochs was 4 and is 9"):
        train(scenes(folder), never_interrupted, **longer, resume=True)


@pytest.mark.parametrize("damage", ["cut off", "a bit flipped", "something else"])
def test_a_damaged_checkpoint_is_refused_and_kept(folder, two_epochs, damage):
    path = two_epochs.with_name("run.unfinished") / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    if damage == "a bit flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut off": content[:-100], "something else": b"\x80\x02}q\x00."}.get(damage, content))
    damaged = path.read_bytes()
    with pytest.raises(ModelFileError, match=r"checkpoint .* is damaged, .*begin anew \(-f\)"):
        train(scenes(folder), two_epochs, **OPTIONS, resume=True)
    assert path.read_bytes() == damaged


def test_a_training_that_is_going_on_is_left_alone(folder, never_interrupted, tmp_path):
    refused = []

    def train_again(_):
        for more in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputExistsError, match=rf"process {os.getpid()} on .* is training .* at this moment"):
                train(scenes(folder), tmp_path / "run", **OPTIONS, **more)
            refused.append(more)

    train(scenes(folder), tmp_path / "run", **OPTIONS, progress=train_again)
    assert len(refused) == 3 * EPOCHS
    assert is_the_same(tmp_path / "run", never_interrupted)


@pytest.mark.parametrize("more", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_that_only_has_the_name_is_left_alone(folder, tmp_path, more):
    (tmp_path / "run.unfinished").mkdir()
    (tmp_path / "run.unfinished" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="holds something else"):
        train(scenes(folder), tmp_path / "run", **OPTIONS, **more)
    assert [path.name for path in (tmp_path / "run.unfinished").iterdir()] == ["thesis.txt"]


def test_notes_that_somebody_puts_beside_the_epochs_stay(folder, two_epochs):
    note = two_epochs.with_name("run.unfinished") / "note.txt"
    note.write_text("looks good so far")
    train(scenes(folder), two_epochs, **OPTIONS, resume=True)
    assert {path.name for path in note.parent.iterdir()} == {"note.txt", "lock"}  # and can be trained in again
    assert note.read_text() == "looks good so far"


def test_the_run_before_stands_until_the_interrupted_one_is_whole(folder, never_interrupted, tmp_path):
    out, options = tmp_path / "run", OPTIONS | {"training": replace(OPTIONS["training"], epochs=1)}
    before = train(scenes(folder), out, **options).model.hash
    assert (
        ends_by(train_and_die, folder, out, "training.epochs.task.Task.training_step", 8, OPTIONS | {"overwrite": True})
        == 9
    )
    assert json.loads((out / "run.json").read_text())["model"]["hash"] == before
    train(scenes(folder), out, **OPTIONS, resume=True)  # that it may replace it was said in the beginning
    assert is_the_same(out, never_interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_ctrl_c_keeps_the_epochs_and_says_how_to_go_on(folder, never_interrupted, tmp_path, caplog):
    def press_ctrl_c(epoch):
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        train(scenes(folder), tmp_path / "run", **OPTIONS, progress=press_ctrl_c)
    assert f"2 epochs are kept in {tmp_path / 'run.unfinished'}" in caplog.text
    assert "--resume" in caplog.text
    assert len(history(tmp_path / "run.unfinished")) == 3
    train(scenes(folder), tmp_path / "run", **OPTIONS, resume=True)
    assert is_the_same(tmp_path / "run", never_interrupted)


def test_the_command_goes_on_too_and_can_be_given_again(folder, tmp_path):
    scenes(folder)
    values = {
        "scenes": {"train": str(folder / "train.tif"), "validate": str(folder / "validate.tif"), "leaks": "allow"},
        "labels": {"path": str(folder / "{stem}_truth.tif"), "legend": {10: "land", 80: "water"}},
        "sampler": {"chip_size": 16, "chips_per_epoch": 8},
        "model": {"depth": 1, "width": 2},
        "training": {"epochs": 3, "batch_size": 4, "learning_rate": 0.01, "device": "cpu"},
        "inference": {"chip_size": 32, "backend": "torch", "device": "cpu"},
    }
    (tmp_path / "ponds.yaml").write_text(yaml.safe_dump(values))
    runs = {name: str(tmp_path / name) for name in ("whole", "run")}

    def command(name, *more):
        return ["train", str(tmp_path / "ponds.yaml"), "-o", runs[name], *more]

    assert CliRunner().invoke(main, command("whole", "--resume")).exit_code == 0
    assert ends_by(command_and_die, command("run"), "training.epochs.task.Task.training_step", 6) == signal.SIGKILL
    refused = CliRunner().invoke(main, command("run"))
    assert refused.exit_code == 1
    assert "2 epochs of it are in" in refused.stderr
    for _ in range(2):
        result = CliRunner().invoke(main, command("run", "--resume"))
        assert result.exit_code == 0, result.output
        assert f"{runs['run']}/model.safetensors" in result.stdout
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in runs]
    assert models[0] == models[1]
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_difference_is_named():
    then = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert differences(then, {"a": {"b": 2, "c": [1, 2]}, "e": None}) == ["a.b was 1 and is 2", "d was 1 and is null"]


def test_all_that_weights_depend_on_is_compared():
    learning = Sections(training=Fitting(epochs=7)).learning()
    assert learning["training"]["epochs"] == 7
    assert "cache_gb" not in learning["sampler"]
    assert learning["inference"] == learning["card"] == {}
