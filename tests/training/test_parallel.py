"""Several processes learn what one would, and end together."""

import multiprocessing
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from numpy.testing import assert_allclose

import geounet
from geounet.cli import main
from geounet.core.legend import Legend
from geounet.core.metrics import Confusion, mean_iou
from geounet.errors import ConfigError, DeviceError, SceneError
from geounet.nn.augment import Compose
from geounet.nn.losses import WeightedSum
from geounet.nn.segmenter import ModelInfo, Segmenter
from geounet.nn.unet import UNet
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.training import Batches, Fitting, Network, PairSource, Sampling, Task, train
from geounet.training.source import data
from geounet.training.together.meeting import launched_team
from geounet.training.together.parallel import fit_together, processes
from geounet.training.together.sharing import Shared, _alike, cache_of_one, seed_of
from geounet.training.together.team import ALONE, Team
from tests.making import BANDS, band_infos, reflectance, write_raster

LEGEND = Legend.of({10: "land", 80: "water"})
CPU = torch.device("cpu")
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def labelled(folder, name, seed, shape=(96, 96)):
    pixels = reflectance(shape, seed=seed)
    truth = np.where(pixels[3] < 1500, 80, 10).astype(np.uint8)
    scene = open_scene(write_raster(folder / f"{name}.tif", pixels, bands=BANDS, nodata=-9999))
    return Pair(scene, open_labels(write_raster(folder / f"{name}_truth.tif", truth), scene.grid, LEGEND))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return {
        "train": [labelled(folder, "a", 1), labelled(folder, "b", 2)],
        "validate": [labelled(folder, "c", 3, (80, 100))],
    }


class Observed(Task):
    """Keeps the gradients of each step, and the weights that a process ends with; steps are as long as gradients."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.segmenter.parameters(), self.fitting.rate)

    def on_fit_start(self):
        self.gradients = []

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        self.gradients.append(torch.cat([p.grad.flatten() for p in self.segmenter.parameters()]))

    def on_fit_end(self):
        torch.save(self.keep().state_dict(), self.folder / f"{self.team.rank}.pt")


def observed(pairs, folder, devices):
    """A training in which every pixel has a label and a loss of its own, and nothing is left to chance."""
    folder.mkdir()
    sampler = Sampling(chip_size=32, chips_per_epoch=21, seed=3)
    source = PairSource(pairs)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Segmenter(UNet(6, 2, depth=1, width=4, norm="none"), band_infos(), ModelInfo(LEGEND))
    fitting = Fitting(epochs=2, batch_size=5, learning_rate=0.1, ema=0.5, clip=0, devices=devices)
    task = Observed(model, WeightedSum({"cross_entropy": 1.0}), Compose([]), fitting, seed=3)
    task.folder = folder
    batches = source.batches(source.survey(sampler), sampler, 5)
    told = []
    fit_together(task, batches, source.chips(sampler, 5), CPU, "fp32", told.append, None, devices=devices)
    return task, told


def test_two_processes_make_the_steps_of_one(pairs, tmp_path):
    """Batches of 5, and the last of 1: parts are uneven, and one is empty."""
    (alone, _), (both, told) = (observed(pairs, tmp_path / str(count), count) for count in (1, 2))
    assert len(both.gradients) == len(alone.gradients) == 10
    for one, two in zip(alone.gradients, both.gradients, strict=True):
        assert_allclose(two, one, atol=1e-5 * float(one.abs().max()))

    ours, theirs = (torch.load(tmp_path / "2" / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())

    for one, two in zip(alone.history, both.history, strict=True):
        assert_allclose(
            [two[key] for key in ("loss", "val_loss")], [one[key] for key in ("loss", "val_loss")], rtol=1e-5
        )
    assert [epoch.values for epoch in told] == both.history
    kept, confusion = both.keep().eval(), Confusion.empty(2)
    with torch.no_grad():
        for batch in PairSource(pairs).chips(Sampling(chip_size=32), 5):
            confusion += Confusion.of(batch["mask"].numpy(), kept(batch["image"]).argmax(1).numpy(), 2)
    assert max(row["val_miou"] for row in both.history) == mean_iou(confusion.counts)
    assert not multiprocessing.active_children()


def test_what_one_process_cannot_read_ends_all_with_that_error(pairs, tmp_path):
    bad = labelled(tmp_path, "bad", 4)
    whole = (tmp_path / "bad.tif").read_bytes()
    sampler = Sampling(chip_size=32, chips_per_epoch=16, retries=0)
    files = {"train": [bad], "validate": pairs["validate"]}

    class Damaged(PairSource):
        def survey(self, sampler):
            try:
                return super().survey(sampler)
            finally:
                (tmp_path / "bad.tif").write_bytes(whole[:600])

    with pytest.raises(SceneError, match=r"batch 1, sample \d.*bad.tif"):
        train(
            Damaged(files), tmp_path / "run", sampler=sampler, model=Network(depth=1, width=2),
            training=Fitting(epochs=1, batch_size=4, devices=2),
        )  # fmt: skip
    assert not multiprocessing.active_children()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tif", "bad_truth.tif"]


@pytest.fixture
def config(tmp_path):
    """A config with all that processes could draw differently; bands and labels in files."""
    for number in range(2):
        pixels = reflectance((64, 64), seed=number)
        write_raster(tmp_path / f"{number}.tif", pixels, bands=BANDS)
        write_raster(tmp_path / f"{number}_truth.tif", (pixels[3] < 1500).astype(np.uint8))
    values = {
        "scenes": {"train": "0.tif", "validate": "1.tif", "leaks": "allow"},
        "labels": {"path": "{stem}_truth.tif", "legend": {0: "land", 1: "water"}},
        "sampler": {"chip_size": 16, "chips_per_epoch": 21},
        "model": {"depth": 1, "width": 2, "dropout": 0.2},
        "augment": {"noise": 0.3, "cutmix": 0.5},
        "training": {"epochs": 2, "batch_size": 5},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "config.yaml"


def launched(config, out, *more):
    """Processes that run one command, as `torchrun` starts them; what each says, and its status."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "geounet", "train", str(config), "-o", str(out), *more]
    started = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=config.parent,
            env=os.environ | dict(zip(LAUNCHED, (str(rank), "2", str(rank), "2"), strict=True))
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        )
        for rank in range(2)
    ]  # fmt: skip
    return [(one.communicate()[0], one.returncode) for one in started]


def test_it_does_not_matter_who_starts_the_processes(config, tmp_path):
    """Equal seeds and as many processes give equal weights; one of them alone makes files and says something."""
    (said, first), (nothing, second) = launched(config, tmp_path / "launched")
    assert (first, second) == (0, 0), said + nothing
    assert str(tmp_path / "launched" / "model.safetensors") in said
    assert nothing == ""
    result = CliRunner().invoke(
        main, ["train", str(config), "-o", str(tmp_path / "started"), "--set", "training.devices=2"]
    )
    assert result.exit_code == 0, result.output
    one, two = (geounet.load(tmp_path / name / "model.safetensors").state_dict() for name in ("launched", "started"))
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())
    assert not list(tmp_path.glob("*.unfinished*"))


def test_a_refusal_is_said_once_and_ends_all_processes(config, tmp_path):
    config.write_text(config.read_text().replace("batch_size: 5", "batch_size: 1"))
    (said, first), (nothing, second) = launched(config, tmp_path / "run")
    assert (first, second) == (1, 1)
    assert said.splitlines()[-1].startswith("geounet: a batch of 1 samples cannot be shared by 2 processes")
    assert nothing == ""


def test_processes_have_every_sample_once_and_equally_many_batches(pairs):
    source, sampler = PairSource(pairs), Sampling(chip_size=32, chips_per_epoch=17)
    epochs = source.batches(source.survey(sampler), sampler, 5)
    for whole in (epochs, source.chips(sampler, 5), Batches(epochs._make, 4)):
        together = [list(whole.share(1, Team(rank, 3), 255)) for rank in range(3)]
        epochs.passes = 0
        for batch, *parts in zip(whole, *together, strict=True):
            for key in ("image", "mask"):
                given = torch.cat([part[key] for part in parts if (part["mask"] != 255).any()])
                assert sorted(one.numpy().tobytes() for one in given) == sorted(
                    one.numpy().tobytes() for one in batch[key]
                )
            assert all(len(part["image"]) >= 1 for part in parts)


def test_a_process_whose_samples_are_left_out_keeps_step(monkeypatch):
    """Two batches of which one process could read the first alone."""
    monkeypatch.setattr(Team, "agree", lambda *_: None)
    read = {"image": torch.ones(2, 1, 4, 4), "mask": torch.zeros(2, 4, 4, dtype=torch.int64)}
    first, second = Shared(Batches(lambda _: iter([read]), 2), Team(1, 2), 255, seed=0)
    assert (first["mask"] == 0).all()
    assert torch.equal(first["image"], second["image"])
    assert (second["mask"] == 255).all()


def test_sources_draw_alike_in_all_processes_whatever_their_networks_draw(monkeypatch):
    """As torchgeo's samplers, which draw from torch's own chance."""
    monkeypatch.setattr(Team, "agree", lambda *_: None)

    def drawn(_):
        for _ in range(3):
            yield {"image": torch.rand(2, 1, 1, 1), "mask": torch.zeros(2, 1, 1, dtype=torch.int64)}

    def seen(rank):
        shared, values = Shared(Batches(drawn, 3), Team(rank, 2), 255, seed=4), []
        for batch in shared:
            torch.rand(rank + 1)  # dropout
            values.append(float(batch["image"]))
        return values

    whole = list(_alike(drawn(0), seed_of(4, 1)))
    assert [[float(batch["image"][rank, 0, 0, 0]) for batch in whole] for rank in (0, 1)] == [seen(0), seen(1)]


@pytest.mark.parametrize(
    ("environment", "team"),
    [
        pytest.param({}, ALONE, id="a shell"),
        pytest.param(dict(zip(LAUNCHED, "5813", strict=True)) | {"LOCAL_WORLD_SIZE": "4"}, Team(5, 8, 1, 4), id="torchrun"),
        pytest.param(dict(zip(LAUNCHED, "0101", strict=True)), ALONE, id="torchrun of one process"),
        pytest.param(
            {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
            Team(5, 8, 1, 4), id="srun on two nodes",
        ),
        pytest.param({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}, ALONE, id="a batch script"),
    ],
)  # fmt: skip
def test_who_a_process_is_follows_from_how_it_was_started(monkeypatch, environment, team):
    for name in (*LAUNCHED, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_team() == team


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cpu", {"devices": 3, "batch_size": 2}, "a batch of 2 samples cannot be shared by 3 processes"),
        ("mps", {"devices": 2}, "several processes cannot learn together on mps"),
        ("cuda", {"devices": 3}, "3 GPUs are to be trained on, but there are 2 here"),
    ],
)
def test_more_than_there_is_is_refused_before_anything_is_read(monkeypatch, device, options, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises((ConfigError, DeviceError), match=message):
        processes(Fitting(**options), torch.device(device))


def test_auto_takes_all_gpus_and_one_process_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    fitting = Fitting(devices="auto")
    assert [processes(fitting, torch.device(device)) for device in ("cuda", "cpu")] == [2, 1]


def test_what_is_left_open_is_settled_for_all_processes_together(pairs, tmp_path, monkeypatch):
    stores, make = [], data._store
    monkeypatch.setattr(data, "_store", lambda sampler: stores.append(sampler.cache_gb) or make(sampler))
    run = train(
        pairs, tmp_path / "run", sampler=Sampling(chip_size=16, chips_per_epoch=20, cache_gb=1.0),
        model=Network(depth=1, width=2), training=Fitting(epochs=1, batch_size="auto", device="cpu", devices=2),
    )  # fmt: skip
    assert run.searches[0].sizes == (2,)  # an epoch of 20 steps leaves a sample each, which two cannot share
    assert stores == [0.5]  # made for the search already


def test_processes_share_the_memory_for_blocks():
    assert cache_of_one(Sampling(cache_gb=8.0), 4).cache_gb == 2
    assert 0 < cache_of_one(Sampling(), 4).cache_gb < cache_of_one(Sampling(), 2).cache_gb
    on_disk = Sampling(cache="disk", cache_folder="blocks", cache_gb=8.0)
    assert cache_of_one(on_disk, 4) == on_disk
