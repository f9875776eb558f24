"""The loop of `train` beside the bare one: steps on batches that are in memory already, measured in turns."""

from statistics import median

import numpy as np
import pytest

from tests.making import BANDS, reflectance, write_raster

LOOPS = """
import sys, time
from pathlib import Path
import torch
from geounet.core.legend import Legend
from geounet.nn.augment import Compose, CutMix, FlipsAndTurns, Radiometric
from geounet.nn.encoders import parameter_groups
from geounet.nn.losses import DiceCrossEntropy
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from geounet.nn.unet import UNet
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.training import Fitting, PairSource, Sampling, Task
from geounet.training.epochs.loop import fit

folder, precision, chips, rounds = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5])
legend = Legend.of({10: "land", 80: "water"})
def pair(name):
    scene = open_scene(folder / f"{name}.tif")
    return Pair(scene, open_labels(folder / f"{name}_truth.tif", scene.grid, legend))
source = PairSource({"train": [pair("a")], "validate": [pair("b")]})
sampler = Sampling(chip_size=64, chips_per_epoch=chips)
fitting = Fitting(epochs=1, batch_size=16, precision=precision)
seen = source.survey(sampler)
batches = source.batches(seen, sampler, fitting.batch_size)
validation = source.chips(sampler, fitting.batch_size)
spread = seen.stats.std.tolist()
bands = [BandInfo(*band) for band in zip(source.bands, seen.stats.mean.tolist(), spread)]
augment = Compose([FlipsAndTurns(), Radiometric(spread, gain=0.1, band_gain=0.05, offset=0.05), CutMix(0.3)])

class Timed(Task):
    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self.began = time.perf_counter()

    def on_validation_start(self):
        self.seconds = time.perf_counter() - self.began
        super().on_validation_start()

def task():
    torch.manual_seed(0)
    model = Segmenter(UNet(len(bands), len(legend), depth=2, width=16), bands, ModelInfo(legend)).train()
    return Timed(model, DiceCrossEntropy(class_weights=[1.0, 1.0]), augment, fitting, seed=0)

def ours():
    one = task()
    fit(one, batches, validation, torch.device("cpu"), precision, None)
    return len(batches) / one.seconds, one.history[-1]["data_wait"]

def bare(kept):
    one = task()
    optimizer = torch.optim.AdamW(parameter_groups(one.segmenter, 1e-3, 1e-2), lr=1e-3)
    began = time.perf_counter()
    for batch in kept:
        image, mask = one.augment(batch["image"], batch["mask"], one.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = one.loss(one.segmenter(image), mask)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(one.segmenter.parameters(), 1.0)
        optimizer.step()
    return len(kept) / (time.perf_counter() - began)

kept = list(batches)  # fills the cache of decoded blocks, too
ours(), bare(kept)
result = {"bare": [], "ours": [], "wait": []}
for _ in range(rounds):  # in turns, as the machine may be busier at one time than at another
    result["bare"].append(bare(kept))
    rate, wait = ours()
    result["ours"].append(rate)
    result["wait"].append(wait)
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Two scenes, and where they are dark in the near infrared."""
    folder = tmp_path_factory.mktemp("ground")
    for seed, (name, side) in enumerate({"a": 512, "b": 128}.items()):
        pixels = reflectance((side, side), seed=seed)
        write_raster(folder / f"{name}.tif", pixels, bands=BANDS)
        write_raster(folder / f"{name}_truth.tif", np.where(pixels[3] < 1500, 80, 10).astype(np.uint8))
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_of_a_training_beside_those_of_the_bare_loop(ground, in_a_process, timed, benchmark, precision):
    chips, rounds = (800, 5) if timed else (32, 1)
    found = in_a_process(LOOPS, ground, precision, chips, rounds)
    ratio = median(mine / theirs for mine, theirs in zip(found["ours"], found["bare"], strict=True))
    benchmark.extra_info |= {f"{name}, steps/s": [round(rate, 2) for rate in found[name]] for name in ("bare", "ours")}
    benchmark.extra_info |= {"waiting for data": round(median(found["wait"]), 3), "peak MB": round(found["peak_mb"])}
    benchmark.extra_info["ours / bare"] = round(ratio, 3)
    benchmark.pedantic(lambda: None, rounds=1)
    assert len(found["ours"]) == len(found["bare"]) == rounds
