"""Scenes reach other people's loops as torchgeo's samples, and a training waits for them as little as it says."""

import json
import subprocess
import sys
import time
from hashlib import sha256

import geopandas
import lightning
import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.windows import Window
from torch.utils.data import DataLoader

from geounet.core.bandtypes import BandType
from geounet.core.legend import Legend
from geounet.errors import ConfigError
from geounet.inference import predict
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.raster.splitting import split_pairs
from geounet.training import (
    Augmentation,
    Batches,
    ChipDataModule,
    ChipDataset,
    Epochs,
    Fitting,
    Network,
    PairSource,
    Sampling,
    train,
)  # fmt: skip
from tests.making import BANDS, PLACE, reflectance, write_raster

LEGEND = Legend.of({1: "land", 2: "water"})


def labelled(folder, name, pixels, truth, bands=BANDS):
    scene = open_scene(write_raster(folder / f"{name}.tif", pixels, bands=bands, nodata=-9999))
    return Pair(scene, open_labels(write_raster(folder / f"{name}_truth.tif", truth, nodata=255), scene.grid, LEGEND))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    made = []
    for number in range(3):
        pixels = reflectance((96, 128), seed=number)
        truth = np.where(pixels[3] < 1500, 2, 1).astype(np.uint8)
        pixels[:, :10, :10] = -9999
        made.append(labelled(folder, str(number), pixels, truth))
    return made


def test_a_sample_is_the_window_that_its_bounds_name(pairs):
    dataset = ChipDataset(pairs, Sampling(chip_size=32, chips_per_epoch=20, seed=4), batch_size=6)
    samples = list(dataset)
    assert len(samples) == 20
    for sample in samples:
        assert sample["image"].shape == (6, 32, 32)
        assert sample["image"].dtype == torch.float32
        assert sample["mask"].shape == (32, 32)
        assert sample["mask"].dtype == torch.int64
        assert sample["crs"].to_epsg() == 32633
        x, y = sample["bounds"]
        assert (x.stop - x.start, y.stop - y.start, x.step, y.step) == (960, 960, 30, 30)
        col, row = ~pairs[0].scene.grid.transform @ (x.start, y.stop)  # all scenes have one grid
        window = Window(round(col), round(row), 32, 32)
        chips = [pair.scene.read(window).filled(np.full(6, np.nan)) for pair in pairs]
        assert any(np.array_equal(sample["image"].numpy(), chip, equal_nan=True) for chip in chips)


def test_passes_differ_and_equal_seeds_repeat_them(pairs):
    def passes():
        dataset = ChipDataset(pairs, Sampling(chip_size=32, chips_per_epoch=8, seed=4))
        return [torch.stack([sample["mask"] for sample in dataset]) for _ in range(2)]

    (one, two), (again, once_more) = passes(), passes()
    assert torch.equal(one, again)
    assert torch.equal(two, once_more)
    assert not torch.equal(one, two)


def test_a_data_loader_gives_each_sample_once(pairs):
    dataset = ChipDataset(pairs, Sampling(chip_size=16, chips_per_epoch=14, seed=1), batch_size=4)
    alone = ChipDataset(pairs, Sampling(chip_size=16, chips_per_epoch=14, seed=1), batch_size=5)
    passes = [sorted(sample["image"].numpy().tobytes() for sample in DataLoader(dataset, None)) for _ in range(2)]
    assert passes == [sorted(sample["image"].numpy().tobytes() for sample in alone) for _ in range(2)]
    assert passes[0] != passes[1]


LOADING = """
import json, sys
from hashlib import sha256
from torch.utils.data import DataLoader
from geounet.core.legend import Legend
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.training import ChipDataset, Sampling

def labelled(path):
    scene = open_scene(path)
    return Pair(scene, open_labels(path.replace(".tif", "_truth.tif"), scene.grid, Legend.of({1: "land", 2: "water"})))

if __name__ == "__main__":
    pairs = [labelled(path) for path in sys.argv[1:]]
    dataset = ChipDataset(pairs, Sampling(chip_size=16, chips_per_epoch=14, seed=1), batch_size=4)
    # a fork would copy the locks of GDAL's threads, and not the threads
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    hashed = [sorted(sha256(sample["image"].numpy().tobytes()).hexdigest() for sample in loader) for _ in range(2)]
    print(json.dumps(hashed))
"""
"""A script of somebody who likes workers."""


def test_so_it_does_with_workers_of_its_own(pairs, tmp_path):
    script = tmp_path / "loading.py"
    script.write_text(LOADING)
    command = [sys.executable, script, *(pair.scene.source for pair in pairs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    alone = ChipDataset(pairs, Sampling(chip_size=16, chips_per_epoch=14, seed=1), batch_size=5)
    images = [[sample["image"].numpy().tobytes() for sample in alone] for _ in range(2)]
    assert json.loads(done.stdout) == [sorted(sha256(image).hexdigest() for image in some) for some in images]


def test_torchgeos_samples_and_ours_stack_alike(pairs):
    stack = pytest.importorskip("torchgeo.datasets", reason="torchgeo is an extra of its own").stack_samples
    dataset = ChipDataset(pairs, Sampling(chip_size=32, chips_per_epoch=6, seed=4))
    batch = next(iter(DataLoader(dataset, batch_size=6, collate_fn=stack)))
    assert batch["image"].shape == (6, 6, 32, 32)
    assert batch["mask"].shape == (6, 32, 32)
    assert len(batch["bounds"]) == len(batch["crs"]) == 6


class Mean(lightning.LightningModule):
    """The least that learns."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(6, 2, 1)
        self.seen = {"train": 0, "val": 0, "test": 0}

    def _loss(self, batch, split):
        assert torch.isfinite(batch["image"]).all()
        self.seen[split] += int((batch["mask"] != 255).sum())
        return torch.nn.functional.cross_entropy(self.layer(batch["image"] / 3000), batch["mask"], ignore_index=255)

    def training_step(self, batch, _):
        return self._loss(batch, "train")

    def validation_step(self, batch, _):
        self._loss(batch, "val")

    def test_step(self, batch):
        self._loss(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*LeafSpec:FutureWarning")  # within Lightning
def test_a_lightning_module_of_somebody_else_trains_on_the_data_module(pairs):
    data = ChipDataModule(
        {"train": pairs[:1], "validate": pairs[1:2], "test": pairs[2:]},
        Sampling(chip_size=32, chips_per_epoch=8), batch_size=4, fill=0.0,
    )  # fmt: skip
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    module = Mean()
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert module.seen["val"] == module.seen["test"] == 96 * 128 - 100


def test_waiting_is_counted_and_nothing_else():
    def slow(_):
        for number in range(3):
            time.sleep(0.05)
            yield {"image": torch.tensor(number)}

    batches = Batches(slow, 3)
    for _ in batches:
        time.sleep(0.1)
    assert 0.15 <= batches.waited < 0.25
    for _ in batches:
        pass
    assert 0.15 <= batches.waited < 0.25


def test_each_epoch_says_what_part_of_it_was_spent_waiting(pairs, tmp_path):
    run = train(
        {"train": pairs[:2], "validate": pairs[2:]}, tmp_path / "run",
        sampler=Sampling(chip_size=32, chips_per_epoch=16), model=Network(depth=1, width=2),
        training=Fitting(epochs=2, batch_size=8),
    )  # fmt: skip
    assert all(0 <= row["data_wait"] <= 1 for row in run.history)


def test_a_rare_class_gets_the_share_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    pixels = reflectance((512, 512), seed=1)
    truth = np.ones((512, 512), np.uint8)
    for row, col in rng.integers(0, 500, (20, 2)):
        truth[row : row + 12, col : col + 12] = 2
    pair = labelled(tmp_path, "rare", pixels, truth)
    assert (truth == 2).mean() < 0.012
    sampler = Sampling(chip_size=32, chips_per_epoch=256, shares={"water": 0.15}, seed=3)
    source = PairSource({"train": [pair], "validate": [pair]})
    batches = source.batches(source.survey(sampler), sampler, 16)
    masks = np.concatenate([batch["mask"].numpy() for batch in batches])
    assert (masks == 1).mean() == pytest.approx(0.15, rel=0.1)


def test_windows_without_labels_are_not_drawn_where_labels_are_sparse(tmp_path):
    truth = np.full((256, 256), 255, np.uint8)
    truth[40:60, 40:60], truth[200:210, 10:30] = 1, 2
    pair = labelled(tmp_path, "sparse", reflectance((256, 256)), truth)
    sampler = Sampling(chip_size=32, chips_per_epoch=64, min_valid=0.01)
    source = PairSource({"train": [pair], "validate": [pair]})
    epochs = source.batches(source.survey(sampler), sampler, 16)
    assert isinstance(epochs, Epochs)
    for batch in epochs:
        assert (batch["mask"] != 255).flatten(1).any(dim=1).all()


def test_scenes_in_different_reference_systems_are_learnt_together(tmp_path):
    made = []
    for number, (epsg, place) in enumerate(
        [
            (32633, Affine(30, 0, 5e5, 0, -30, 5.3e6)),
            (32631, Affine(10, 0, 3e5, 0, -10, 5e6)),
            (4326, Affine(3e-4, 0, 9, 0, -3e-4, 46)),
        ]
    ):
        pixels = reflectance((64, 64), seed=number)
        where = {"crs": CRS.from_epsg(epsg), "transform": place}
        nodata = (-9999, -32768, -1)[number]
        pixels[:, :5] = nodata
        truth = np.where(pixels[3] < 1500, 2, 1).astype(np.uint8)
        scene = open_scene(write_raster(tmp_path / f"{number}.tif", pixels, bands=BANDS, nodata=nodata, **where))
        labels = open_labels(write_raster(tmp_path / f"{number}_truth.tif", truth, **where), scene.grid, LEGEND)
        made.append(Pair(scene, labels))
    run = train(
        {"train": made[:2], "validate": made[2:]}, tmp_path / "run", sampler=Sampling(chip_size=32, chips_per_epoch=32),
        model=Network(depth=1, width=4), training=Fitting(epochs=8, batch_size=4, learning_rate=3e-2),
    )  # fmt: skip
    assert run.validation.report()["pixels"] == 59 * 64
    assert run.model.bands[0].mean > 0
    assert run.validation.miou > 0.8


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """Scenes whose class is written in codes and bits alone, in no order of size; light says nothing."""
    folder = tmp_path_factory.mktemp("typed")
    made = []
    for number in range(3):
        rng = np.random.default_rng(number)
        codes = rng.choice([10, 20, 30, 40], (16, 16)).repeat(6, 0).repeat(6, 1).astype(np.int16)
        flags = (rng.integers(0, 2, (16, 16)).repeat(6, 0).repeat(6, 1) << 3).astype(np.int16) | 0b100000
        light = rng.normal(1000, 100, codes.shape).astype(np.int16)
        truth = np.where(np.isin(codes, [20, 40]) | (flags & 8 > 0), 2, 1).astype(np.uint8)
        made.append(labelled(folder, str(number), np.stack([light, codes, flags]), truth, ("nir", "cover", "quality")))
    return made


def test_codes_and_bits_are_learnt_as_what_they_are(typed, tmp_path):
    types = {"COVER": BandType("categorical"), "quality": BandType("bitmask")}
    run = train(
        {"train": typed[:2], "validate": typed[2:]}, tmp_path / "run", sampler=Sampling(chip_size=48, chips_per_epoch=32),
        model=Network(depth=1, width=8), training=Fitting(epochs=12, batch_size=8, learning_rate=2e-2),
        augment=Augmentation(gain=0.3, band_offset=0.3, noise=0.3), types=types,
    )  # fmt: skip
    kinds = {band.name: band.type for band in run.model.bands}
    assert kinds["cover"].codes == (10, 20, 30, 40)
    assert kinds["quality"].bits == (3,)
    assert run.validation.miou > 0.97


def test_types_of_bands_that_are_not_read_are_refused(typed):
    with pytest.raises(ConfigError, match="a type is given for fmask, but the scenes have nir, cover, quality"):
        PairSource({"train": typed, "validate": typed}, {"fmask": BandType("bitmask", bits=(1,))})


def test_a_cache_on_disk_gives_the_batches_that_the_files_give(pairs, tmp_path):
    def masks(**more):
        sampler = Sampling(chip_size=32, chips_per_epoch=16, seed=2, **more)
        source = PairSource({"train": pairs, "validate": pairs})
        epochs = source.batches(source.survey(sampler), sampler, 4)
        return [batch["image"].numpy() for _ in range(2) for batch in epochs]

    plain = masks(cache="none")
    for more in ({"cache": "memory"}, {"cache": "disk", "cache_folder": str(tmp_path)}):
        for one, two in zip(plain, masks(**more), strict=True):
            assert_array_equal(one, two)
    assert any(path.is_file() for path in (tmp_path / "blocks").rglob("*"))
    assert any((tmp_path / "surveys").iterdir())


def test_polygons_burnt_once_are_those_burnt_each_time(tmp_path):
    west, north = 500_000, 5_300_000
    fields = [shapely.Point(west + 30 * x, north - 30 * y).buffer(30 * 9) for x, y in ((10, 12), (40, 30), (70, 90))]
    geopandas.GeoDataFrame({"kind": ["land", "water", "land"]}, geometry=fields, crs=32633).to_file(tmp_path / "f.gpkg")
    scene = open_scene(write_raster(tmp_path / "scene.tif", reflectance((128, 128)), bands=BANDS))
    pair = Pair(scene, open_labels(tmp_path / "f.gpkg", scene.grid, LEGEND, column="kind"))

    def masks(cache):
        sampler = Sampling(chip_size=32, chips_per_epoch=32, seed=2, cache=cache)
        source = PairSource({"train": [pair], "validate": [pair]})
        epochs = source.batches(source.survey(sampler), sampler, 8)
        return np.stack([batch["mask"].numpy() for _ in range(2) for batch in epochs])

    kept = masks("memory")
    assert_array_equal(kept, masks("none"))
    assert set(np.unique(kept)) == {0, 1, 255}


def test_little_that_is_labelled_still_makes_an_epoch(tmp_path):
    truth = np.full((40, 40), 255, np.uint8)
    truth[4:21, 4:21] = 1
    truth[4:10, 4:21] = 2
    pair = labelled(tmp_path, "little", reflectance((40, 40)), truth)
    sampler = Sampling(chip_size=16, min_valid=0.9)
    source = PairSource({"train": [pair], "validate": [pair]})
    epochs = source.batches(source.survey(sampler), sampler, 4)
    assert len(epochs) == 1
    assert sum(len(batch["image"]) for batch in epochs) == 2  # 17² labelled pixels, in chips of 16²


def test_nothing_to_validate_with_is_said_before_training(pairs, tmp_path):
    nothing = labelled(tmp_path, "nothing", reflectance((40, 40)), np.full((40, 40), 255, np.uint8))
    with pytest.raises(ConfigError, match="the validation scenes have no valid, labelled pixel"):
        train({"train": pairs, "validate": [nothing]}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_splits_of_one_scene_by_other_blocks_have_other_hashes(tmp_path):
    truth = np.tile([[1, 2]], (96, 48)).astype(np.uint8)
    pair = labelled(tmp_path, "one", reflectance((96, 96)), truth)
    shares = {"train": 0.5, "validate": 0.5}
    origins = [
        PairSource(split_pairs([pair], by="block", size=size, shares=shares, seed=seed)).origin()
        for size, seed in ((480, 0), (480, 1), (960, 0), (480, 0))
    ]
    hashes = [origin["data_hash"] for origin in origins]
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3
    assert origins[0]["split"]["train"]["hash"] != origins[0]["split"]["validate"]["hash"]


def test_a_scene_that_splits_share_is_kept_once(tmp_path):
    truth = np.tile([[1, 2]], (128, 64)).astype(np.uint8)
    pair = labelled(tmp_path, "one", reflectance((128, 128)), truth)
    pairs = split_pairs([pair], by="block", size=480, shares={"train": 0.5, "validate": 0.5})
    source, sampler = PairSource(pairs), Sampling(chip_size=32, chips_per_epoch=16)
    names = [
        {epochs_pair.scene.name for epochs_pair in kept}
        for kept in (source._kept("train", sampler), source._kept("validate", sampler))
    ]
    assert names[0] == names[1]


def test_codes_on_a_coarser_grid_are_mapped_as_they_were_learnt(tmp_path):
    """A band of codes of 60 m under one of 30 m: nothing between two codes is ever read, in training or in prediction."""
    rng = np.random.default_rng(0)
    codes = rng.choice([10, 90], (24, 24)).astype(np.int16)
    place = PLACE @ Affine.scale(2)
    write_raster(tmp_path / "nir.tif", reflectance((48, 48))[:1], bands=("nir",))
    write_raster(tmp_path / "cover.tif", codes, bands=("cover",), transform=place)
    truth = np.where(codes == 90, 2, 1).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    files = [tmp_path / "nir.tif", tmp_path / "cover.tif"]
    scene = open_scene(files).by_nearest(["cover"])
    pair = Pair(scene, open_labels(write_raster(tmp_path / "truth.tif", truth), scene.grid, LEGEND))
    run = train(
        {"train": [pair], "validate": [pair]}, tmp_path / "run", sampler=Sampling(chip_size=16, chips_per_epoch=32),
        model=Network(depth=1, width=4), training=Fitting(epochs=6, batch_size=8, learning_rate=3e-2),
        types={"cover": BandType("categorical")},
    )  # fmt: skip
    mapped = predict(open_scene(files), run.model, force=True).to_numpy()
    assert_array_equal(mapped, predict(scene, run.model, force=True).to_numpy())
    assert (mapped == truth).mean() > 0.99
