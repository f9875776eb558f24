"""What a person is shown of a training is what happened in it, and looking changes nothing."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from geounet.core.legend import IGNORE, Legend
from geounet.core.metrics import Confusion
from geounet.nn.augment import Compose
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.training import Augmentation, Fitting, Network, PairSource, Sampling, train
from geounet.training.outcome.examples import INPUTS, SAMPLED, SIDE, WORST, _scored, _View
from geounet.training.source.batches import Batches
from tests.making import BANDS, pixel_model, reflectance, write_raster

LEGEND = Legend.of({10: "land", 80: "water"})
SHORT = {
    "sampler": Sampling(chip_size=16, chips_per_epoch=24, seed=5),
    "model": Network(depth=1, width=2),
    "augment": Augmentation(gain=0.2, cutmix=0.5, noise=0.1),
    "training": Fitting(epochs=2, batch_size=8, device="cpu"),
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")

    def labelled(name, seed, shape):
        pixels = reflectance(shape, seed=seed)
        truth = np.where(pixels[3] < 1500, 80, 10).astype(np.uint8)
        pixels[:, :20, :20] = -9999
        scene = open_scene(write_raster(folder / f"{name}.tif", pixels, bands=BANDS, nodata=-9999))
        return Pair(scene, open_labels(write_raster(folder / f"{name}_truth.tif", truth), scene.grid, LEGEND))

    return {"train": [labelled("a", 1, (48, 48))], "validate": [labelled("b", 2, (40, 50)), labelled("c", 3, (16, 64))]}


def made(masks, images=None, size=3):
    """Batches of masks (N, H, W), and of images whose first pixel tells their number."""
    images = np.zeros((len(masks), 1, *masks.shape[1:]), np.float32) if images is None else images

    def batches(_):
        for start in range(0, len(masks), size):
            part = slice(start, start + size)
            yield {"image": torch.from_numpy(images[part]), "mask": torch.from_numpy(masks[part].astype(np.int64))}

    return Batches(batches, -(-len(masks) // size))


def scored(masks, images=None, seed=0, size=3):
    model = pixel_model(("pan",), ("land", "water"), mean=0.0, std=1.0)
    view = _View((0,), IGNORE, np.dtype(np.uint8))
    return _scored(view, model, made(masks, images, size), np.random.default_rng(seed), CPU)


def test_looking_changes_no_weight(pairs, tmp_path, monkeypatch):
    seen = train(pairs, tmp_path / "seen", **SHORT)
    monkeypatch.setattr("geounet.training.outcome.scoring.gather", lambda *_, **__: None)
    unseen = train(pairs, tmp_path / "unseen", **SHORT)
    assert seen.examples is not None
    assert unseen.examples is None
    assert seen.model.hash == unseen.model.hash


def test_inputs_are_the_very_chips_that_the_first_steps_learnt_from(pairs, tmp_path, monkeypatch):
    steps = []
    whole = Compose.__call__

    def watched(self, image, labels, generator):
        steps.append(whole(self, image, labels, generator))
        return steps[-1]

    monkeypatch.setattr(Compose, "__call__", watched)
    run = train(pairs, tmp_path / "run", **SHORT)
    images, masks = (torch.cat([step[part] for step in steps[:2]])[:INPUTS].numpy() for part in (0, 1))
    assert run.examples.bands == ("red", "green", "blue")
    assert len(run.examples.inputs) == INPUTS
    for shown, image, mask in zip(run.examples.inputs, images, masks, strict=True):
        assert_array_equal(shown.image, image[[2, 1, 0]])
        assert_array_equal(shown.labels, mask)
        assert_array_equal(shown.valid, np.isfinite(image).any(axis=0))


def test_validation_chips_are_where_they_say_and_scored_by_the_model_that_is_kept(pairs, tmp_path):
    run = train(pairs, tmp_path / "run", **SHORT)
    by_name = {pair.scene.source: pair for pair in pairs["validate"]}
    for one in (*run.examples.worst, *run.examples.sampled):
        pair = by_name[one.place.name]
        chip = pair.scene.read(one.place.window)
        height, width = chip.valid.shape  # less than the window where that sticks out
        inside = np.s_[:height, :width]
        assert_array_equal(one.valid[inside], chip.valid)
        assert_array_equal(one.image[0][inside][chip.valid], chip.pixels[2][chip.valid])
        with torch.no_grad():
            image = np.where(chip.valid, chip.pixels, np.nan).astype(np.float32)
            padded = np.full((len(BANDS), 16, 16), np.nan, np.float32)
            padded[:, :height, :width] = image
            ids = run.model(torch.from_numpy(padded)[None]).argmax(1)[0].numpy()
        assert_array_equal(one.predicted, np.where(one.valid, ids, IGNORE))
        assert one.confusion.counts.tolist() == Confusion.of(one.labels, one.predicted, 2).counts.tolist()
    assert [one.wrong for one in run.examples.worst] == sorted((one.wrong for one in run.examples.worst), reverse=True)


@given(st.lists(st.integers(0, 16), max_size=30), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_the_worst_are_those_with_most_wrong_pixels_and_of_equals_the_first(wrong, size):
    answer = int(scored(np.zeros((1, 4, 4), np.uint8))[1][0].predicted[0, 0])  # what the model says of zeros
    masks = np.full((len(wrong), 16), answer)
    for mask, count in zip(masks, wrong, strict=True):
        mask[:count] = 1 - answer
    worst, _ = scored(masks.reshape(-1, 4, 4), size=size)
    expected = sorted((place for place, count in enumerate(wrong) if count), key=lambda place: -wrong[place])[:WORST]
    assert [one.place.name for one in worst] == [f"chip {place + 1}" for place in expected]
    assert [one.wrong for one in worst] == [wrong[place] for place in expected]


def test_the_sample_is_fair():
    chips, draws = 15, 300
    masks = np.zeros((chips, 1, 1), np.uint8)
    drawn = Counter(one.place.name for seed in range(draws) for one in scored(masks, seed=seed, size=chips)[1])
    expected = draws * SAMPLED / chips  # 120, give or take 8.5
    assert len(drawn) == chips
    assert all(abs(count - expected) < 4 * 8.5 for count in drawn.values())
    order = [int(one.place.name.split()[1]) for one in scored(masks)[1]]
    assert order == sorted(order)


def test_chips_without_labels_are_not_shown_and_their_numbers_are_kept():
    masks = np.full((4, 2, 2), IGNORE)
    masks[2] = 0
    worst, sampled = scored(masks)
    assert [one.place.name for one in sampled] == ["chip 3"]
    assert len(worst) <= 1
    assert scored(np.full((4, 2, 2), IGNORE)) == ((), ())


def test_large_chips_are_thinned_after_scoring_and_do_not_hold_their_batch():
    side = 3 * SIDE - 1
    masks = np.zeros((1, side, side), np.uint8)
    image = np.arange(side * side, dtype=np.float32).reshape(1, 1, side, side)
    worst, sampled = scored(masks, image)
    (one,) = sampled
    assert one.image.shape == (1, SIDE, SIDE)
    assert one.labels.shape == one.predicted.shape == one.valid.shape == (SIDE, SIDE)
    assert one.confusion.counts.sum() == side * side
    assert_array_equal(one.image[0], image[0, 0, 1::3, 1::3])
    for held in (one.image, one.labels, one.predicted, one.valid):
        assert held.base is None or held.base.nbytes <= held.nbytes
    assert len(worst) <= 1


def test_a_pass_read_again_does_not_count_as_one(pairs):
    sampler = SHORT["sampler"]
    source = PairSource(pairs)
    batches = source.batches(source.survey(sampler), sampler, 8)
    first = next(iter(batches))["image"]
    again, places = next(iter(batches.placed()))
    torch.testing.assert_close(again["image"], first, equal_nan=True)
    assert len(places) == 8
    assert not torch.equal(next(iter(batches))["image"].nan_to_num(), first.nan_to_num())  # the second pass
