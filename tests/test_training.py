"""Training learns what can be learnt, repeats itself, and writes down what it did."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import geounet
from geounet.core.legend import Legend
from geounet.errors import ConfigError, OutputExistsError
from geounet.evaluation import evaluate
from geounet.nn.augment import Compose
from geounet.nn.losses import DiceCrossEntropy
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair, plan_grid, read_batch
from geounet.raster.scene import open_scene
from geounet.training import Card, Epochs, Fitting, Network, Sampling, Task, to_tensors, train
from tests.making import BANDS, reflectance, unet_model, write_raster

LEGEND = Legend.of({10: "land", 80: "water"})
SMALL = {
    "sampler": Sampling(chip_size=32, chips_per_epoch=96, seed=5),
    "model": Network(depth=2, width=4),
    "training": Fitting(epochs=10, batch_size=8, learning_rate=1e-2),
    "card": Card(name="ponds", data="made up", unit="reflectance × 10000"),
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
    first = train(pairs, tmp_path / "first", **SMALL | {"training": Fitting(**options | {"learning_rate": 0.0})}).model

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


def test_nothing_to_validate_with_is_said(pairs, tmp_path):
    with pytest.raises(ConfigError, match="no scenes to validate"):
        train({"train": pairs["train"]}, tmp_path / "run", **SMALL)


def test_scenes_with_other_bands_are_refused(pairs, tmp_path):
    other = Pair(pairs["train"][0].scene.select(["red", "nir"]), pairs["train"][0].labels)
    with pytest.raises(ConfigError, match=r"has bands red, nir, but .* has blue, green"):
        train({**pairs, "train": [pairs["train"][1], other]}, tmp_path / "run", **SMALL)


def test_scenes_without_a_label_are_refused_before_any_epoch(pairs, tmp_path):
    scene = pairs["train"][0].scene
    path = write_raster(tmp_path / "void.tif", np.full((96, 96), 255, np.uint8), nodata=255)
    empty = Pair(scene, open_labels(path, scene.grid, LEGEND))
    with pytest.raises(ConfigError, match="no valid, labelled pixel"):
        train({**pairs, "train": [empty]}, tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()
