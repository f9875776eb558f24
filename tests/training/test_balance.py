"""A rare class is learnt sooner from chips that show more of it."""

import numpy as np

from geounet.core.legend import Legend
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.training import Fitting, Loss, Network, Sampling, train
from tests.making import write_raster

LEGEND = Legend.of({1: "land", 2: "water", 3: "kiln"})
MEANS = np.array([[0, 0, 0], [1000, 1200, 800], [400, 300, 200], [1150, 1200, 1000]], float)
"""Red, nir and swir1 of each class; of noise as large as the difference of kilns to land."""


def labelled(folder, name, seed, shape=(256, 384), kilns=10, side=10):
    """Land with kilns on 1 % of the pixels, beside water."""
    rng = np.random.default_rng(seed)
    truth = np.ones(shape, np.uint8)
    truth[:, shape[1] * 2 // 3 :] = 2
    for _ in range(kilns):
        row, col = rng.integers(shape[0] - side), rng.integers(shape[1] // 2)
        truth[row : row + side, col : col + side] = 3
    pixels = MEANS[truth].transpose(2, 0, 1) + rng.normal(0, 250, (3, *shape))
    raster = write_raster(folder / f"{name}.tif", pixels.round().astype(np.int16), bands=["red", "nir", "swir1"])
    scene = open_scene(raster)
    return Pair(scene, open_labels(write_raster(folder / f"{name}_truth.tif", truth), scene.grid, LEGEND))


def recall(pairs, out, shares):
    """Recall of kilns after 96 steps."""
    run = train(
        pairs,
        out,
        sampler=Sampling(chip_size=32, chips_per_epoch=128, seed=0, shares=shares),
        model=Network(depth=2, width=8),
        loss=Loss(dice=0.0, class_weights="none"),
        training=Fitting(epochs=6, batch_size=8, learning_rate=5e-3, keep="last", precision="fp32"),
    )
    return run.validation.report()["classes"]["kiln"]["recall"]


def test_a_class_on_a_hundredth_of_the_ground_is_found_after_as_many_steps(tmp_path):
    made = [labelled(tmp_path, str(number), 100 + number) for number in range(4)]
    pairs = {"train": made[:3], "validate": made[3:]}
    uniform = recall(pairs, tmp_path / "uniform", None)
    balanced = recall(pairs, tmp_path / "balanced", {"kiln": 0.1})
    assert uniform < 0.2
    assert balanced > 0.6
