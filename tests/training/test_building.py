"""Bands are brought to one scale as asked; what is tried before a training leaves no trace in it."""

import json
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import geounet
from geounet.core.legend import Legend
from geounet.core.stats import BandStats
from geounet.nn.features import GAIN
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.training import Augmentation, Card, Fitting, Network, PairSource, Sampling, train
from geounet.training.network.building import FADE, augmenter, untrained
from geounet.training.network.scaling import normalised_by, tails
from geounet.training.plan.settling import _Trial
from tests.making import write_raster

LEGEND = Legend.of({10: "land", 80: "water"})
BOTH = [True, True]
RULES = ("standardise", "robust", "common", "none")


def test_a_robust_scale_is_the_median_and_the_middle_ninety_percent():
    """0, 1, …, 100: from 5 to 95, which are 3.2897 deviations of a normal distribution apart."""
    shift, scale = normalised_by(BandStats.of(np.arange(101.0)[None]), "robust", [True])
    assert_allclose(shift, [50], rtol=0.01)
    assert_allclose(scale, [90 / 3.2897], rtol=0.02)  # quantiles are known to 1 %


def test_cloud_on_a_fiftieth_of_the_ground_moves_the_moments_and_not_the_robust_scale():
    ground = np.random.default_rng(0).normal(1000, 100, 49_000)
    with_cloud = BandStats.of(np.concatenate([ground, np.full(1000, 9000.0)])[None])
    shift, scale = normalised_by(with_cloud, "robust", [True])
    assert_allclose(shift, [1000], rtol=0.02)
    assert_allclose(scale, [100], rtol=0.1)
    shift, scale = normalised_by(with_cloud, "standardise", [True])
    assert_allclose(shift, [1000 + 0.02 * 8000], rtol=0.01)
    assert_allclose(scale, [math.hypot(100, 8000 * math.sqrt(0.02 * 0.98))], rtol=0.01)
    assert tails(with_cloud)[0] > 10
    assert_allclose(tails(BandStats.of(ground[None])), [1], rtol=0.08)  # bins of 2 % of 1000 in a deviation of 100


def test_a_common_scale_is_the_mean_and_deviation_of_all_values_together():
    """8, 12 and 20, 20: mean 15, and (7² + 3² + 5² + 5²) / 4 = 27. A band of codes has no say."""
    stats = BandStats.of(np.array([[8.0, 12], [20, 20], [900, 901]]))
    shift, scale = normalised_by(stats, "common", [True, True, False])
    assert_allclose(shift[:2], [15, 15])
    assert_allclose(scale[:2], [math.sqrt(27)] * 2)


def test_a_band_whose_middle_is_of_one_value_is_scaled_by_the_deviation_of_all():
    stats = BandStats.of(np.array([[0.0] * 99 + [10]]))
    shift, scale = normalised_by(stats, "robust", [True])
    assert (shift[0], scale[0]) == (0, pytest.approx(math.sqrt(0.01 * 0.99) * 10))
    assert tails(BandStats.of(np.full((1, 5), 3.0)))[0] == 1


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Land and water, which is dark; a cloud in each."""
    folder = tmp_path_factory.mktemp("scenes")

    def pair(name, seed):
        rng = np.random.default_rng(seed)
        truth = np.where(rng.random((6, 6)) < 0.4, 80, 10).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        pixels = np.stack([np.where(truth == 80, 300, 1500), np.where(truth == 80, 500, 900)]) + rng.normal(
            0, 60, (2, 48, 48)
        )
        pixels[:, :6, :6] = 9000
        scene = open_scene(write_raster(folder / f"{name}.tif", pixels.round().astype(np.int16), bands=["nir", "red"]))
        return Pair(scene, open_labels(write_raster(folder / f"{name}_truth.tif", truth), scene.grid, LEGEND))

    return {"train": [pair("a", 1), pair("b", 2)], "validate": [pair("c", 3)]}


@pytest.fixture(scope="module")
def surveyed(pairs):
    source = PairSource(pairs)
    return source, source.survey(Sampling())


@pytest.mark.parametrize("rule", RULES)
def test_what_the_network_sees_is_shifted_and_scaled_by_the_rule(surveyed, rule):
    source, seen = surveyed
    model = untrained(source, seen, [0.5, 0.5], Network(depth=1, width=2, normalisation=rule), Card())
    shift, scale = normalised_by(seen.stats, rule, BOTH)
    assert_allclose([band.mean for band in model.bands], shift)
    assert_allclose([band.std for band in model.bands], scale)
    raw = torch.tensor([300.0, 700.0]).view(1, 2, 1, 1)
    assert_allclose(model.prepare(raw).ravel(), (np.array([300, 700]) - shift) / scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_differences_and_augmentation_go_by_the_bands_own_values_whatever_scales_them(surveyed, rule):
    source, seen = surveyed
    options = Network(depth=1, width=2, normalisation=rule, differences=True)
    model = untrained(source, seen, [0.5, 0.5], options, Card())
    centre = {"robust": [q[0] for q in seen.stats.quantiles([0.5])]}.get(rule, seen.stats.mean)
    floor = FADE * np.mean(centre)
    channels = model.prepare(torch.tensor([300.0, 700.0]).view(1, 2, 1, 1)).ravel()
    assert float(channels[2]) == pytest.approx(GAIN * (300 - 700) / (300 + 700 + floor), rel=1e-5)
    noisy = augmenter(Augmentation(flips_and_turns=False, noise=0.1), model, seen, options.rule)
    image, _ = noisy(torch.zeros(1, 2, 64, 64), torch.zeros(1, 64, 64), torch.Generator().manual_seed(0))
    own = {"robust": normalised_by(seen.stats, "robust", BOTH)[1]}.get(rule, seen.stats.std)
    assert_allclose(image.std(dim=(0, 2, 3)), 0.1 * own, rtol=0.05)


SHORT = {
    "sampler": Sampling(chip_size=16, chips_per_epoch=80, seed=3),
    "model": Network(depth=1, width=2, dropout=0.2, normalisation="robust"),
    "augment": Augmentation(noise=0.1, cutmix=0.5),
}


def weights(run):
    return run.model.network.state_dict()


def test_a_learning_rate_that_was_searched_for_trains_as_one_that_was_stated(pairs, tmp_path):
    torch.manual_seed(11)
    searched = train(
        pairs, tmp_path / "searched", **SHORT, training=Fitting(epochs=2, batch_size=4, learning_rate="auto")
    )
    after = torch.rand(1)
    (search,) = searched.searches
    stated = train(
        pairs, tmp_path / "stated", **SHORT, training=Fitting(epochs=2, batch_size=4, learning_rate=search.chosen)
    )
    assert stated.searches == ()
    for name, weight in weights(searched).items():
        assert_array_equal(weight.numpy(), weights(stated)[name].numpy())
    assert [row["loss"] for row in searched.history] == [row["loss"] for row in stated.history]
    torch.manual_seed(11)
    assert torch.equal(torch.rand(1), after)
    assert 1e-5 < search.chosen < 0.1
    assert min(search.smoothed) < search.smoothed[0]
    again = geounet.load(tmp_path / "searched" / "model.safetensors")
    assert again.info.provenance["normalisation"] == "robust"
    told = json.loads((tmp_path / "searched" / "run.json").read_text())
    assert told["options"]["training"]["learning_rate"] == search.chosen
    assert told["plan"]["choices"]["training.learning_rate"] == {"value": search.chosen, "why": search.why}


def test_a_batch_size_that_was_searched_for_trains_as_one_that_was_stated(pairs, tmp_path, monkeypatch):
    steps = []

    def seconds(trial, stock, size):
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        steps.append(float(trial.step({name: value[:size] for name, value in stock.items()}, 0.1)))
        return 1.0

    monkeypatch.setattr(_Trial, "seconds", seconds)
    searched = train(pairs, tmp_path / "searched", **SHORT, training=Fitting(epochs=1, batch_size="auto"))
    (search,) = searched.searches
    assert (search.sizes, search.too_large, search.chosen) == ((1, 2), 4, 2)
    assert len(steps) == 2
    stated = train(pairs, tmp_path / "stated", **SHORT, training=Fitting(epochs=1, batch_size=2))
    for name, weight in weights(searched).items():
        assert_array_equal(weight.numpy(), weights(stated)[name].numpy())


def test_speeds_are_measured_on_steps_that_are_real(pairs, tmp_path):
    run = train(pairs, tmp_path / "run", **SHORT, training=Fitting(epochs=1, batch_size="auto"))
    (search,) = run.searches
    assert search.sizes == (1, 2, 4)  # 80 chips make 20 steps of 4
    assert all(speed > 0 for speed in search.speeds)
    assert search.chosen in search.sizes


def test_all_that_is_left_open_is_settled_before_anything_is_learnt(pairs, tmp_path):
    plans = []
    options = {
        "sampler": Sampling(chip_size="auto", chips_per_epoch=8),
        "model": Network(normalisation="auto"),
        "training": Fitting(epochs=1, batch_size=4),
    }
    run = train(pairs, tmp_path / "run", **options, planned=plans.append)
    (made,) = plans
    assert (made.sampler.chip_size, made.model.depth, made.model.width, made.model.normalisation) == (
        32,
        1,
        16,
        "robust",
    )
    assert run.model.network.arguments["depth"] == 1
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "auto" not in [told["options"]["model"][key] for key in ("depth", "width", "normalisation")]
    assert told["plan"]["fingerprint"]["sides"] == [48, 48, 48]
