"""Batches hold what the files hold, in the order of the plan, whoever reads them and whatever fails."""

import logging
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import dask
import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from rasterio.windows import Window

from geounet.core.legend import Legend
from geounet.errors import BandMismatchError, ConfigError, LabelError, LegendError, SceneError
from geounet.raster.labels import Labels, open_labels
from geounet.raster.sampler import (
    DiskStore,
    MemoryStore,
    Pair,
    Sample,
    cached,
    plan_grid,
    plan_random,
    read,
    read_batch,
    read_batches,
)  # fmt: skip
from geounet.raster.scene import Scene, open_scene
from tests.making import BANDS, reflectance, write_raster

LEGEND = Legend.of(["land", "water"])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three scenes with nodata in tiles of 32, two of them with labels with holes."""
    folder = tmp_path_factory.mktemp("pairs")
    made = []
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    for number, shape in enumerate([(200, 220), (90, 70), (150, 150)]):
        pixels = reflectance(shape, seed=number)
        pixels[:, 20:40, 10:30] = -9999
        scene = open_scene(write_raster(folder / f"{number}.tif", pixels, bands=BANDS, nodata=-9999, **tiles))
        truth = (pixels[3] < 1500).astype(np.uint8)
        truth[:3] = 255
        labels = open_labels(write_raster(folder / f"{number}_truth.tif", truth, nodata=255), scene.grid, LEGEND)
        made.append(Pair(scene, labels if number else None))
    return made


@pytest.fixture(scope="module")
def plan(pairs):
    return plan_random(pairs, 48, 40, np.random.default_rng(4))


@pytest.fixture(scope="module")
def batches(pairs, plan):
    """What threads read."""
    return list(read_batches(pairs, plan, 6))


def assert_same(found, truth):
    assert len(found) == len(truth)
    for one, other in zip(found, truth, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert one.mask.tobytes() == other.mask.tobytes()


def test_a_batch_holds_what_rasterio_reads(pairs, plan, batches):
    assert [len(batch.image) for batch in batches] == [6] * 6 + [4]
    images = np.concatenate([batch.image for batch in batches])
    masks = np.concatenate([batch.mask for batch in batches])
    for sample, image, mask in zip(plan, images, masks, strict=True):
        pair = pairs[sample.scene]
        with rasterio.open(pair.scene.source) as dataset:
            truth = dataset.read(window=sample.window, masked=True)
        assert_array_equal(np.isnan(image), truth.mask)
        assert_array_equal(image[~truth.mask], truth.compressed())
        hole = truth.mask.any(axis=0)
        assert (mask[hole] == 255).all()
        if pair.labels is None:
            assert (mask == 255).all()
        else:
            with rasterio.open(pair.labels.source) as dataset:
                assert_array_equal(mask[~hole], dataset.read(1, window=sample.window)[~hole])


@contextmanager
def in_process_cluster():
    from distributed import Client

    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None):
        yield


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(lambda: dask.config.set(scheduler="synchronous"), id="synchronous"),
        pytest.param(lambda: dask.config.set(scheduler="threads", num_workers=5), id="five threads"),
        pytest.param(lambda: dask.config.set(scheduler="processes", num_workers=2), id="processes"),
        pytest.param(in_process_cluster, id="a cluster of threads"),
    ],
)
def test_every_scheduler_gives_the_same_batches_byte_for_byte(pairs, plan, batches, scheduler):
    with scheduler():
        assert_same(list(read_batches(pairs, plan, 6)), batches)


@pytest.mark.parametrize("ahead", [1, 2, 9])
@pytest.mark.parametrize(
    "store", [lambda _: MemoryStore(2**24), lambda _: MemoryStore(30_000), lambda p: DiskStore(p, 2**24)]
)
def test_neither_a_cache_nor_reading_further_ahead_changes_a_batch(pairs, plan, batches, tmp_path, ahead, store):
    store = store(tmp_path)
    kept = [Pair(cached(pair.scene, store), pair.labels, pair.group) for pair in pairs]
    for _ in range(2):
        assert_same(list(read_batches(kept, plan, 6, ahead=ahead)), batches)


def test_scenes_without_labels_have_no_mask(pairs):
    alone = [Pair(pair.scene) for pair in pairs]
    for batch in read_batches(alone, plan_grid(alone, 64), 5):
        assert batch.mask is None
        assert batch.image.dtype == np.float32
    with pytest.raises(LabelError, match=r"2\.tif has no labels"):
        _ = alone[2].truth


class Counted(Scene):
    """A scene that counts the pixels read of it, and can fail on the way."""

    def __init__(self, scene, fails=()):
        for name in Scene.__dataclass_fields__:
            object.__setattr__(self, name, getattr(scene, name))
        self.__dict__.update(scene=scene, lock=threading.Lock(), places=[], fails=list(fails), under_way=0, most=0)

    def __reduce__(self):
        return Counted, (self.scene, self.fails)

    def _take(self, places):
        raise NotImplementedError

    def _fill(self, window, out):
        with self.lock:
            self.places.append((window.row_off, window.col_off))
            failure = self.fails.pop(0) if self.fails else None
        if failure:
            raise failure
        return self.scene._fill(window, out)


def test_each_block_that_a_plan_needs_is_read_once(pairs):
    counted = Counted(pairs[0].scene)
    object.__setattr__(counted, "block_shape", (128, 128))
    plan = plan_random([Pair(counted)], 40, 60, np.random.default_rng(0))
    for _ in read_batches([Pair(counted)], plan, 7):
        pass
    assert sorted(counted.places) == [(0, 0), (0, 128), (128, 0), (128, 128)]


def test_blocks_that_a_plan_needs_once_are_not_kept_and_windows_are_read_as_they_are(pairs):
    counted = Counted(pairs[0].scene)
    corners = [(0, 0), (0, 150), (150, 0), (150, 150)]
    object.__setattr__(counted, "block_shape", (128, 128))
    plan = [Sample(0, Window(col, row, 30, 30)) for row, col in corners]
    list(read_batches([Pair(counted)], plan, 2))
    assert sorted(counted.places) == corners


def test_no_more_than_ahead_batches_are_begun_beyond_the_one_in_use(pairs):
    counted = Counted(pairs[0].scene)
    plan = [Sample(0, Window(col, row, 3, 3)) for row in range(0, 190, 10) for col in range(0, 210, 50)]
    object.__setattr__(counted, "block_shape", (1, 1))
    object.__setattr__(counted, "dtype", np.dtype(np.int16))
    reading = read_batches([Pair(counted)], plan, 5, ahead=2)
    for place, _ in enumerate(reading):
        time.sleep(0.01)
        assert len(counted.places) <= (place + 3) * 5 * 4  # a window of 3 px meets four blocks at most
    assert place == 18


def test_what_fails_once_is_read_again(pairs, monkeypatch):
    monkeypatch.setattr(read, "PAUSE", 0.001)
    counted = Counted(pairs[1].scene, fails=[SceneError("a cable is loose"), OSError("a disk hums")])
    sample = Sample(0, Window(0, 0, 32, 32))
    batch = read_batch([Pair(counted)], [sample])
    assert_array_equal(batch.image, read_batch([Pair(pairs[1].scene)], [sample]).image)
    assert len(counted.places) == 3


@pytest.fixture
def broken(pairs, tmp_path):
    """Pairs of which the second's file is cut off, so that its lower half cannot be read."""
    path = write_raster(
        tmp_path / "cut.tif", reflectance((90, 70)), bands=BANDS, tiled=True, blockxsize=16, blockysize=16
    )
    whole = path.read_bytes()
    scene = open_scene(path)
    path.write_bytes(whole[: len(whole) // 2])
    return [pairs[0], Pair(scene)]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "processes"])
def test_what_keeps_failing_is_raised_with_its_batch_file_and_window(broken, monkeypatch, scheduler):
    monkeypatch.setattr(read, "PAUSE", 0.001)
    plan = [Sample(0, Window(0, 0, 32, 32))] * 3 + [Sample(1, Window(4, 50, 32, 32))]
    with dask.config.set(scheduler=scheduler, num_workers=1):
        reading = read_batches(broken, plan, 2, retries=1)
        assert len(next(reading).image) == 2
        with pytest.raises(
            SceneError, match=r"^batch 2, sample 2 \(.*cut\.tif, rows 50 to 81, columns 4 to 35\): .*cannot be read"
        ):
            next(reading)


def test_what_keeps_failing_can_be_left_out_and_is_told(broken, caplog):
    good, bad = Sample(0, Window(0, 0, 32, 32)), Sample(1, Window(4, 50, 32, 32))
    with caplog.at_level(logging.WARNING):
        found = list(read_batches(broken, [good, bad, good, bad, bad, bad, good], 3, retries=0, on_error="skip"))
    assert [len(batch.image) for batch in found] == [2, 1]  # the second batch had nothing left
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        f"left out: batch {batch}, sample {sample}" for batch, sample in [(1, 2), (2, 1), (2, 2), (2, 3)]
    ]


def test_an_unknown_class_code_is_never_left_out(pairs):
    class Strange(Labels):
        def _ids(self, window):
            raise LegendError(f"code 77 at {window} is not in the legend")

    scene = pairs[1].scene
    with pytest.raises(LegendError, match="code 77") as raised:
        read_batch([Pair(scene, Strange("strange", LEGEND, scene.grid, ()))], [Sample(0, Window(0, 0, 8, 8))])
    assert "batch 1, sample 1" in raised.value.__notes__[0]


def test_a_pool_of_ones_own_reads_too(pairs, plan, batches):
    with ThreadPoolExecutor(3) as pool, dask.config.set(scheduler=pool):
        assert_same(list(read_batches(pairs, plan, 6)), batches)


def test_a_reader_that_is_dropped_stops_reading(pairs):
    counted = Counted(pairs[0].scene)
    object.__setattr__(counted, "block_shape", (1, 1))
    before = threading.active_count()
    reading = read_batches([Pair(counted)], [Sample(0, Window(0, row % 100, 20, 20)) for row in range(1000)], 4)
    next(reading)
    reading.close()
    assert threading.active_count() == before
    assert len(set(counted.places)) < 5 * 20 * 24


def test_refusals(pairs):
    with pytest.raises(ConfigError, match="batch_size"):
        read_batches(pairs, [], 0)
    with pytest.raises(ConfigError, match="on_error"):
        read_batches(pairs, [], 1, on_error="ignore")
    other = Pair(pairs[1].scene.select(["nir"]))
    with pytest.raises(BandMismatchError, match=r"1\.tif has the bands nir, but .*0\.tif blue, green"):
        read_batches([pairs[0], other], [], 1)
    with pytest.raises(ConfigError, match="different sizes"):
        read_batch(pairs, [Sample(0, Window(0, 0, 8, 8)), Sample(0, Window(0, 0, 8, 9))])
    with dask.config.set(scheduler=lambda *_: None), pytest.raises(ConfigError, match="start a distributed Client"):
        next(read_batches(pairs, [Sample(0, Window(0, 0, 8, 8))], 1))


def test_a_worker_killed_in_the_middle_of_an_epoch_costs_time_and_no_sample(pairs, plan, batches):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        long = [*plan, *plan, *plan]
        reading = read_batches(pairs, long, 6, ahead=3)
        found = [next(reading) for _ in range(3)]
        first = next(iter(client.run(os.getpid).values()))
        os.kill(first, signal.SIGKILL)
        found.extend(reading)
        assert first not in client.run(os.getpid).values()
        held = client.run(_held_on_the_worker)
    assert_same(found, [*list(read_batches(pairs, long, 6))])
    assert set(held.values()) == {0}
    assert_array_equal(np.concatenate([b.image for b in found])[:36], np.concatenate([b.image for b in batches])[:36])


def test_a_worker_that_retires_takes_nothing_from_the_others_in_its_process(pairs, plan, batches):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        reading = read_batches(pairs, plan, 6)
        found = [next(reading)]
        client.retire_workers([next(iter(client.scheduler_info()["workers"]))])
        found.extend(reading)
    assert_same(found, batches)


def _held_on_the_worker(dask_worker):
    return sum(name.startswith("geounet-") for name in dask_worker.plugins)


def test_pairs_travel_to_the_workers_once_and_tasks_are_small(pairs, plan, monkeypatch):
    from distributed import Client

    submitted = []
    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        submit = client.submit
        monkeypatch.setattr(
            client, "submit", lambda *args, **kw: submitted.append(len(pickle.dumps(args))) or submit(*args, **kw)
        )
        assert len(list(read_batches(pairs, plan, 6))) == 7
    assert len(submitted) == 14  # two workers, seven batches
    assert max(submitted) < 1000 < len(pickle.dumps(pairs))
