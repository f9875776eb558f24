"""Training learns what can be learnt, repeats itself, and writes down what it did."""

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from numpy.testing import assert_array_equal

import geounet
from geounet.core.legend import Legend
from geounet.errors import ConfigError, DeviceError, OutputError, OutputExistsError
from geounet.evaluation import evaluate
from geounet.nn.augment import Compose
from geounet.nn.losses import DiceCrossEntropy
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair, plan_grid, read_batch
from geounet.raster.scene import open_scene
from geounet.training import (
    Augmentation,
    Card,
    Epochs,
    Fitting,
    Inference,
    Loss,
    Network,
    PairSource,
    Sampling,
    Task,
    to_tensors,
    train,
)
from geounet.training.epochs.loop import fit
from geounet.training.network.building import met
from geounet.training.outcome.folder import put
from tests.making import BANDS, reflectance, unet_model, write_raster

LEGEND = Legend.of({10: "land", 80: "water"})
SMALL = {
    "sampler": Sampling(chip_size=32, chips_per_epoch=96, seed=5),
    "model": Network(depth=2, width=4),
    "training": Fitting(epochs=10, batch_size=8, learning_rate=1e-2),
    "card": Card(name="ponds", data="made up", unit="reflectance × 10000"),
}
TINY = {
    "sampler": Sampling(chip_size=32, chips_per_epoch=8, seed=5),
    "model": Network(depth=1, width=2),
    "training": Fitting(epochs=1, batch_size=8),
}


def labelled(folder, name, seed, shape=(96, 96)):
    """A scene where water is what is dark in the near infrared, with a nodata corner."""
    pixels = reflectance(shape, seed=seed)
    truth = np.where(pixels[3] < 1500, 80, 10).astype(np.uint8)
    pixels[:, :12, :12] = -9999
    scene = open_scene(write_raster(folder / f"{name}.tif", pixels, bands=BANDS, nodata=-9999))
    return Pair(scene, open_labels(write_raster(folder / f"{name}_truth.tif", truth), scene.grid, LEGEND))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return {
        "train": [labelled(folder, "a", 1), labelled(folder, "b", 2)],
        "validate": [labelled(folder, "c", 3, (80, 100))],
        "test": [labelled(folder, "d", 4)],
    }


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    return train(pairs, tmp_path_factory.mktemp("runs") / "ponds", **SMALL)


@pytest.fixture
def nothing_is_read(monkeypatch):
    def fail(*_):
        pytest.fail("the scenes are read already")

    monkeypatch.setattr("geounet.training.source.data.survey", fail)


def test_what_a_pixel_tells_is_learnt(run):
    assert run.validation.miou > 0.9
    assert run.history[-1]["loss"] < run.history[0]["loss"] / 2


def test_the_run_folder_holds_model_scores_and_history(run):
    assert {p.name for p in run.folder.iterdir()} == {
        "model.safetensors", "metrics.json", "metrics_test.json", "history.csv", "run.json",
    }  # fmt: skip
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["classes"].keys() == {"land", "water"}
    assert metrics["pixels"] + metrics["ignored"] == 80 * 100
    header, *rows = (run.folder / "history.csv").read_text().splitlines()
    assert header.startswith("epoch,loss,val_loss,val_miou")
    assert len(rows) == 10


def test_bands_values_classes_and_provenance_travel_with_the_weights(run, pairs):
    model = geounet.load(run.folder / "model.safetensors")
    assert model.band_names == BANDS
    assert model.legend == LEGEND
    assert model.pixel_size == pytest.approx(30)
    assert model.info.provenance["seed"] == 5
    assert model.info.provenance["split"]["train"]["scenes"] == 2
    assert model.info.provenance["metrics"]["test"]["pixels"] == 96 * 96 - 144
    values = np.concatenate([pair.scene.read(pair.scene.grid.window).pixels[3, 12:].ravel() for pair in pairs["train"]])
    nir = model.bands[3]
    assert nir.percentiles["50"] == pytest.approx(np.median(values), rel=0.05)
    assert nir.mean - 3 * nir.std > -9999


def test_the_saved_model_scores_on_whole_scenes_what_validation_said(run, pairs):
    again = evaluate(geounet.load(run.folder / "model.safetensors"), pairs["validate"])
    assert_array_equal(again.confusion.counts, run.validation.confusion.counts)
    best = max(row["val_miou"] for row in run.history)
    assert again.miou == pytest.approx(best, abs=0.02)  # chips of 32 see less around them than the whole


def test_equal_seeds_give_equal_models_and_others_do_not(pairs, tmp_path):
    short = SMALL | {"training": replace(SMALL["training"], epochs=2)}
    once, twice = (train(pairs, tmp_path / name, **short).model for name in ("one", "two"))
    other = train(
        pairs, tmp_path / "three", **short | {"sampler": Sampling(chip_size=32, chips_per_epoch=96, seed=6)}
    ).model
    for name, weight in once.network.state_dict().items():
        assert_array_equal(weight.numpy(), twice.network.state_dict()[name].numpy())
    assert any(
        not torch.equal(weight, other.network.state_dict()[name]) for name, weight in once.network.state_dict().items()
    )


def test_training_leaves_the_callers_chance_alone(pairs, tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    train(pairs, tmp_path / "run", **SMALL | {"training": Fitting(epochs=1, batch_size=8)})
    assert torch.equal(torch.rand(1), expected)


def test_the_best_epoch_is_kept_and_patience_ends_a_training(pairs, tmp_path):
    epochs = []
    options = SMALL | {"training": Fitting(epochs=40, batch_size=8, learning_rate=5e-3, patience=2)}
    result = train(pairs, tmp_path / "run", **options, progress=epochs.append)
    scores = [epoch.values["val_miou"] for epoch in epochs]
    best = int(np.argmax(scores)) + 1
    assert len(epochs) == best + 2 < 40
    assert result.model.info.provenance["best_epoch"] == best
    assert [epoch.epoch for epoch in epochs if epoch.best][-1] == best


def test_the_moving_average_is_what_is_kept(pairs, tmp_path):
    options = {"epochs": 2, "batch_size": 8, "keep": "last"}
    plain = train(pairs, tmp_path / "plain", **SMALL | {"training": Fitting(**options)}).model
    slow = train(pairs, tmp_path / "slow", **SMALL | {"training": Fitting(**options, ema=0.999)}).model
    first = train(
        pairs, tmp_path / "first", **SMALL | {"training": Fitting(**options | {"learning_rate": 1e-12})}
    ).model

    def distance(model):
        pairs_ = zip(model.network.parameters(), first.network.parameters(), strict=True)
        return sum(float((a - b).detach().square().sum()) for a, b in pairs_)

    assert 0 < distance(slow) < distance(plain) / 4


def test_nodata_reaches_neither_statistics_nor_loss_nor_gradient(pairs):
    batch = to_tensors(read_batch(pairs["train"], plan_grid(pairs["train"], 96)))
    assert torch.isnan(batch["image"][:, :, :12, :12]).all()
    assert (batch["mask"][:, :12, :12] == 255).all()
    model = unet_model(depth=2)
    logits = model(batch["image"])
    logits.retain_grad()
    loss = DiceCrossEntropy(class_weights=[1.0, 1.0])(logits, batch["mask"])
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad[:, :, :12, :12] == 0).all()
    assert (logits.grad[:, :, 12:, 12:] != 0).any()


def test_a_batch_without_a_label_has_a_finite_loss_and_moves_nothing():
    model = unet_model(depth=2)
    task = Task(model, DiceCrossEntropy(), Compose([]), Fitting(), seed=0)
    batch = {"image": torch.full((2, 6, 16, 16), torch.nan), "mask": torch.full((2, 16, 16), 255)}
    loss = task.training_step(batch, 0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in model.network.parameters())


def test_each_epoch_draws_anew_and_equal_seeds_draw_alike(pairs):
    one, two = (Epochs(pairs["train"], Sampling(chip_size=32, chips_per_epoch=8, seed=1), 4) for _ in range(2))
    first, second = (torch.cat([b["image"] for b in one]) for _ in range(2))
    assert not torch.equal(first.nan_to_num(), second.nan_to_num())
    assert torch.equal(first.nan_to_num(), torch.cat([b["image"] for b in two]).nan_to_num())


def test_an_existing_run_folder_is_refused(pairs, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputExistsError, match="exists already"):
        train(pairs, tmp_path / "run", **SMALL)


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("beside", ["thesis.txt", "model.safetensors", "run.json"])
def test_a_folder_that_is_no_run_is_never_overwritten(pairs, tmp_path, beside):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / beside).write_text("years of work")
    with pytest.raises(OutputExistsError, match="home holds something else than a run"):
        train(pairs, tmp_path / "home", **SMALL, overwrite=True)
    assert (tmp_path / "home" / beside).read_text() == "years of work"


@pytest.mark.usefixtures("nothing_is_read")
def test_where_no_folder_can_be_made_none_is_tried_for_ever(pairs, tmp_path, monkeypatch):
    """As in /proc, or on a drive that is not there."""
    make = Path.mkdir

    def refuse(path, *args, **options):
        if path.parent == tmp_path:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        make(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"cannot make the folder .*run \(No such file or directory\); name another"):
        train(pairs, tmp_path / "run", **TINY)


@pytest.mark.parametrize(("out", "message"), [("file", "file is a file"), ("file/run", "cannot make the folder")])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(pairs, tmp_path, out, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=message):
        train(pairs, tmp_path / out, **SMALL, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_earlier_run_is_replaced_when_the_new_one_is_whole(pairs, tmp_path):
    out = tmp_path / "run"
    train(pairs, out, **TINY)
    (out / "curves.png").write_text("of the first")
    hashes = []

    def look(folder, run):
        assert (out / "curves.png").exists()  # the first stands until the second is whole
        assert run.folder == out != folder
        assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "run.json", "metrics.json"}
        (folder / "more.txt").write_text("of the second")
        hashes.append(run.model.hash)

    train(pairs, out, **TINY | {"sampler": replace(TINY["sampler"], seed=9)}, overwrite=True, finish=look)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (out / "curves.png").exists()
    assert (out / "more.txt").exists()
    assert [geounet.load(out / "model.safetensors").hash] == hashes


def test_an_earlier_run_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(name)
    rename = Path.rename

    def refuse_the_new(path, target):
        if path.name == "new":
            assert (tmp_path / "aside" / "run.json").read_text() == "old"
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    with pytest.raises(OSError, match="no"):
        put(tmp_path / "new", tmp_path / "old", tmp_path / "aside")
    assert (tmp_path / "old" / "run.json").read_text() == "old"


def test_a_training_that_stops_midway_leaves_the_earlier_run_and_nothing_else(pairs, tmp_path):
    out = tmp_path / "run"
    before = train(pairs, out, **TINY).model.hash
    handler = signal.getsignal(signal.SIGINT)

    def press_ctrl_c(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(pairs, out, **TINY, overwrite=True, progress=press_ctrl_c)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert geounet.load(out / "model.safetensors").hash == before


def test_what_fails_after_the_last_epoch_does_not_cost_the_model(pairs, tmp_path, caplog, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("geounet.training.source.data.evaluate", fail)
    with pytest.raises(MemoryError):
        train(pairs, tmp_path / "run", **TINY)
    (kept,) = tmp_path.iterdir()
    assert kept.name == "run.unfinished"
    assert f"1 epochs are kept in {kept}" in caplog.text
    assert geounet.load(kept / "run" / "model.safetensors").band_names == BANDS


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"inference": Inference(device="cuda:99")}, DeviceError, "no device cuda:99", id="to map on"),
        pytest.param({"training": Fitting(device="cuda:99")}, DeviceError, "no device cuda:99", id="to train on"),
        pytest.param({"training": Fitting(epochs=0)}, ConfigError, r"training\.epochs: .*not 0", id="no epochs"),
        pytest.param({"loss": Loss(dice=-1)}, ConfigError, r"loss\.dice: .*not -1", id="a negative weight"),
    ],
)
def test_what_could_only_fail_at_the_end_is_refused_before_the_first_epoch(pairs, tmp_path, options, error, message):
    epochs = []
    with pytest.raises(error, match=message):
        train(pairs, tmp_path / "run", **TINY | options, progress=epochs.append)
    assert epochs == []
    assert list(tmp_path.iterdir()) == []


def test_scenes_of_strange_values_or_without_a_label_are_scored_as_they_are(pairs, tmp_path):
    bright = open_scene(write_raster(tmp_path / "bright.tif", np.full((6, 40, 40), 9e6, np.float32), bands=BANDS))
    void = open_labels(
        write_raster(tmp_path / "void.tif", np.full((40, 40), 255, np.uint8), nodata=255), bright.grid, LEGEND
    )
    result = train({**pairs, "test": [Pair(bright, void)]}, tmp_path / "run", **TINY)
    assert result.test.confusion.counts.sum() == 0
    assert result.model.info.provenance["metrics"]["test"] == {"iou": {}, "accuracy": None, "pixels": 0}


def test_the_hash_of_the_data_covers_scenes_and_labels_of_each_split(pairs, tmp_path):
    def hashes(name):
        about = train(pairs_, tmp_path / name, **TINY).model.info.provenance
        return about["data_hash"], {split: facts["hash"] for split, facts in about["split"].items()}

    pairs_ = {"train": [labelled(tmp_path, "a", 1)], "validate": pairs["validate"]}
    first = hashes("one")
    assert hashes("two") == first
    with rasterio.open(tmp_path / "a_truth.tif", "r+") as labels:
        codes = labels.read(1)
        codes[50, 50] = 90 - codes[50, 50]  # land becomes water, water land
        labels.write(codes, 1)
    second = hashes("three")
    assert second[0] != first[0]
    assert second[1]["train"] != first[1]["train"]
    assert second[1]["validate"] == first[1]["validate"]


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_torchs_switches_are_left_as_they_were(pairs, tmp_path, monkeypatch, workspace):
    if workspace is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    else:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    train(pairs, tmp_path / "run", **TINY)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.backends.cudnn.benchmark
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == workspace


def test_the_second_gpu_is_the_second_gpu(monkeypatch):
    told = {}

    class Trainer:
        def __init__(self, **options):
            told.update(options)

        def fit(self, *_, **__):
            pass

    monkeypatch.setattr("geounet.training.epochs.loop.lightning.Trainer", Trainer)
    task = Task(unet_model(depth=1), DiceCrossEntropy(), Compose([]), Fitting(), seed=0)
    fit(task, [], [], torch.device("cuda:1"), "bf16", None)
    assert (told["accelerator"], told["devices"], told["precision"]) == ("cuda", [1], "bf16-mixed")


def test_the_validation_loss_is_that_of_a_pixel_whatever_the_batches(pairs, tmp_path):
    pixels = reflectance((32, 96), seed=8)
    pixels[:, :, :40] = -9999  # the first chip of three is empty, the second has fewer pixels than the third
    scene = open_scene(write_raster(tmp_path / "c.tif", pixels, bands=BANDS, nodata=-9999))
    truth = (reflectance((32, 96), seed=8)[3] < 1500) * 70 + 10
    labels = open_labels(write_raster(tmp_path / "t.tif", truth.astype(np.uint8)), scene.grid, LEGEND)
    options = TINY | {
        "training": Fitting(epochs=1, batch_size=1, keep="last", precision="fp32"),
        "loss": Loss(dice=0, class_weights="none"),
    }
    result = train({"train": pairs["train"], "validate": [Pair(scene, labels)]}, tmp_path / "run", **options)
    batch = to_tensors(read_batch([Pair(scene, labels)], plan_grid([Pair(scene, labels)], 32)))
    with torch.no_grad():
        logits = result.model(batch["image"])
    expected = torch.nn.functional.cross_entropy(logits, batch["mask"], ignore_index=255)
    assert result.history[0]["val_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_nothing_to_validate_with_is_said(pairs, tmp_path):
    with pytest.raises(ConfigError, match="no scenes to validate"):
        train({"train": pairs["train"]}, tmp_path / "run", **SMALL)


def test_scenes_with_other_bands_are_refused(pairs, tmp_path):
    other = Pair(pairs["train"][0].scene.select(["red", "nir"]), pairs["train"][0].labels)
    with pytest.raises(ConfigError, match=r"has bands red, nir, but .* has blue, green"):
        train({**pairs, "train": [pairs["train"][1], other]}, tmp_path / "run", **SMALL)


def test_a_legend_of_one_class_is_refused(pairs, tmp_path):
    alone = Legend.of({80: "water"})
    scene = pairs["train"][0].scene
    pair = Pair(scene, open_labels(pairs["train"][0].labels.source, scene.grid, alone, unknown="ignore"))
    with pytest.raises(ConfigError, match=r"one class \(water\).*labels\.background"):
        train({"train": [pair], "validate": [pair]}, tmp_path / "run", **SMALL)


def test_scenes_without_a_label_are_refused_before_any_epoch(pairs, tmp_path):
    scene = pairs["train"][0].scene
    path = write_raster(tmp_path / "void.tif", np.full((96, 96), 255, np.uint8), nodata=255)
    empty = Pair(scene, open_labels(path, scene.grid, LEGEND))
    with pytest.raises(ConfigError, match="no valid, labelled pixel"):
        train({**pairs, "train": [empty]}, tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_class_weights_are_those_of_the_chips_drawn(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.full((256, 256), 10, np.uint8)
    for row, col in rng.integers(0, 246, (12, 2)):
        truth[row : row + 10, col : col + 10] = 80
    scene = open_scene(write_raster(tmp_path / "a.tif", reflectance((256, 256)), bands=BANDS))
    pair = Pair(scene, open_labels(write_raster(tmp_path / "truth.tif", truth), scene.grid, LEGEND))
    rare = (truth == 80).mean()
    sampling = Sampling(chip_size=16, chips_per_epoch=512, shares={"water": 0.2})
    source = PairSource({"train": [pair], "validate": [pair]})
    seen = source.survey(sampling)
    counts = met(seen.counts, source.batches(seen, sampling, 8))
    assert rare < 0.02
    assert counts.counts[1] / counts.counts.sum() == pytest.approx(0.2, rel=0.1)
    assert counts.weights("inverse") == pytest.approx([0.4, 1.6], rel=0.1)  # 1/0.8 and 1/0.2, to a mean of 1


def test_a_training_takes_any_sum_of_losses_and_all_augmentation_and_still_learns(pairs, tmp_path):
    result = train(
        pairs, tmp_path / "run", sampler=SMALL["sampler"], model=SMALL["model"],
        training=Fitting(epochs=8, batch_size=8, learning_rate=1e-2),
        loss=Loss(dice=0.0, cross_entropy=0.5, focal=0.5, lovasz=0.5, tversky=0.5, per="sample"),
        augment=Augmentation(
            scale=0.2, rotation=20, translation=0.1, shear=0.1, elastic=1.0, warp_share=0.5, brightness=0.05,
            contrast=0.05, gamma=0.05, noise=0.05, band_dropout=0.05, cutmix=0.3,
        ),
    )  # fmt: skip
    assert result.validation.miou > 0.75
    options = json.loads((result.folder / "run.json").read_text())["options"]
    assert options["loss"]["lovasz"] == 0.5
    assert options["augment"]["rotation"] == 20


def test_a_loss_without_a_term_is_refused():
    with pytest.raises(
        ConfigError, match="no loss has a weight, and nothing would be learnt: give one of cross_entropy"
    ):
        Loss(dice=0, cross_entropy=0)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(Network(architecture="unet++", depth=2, width=4), id="unet++"),
        pytest.param(Network(depth=2, width=4, convolutions="valid"), id="valid convolutions"),
        pytest.param(Network(depth=2, width=4, residual=True, sigmoid=True), id="residual, one channel"),
        pytest.param(Network(depth=2, width=4, initialisation="orthogonal"), id="orthogonal"),
        pytest.param(
            Network(encoder_name="resnet18", encoder_depth=3, decoder_channels=[16, 8, 8], differences=True),
            id="resnet18",
        ),
    ],
)
def test_any_network_of_the_family_learns_is_kept_and_maps(network, pairs, tmp_path):
    run = train(
        {"train": pairs["train"], "validate": pairs["validate"]}, tmp_path / "run", model=network,
        sampler=Sampling(chip_size=32, chips_per_epoch=64, seed=1),
        training=Fitting(epochs=10, batch_size=8, learning_rate=1e-2),
    )  # fmt: skip
    assert run.validation.miou > 0.75
    again = evaluate(geounet.load(run.folder / "model.safetensors"), pairs["validate"])
    assert_array_equal(again.confusion.counts, run.validation.confusion.counts)


def test_frozen_layers_stay_and_the_rest_learns(pairs, tmp_path):
    plain = Network(encoder_name="resnet18", encoder_depth=3, decoder_channels=[16, 8, 8])
    two = {"train": pairs["train"], "validate": pairs["validate"]}
    donor = train(two, tmp_path / "donor", **TINY | {"model": plain})
    weights = str(donor.folder / "model.safetensors")
    tuned = replace(plain, encoder_weights=weights, freeze_encoder=True)
    run = train(two, tmp_path / "tuned", **TINY | {"model": tuned})
    before, after = (dict(one.model.network.named_parameters()) for one in (donor, run))
    same = {name: torch.equal(weight, before[name]) for name, weight in after.items()}
    assert all(equal for name, equal in same.items() if name.startswith("encoder."))
    assert not all(equal for name, equal in same.items() if not name.startswith("encoder."))
    assert run.model.network.origin["source"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_weights": "imagenet"}, "encoder_weights need an encoder_name"),
        ({"encoder_name": "resnet18", "width": 16}, "width are of networks without an encoder"),
        ({"architecture": "unet++", "convolutions": "valid"}, r"valid convolutions are of the plain U-Net"),
    ],
)
def test_options_that_a_network_does_not_have_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Network(**options)
