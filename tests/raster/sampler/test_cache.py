"""Cached scenes and labels read the same as what they keep, decode each block once, and stay within bounds."""

import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dask.array
import geopandas
import numpy as np
import pytest
import rasterio
import xarray
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.windows import Window
from shapely import box

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.errors import ConfigError, GeoUNetError, LabelError, OutputError, SceneError
from geounet.raster.labels import Labels, open_labels
from geounet.raster.sampler import DiskStore, MemoryStore, cached
from geounet.raster.sampler.memory import free_memory
from geounet.raster.sampler.stores import PlannedStore
from geounet.raster.scene import ArrayScene, Scene, open_mosaic, open_scene
from tests.making import BANDS, PLACE, UTM, reflectance, write_raster

SHAPE = (300, 420)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Six bands int16 with a hole, in tiles of 64."""
    pixels = reflectance(SHAPE, seed=5)
    pixels[:, 100:150, 200:300] = -9999
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    return open_scene(write_raster(path, pixels, bands=BANDS, nodata=-9999, **tiles))


class Watched(Scene):
    """A scene of pixel numbers that counts how often each block of it is made."""

    def __init__(self, like, block=64):
        for name in Scene.__dataclass_fields__:
            object.__setattr__(self, name, getattr(like, name))
        object.__setattr__(self, "block_shape", (block, block))
        object.__setattr__(self, "made", [])
        object.__setattr__(self, "broken", False)

    def _take(self, places):
        raise NotImplementedError

    def _fill(self, window, out):
        if self.broken:
            raise SceneError("the disk is gone")
        self.made.append((window.row_off, window.col_off))
        rows, cols = np.mgrid[
            window.row_off : window.row_off + window.height, window.col_off : window.col_off + window.width
        ]
        out[...] = rows % 100 * 100 + cols % 100
        return np.ones(out.shape[1:], bool)


def windows(margin=80, longest=260):
    return st.builds(
        Window,
        st.integers(-margin, SHAPE[1] + margin),
        st.integers(-margin, SHAPE[0] + margin),
        st.integers(1, longest),
        st.integers(1, longest),
    )


@given(st.data())
def test_a_cached_scene_reads_what_the_scene_reads_wherever_the_window_lies(scene, tmp_path_factory, data):
    store = data.draw(
        st.sampled_from([
            lambda: MemoryStore(2**24), lambda: MemoryStore(200_000), lambda: MemoryStore(0),
            lambda: DiskStore(tmp_path_factory.mktemp("blocks"), 2**24),
        ])
    )()  # fmt: skip
    bands = data.draw(st.lists(st.sampled_from(BANDS), min_size=1, unique=True))
    kept = cached(scene, store).select(bands)
    plain = scene.select(bands)
    for window in data.draw(st.lists(windows(), min_size=1, max_size=4)):
        for _ in range(2):
            found, truth = kept.read(window), plain.read(window)
            assert_array_equal(found.pixels, truth.pixels)
            assert_array_equal(found.valid, truth.valid)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("strips", [{"blockysize": 3}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_values_of_every_type_survive_both_stores(tmp_path, dtype, strips):
    rng = np.random.default_rng(2)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        pixels = (rng.normal(0, 1e4, (2, 70, 50)) * 1.1).astype(kind)
        pixels[0, :5] = np.nan
    else:
        info = np.iinfo(kind)
        pixels = rng.integers(info.min, info.max, (2, 70, 50), dtype=kind, endpoint=True)
    plain = open_scene(write_raster(tmp_path / "typed.tif", pixels, **strips))
    window = Window(7, 11, 40, 50)
    truth = plain.read(window)
    disk = DiskStore(tmp_path / "blocks", 2**24)
    for store in (MemoryStore(2**24), disk, DiskStore(tmp_path / "blocks", 2**24)):
        found = cached(plain, store).read(window)
        assert_array_equal(found.pixels, truth.pixels)
        assert_array_equal(found.valid, truth.valid)
    assert found.pixels.dtype == np.float32


def test_what_the_file_holds_in_two_bytes_takes_two_bytes_and_one_for_validity(scene):
    store = MemoryStore(2**24)
    cached(scene, store).read(Window(0, 0, SHAPE[1], SHAPE[0]))
    assert store.size_bytes == SHAPE[0] * SHAPE[1] * (6 * 2 + 1)


def test_each_block_is_decoded_once_however_many_threads_ask_at_once(scene):
    watched = Watched(scene, block=128)
    kept = cached(watched, MemoryStore(2**26))
    rng = np.random.default_rng(0)
    asked = [Window(int(x), int(y), 100, 100) for x, y in rng.integers(0, (320, 200), (200, 2))]
    with ThreadPoolExecutor(8) as pool:
        chips = list(pool.map(kept.read, asked))
    assert sorted(watched.made) == sorted({(r, c) for r in (0, 128, 256) for c in (0, 128, 256, 384)})
    for chip, window in zip(chips, asked, strict=True):
        assert chip.pixels[0, 0, 0] == window.row_off % 100 * 100 + window.col_off % 100


def test_threads_wait_for_the_one_that_makes_the_block():
    store, began, may_end = MemoryStore(2**20), threading.Event(), threading.Event()
    made = []

    def make():
        began.set()
        assert may_end.wait(20)
        made.append(1)
        return (np.arange(3),)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.block, ("a", 0, 0), make)
        assert began.wait(20)
        second = pool.submit(store.block, ("a", 0, 0), make)
        may_end.set()
        assert first.result()[0] is second.result()[0]
    assert made == [1]


def test_a_block_that_cannot_be_made_is_tried_again_by_the_next_who_asks(scene):
    watched = Watched(scene)
    kept = cached(watched, MemoryStore(2**24))
    object.__setattr__(watched, "broken", True)
    with pytest.raises(SceneError, match="the disk is gone"):
        kept.read(Window(0, 0, 10, 10))
    object.__setattr__(watched, "broken", False)
    assert kept.read(Window(3, 2, 1, 1)).pixels[0, 0, 0] == 203


def test_a_window_of_sound_pixels_is_read_though_its_block_is_damaged_elsewhere(tmp_path):
    pixels = reflectance((128, 128), bands=1)
    path = write_raster(tmp_path / "cut.tif", pixels, blockysize=1)
    kept = cached(open_scene(path), MemoryStore(2**20))
    with rasterio.open(path) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_0_100", "TIFF", bidx=1))
    path.write_bytes(path.read_bytes()[:start])
    assert kept.unit == (128, 128)
    assert_array_equal(kept.read(Window(0, 10, 128, 50)).pixels, pixels[:, 10:60])
    with pytest.raises(SceneError, match="rows 90 to 119"):
        kept.read(Window(0, 90, 128, 30))


def test_the_memory_store_lets_go_of_what_was_not_used_for_longest():
    store, made = MemoryStore(3 * 8), []

    def ask(name):
        store.block((name, 0, 0), lambda: made.append(name) or (np.zeros(1),))

    for name in "abcadbcae":
        ask(name)
        assert store.size_bytes <= 24
    assert "".join(made) == "abcdbcae"  # a was asked for again, so d drives b out; then b drives c out, and c a


def test_a_block_larger_than_the_store_is_not_kept_and_drives_nothing_out():
    store = MemoryStore(16)
    store.block(("small", 0, 0), lambda: (np.zeros(1),))
    store.block(("large", 0, 0), lambda: (np.zeros(3),))
    assert store.size_bytes == 8


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 6))
def test_a_planned_store_makes_no_more_blocks_than_the_last_used_first_out_and_ends_empty(asked, room):
    def made(store):
        count = []
        for name in asked:
            store.block((str(name), 0, 0), lambda: count.append(1) or (np.zeros(1),))
        return len(count)

    planned = PlannedStore(room * 8)
    planned.expect({(str(name), 0, 0): [i for i, n in enumerate(asked) if n == name] for name in asked})
    assert len(set(asked)) <= made(planned) <= made(MemoryStore(room * 8))
    assert planned.size_bytes == 0


def test_a_planned_store_keeps_what_is_needed_first():
    planned, made = PlannedStore(8), []
    plan = "abcab"  # room for one: a stays while b and c pass, as it is needed before b
    planned.expect({(name, 0, 0): [i for i, n in enumerate(plan) if n == name] for name in plan})
    for name in plan:
        planned.block((name, 0, 0), lambda name=name: made.append(name) or (np.zeros(1),))
    assert made == list("abcb")


def test_a_second_run_finds_the_blocks_of_the_first_and_reads_no_file(scene, tmp_path, monkeypatch):
    window = Window(30, 40, 100, 90)
    truth = cached(scene, DiskStore(tmp_path, 2**24)).read(window)
    again = cached(open_scene(scene.source), DiskStore(tmp_path, 2**24))
    monkeypatch.setattr(type(scene), "_fill", None)
    assert_array_equal(again.read(window).pixels, truth.pixels)


def test_a_changed_file_other_bands_and_another_nodata_are_other_blocks(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((2, 20, 20), 7, np.int16), bands=["red", "nir"])
    store = DiskStore(tmp_path / "blocks", 2**24)
    names = {cached(open_scene(path), store).name, cached(open_scene(path, nodata=7), store).name}
    names |= {
        cached(open_scene(path).select(["nir"]), store).name,
        cached(open_scene(path, bands=["a", "b"]), store).name,
    }
    write_raster(path, np.full((2, 20, 20), 8, np.int16), bands=["red", "nir"])
    changed = cached(open_scene(path), store)
    assert len({*names, changed.name}) == 5
    assert (changed.read(Window(0, 0, 20, 20)).pixels == 8).all()


def test_a_changed_source_of_a_vrt_is_seen(tmp_path):
    source = write_raster(tmp_path / "a.tif", np.full((20, 20), 7, np.int16))
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Int16" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    store = DiskStore(tmp_path / "blocks", 2**24)
    before = cached(open_scene(tmp_path / "a.vrt"), store).name
    write_raster(source, np.full((20, 20), 8, np.int16))
    assert cached(open_scene(tmp_path / "a.vrt"), store).name != before


@pytest.fixture(scope="module")
def veiled(tmp_path_factory):
    """Four bands uint8 of which the last, marked alpha, is 0 on the upper half; 7 at one place."""
    pixels = np.random.default_rng(1).integers(1, 255, (4, 60, 80), dtype=np.uint8)
    pixels[3] = 255
    pixels[3, :30] = 0
    pixels[:, 40:45, :20] = 7
    path = tmp_path_factory.mktemp("veiled") / "veiled.tif"
    return write_raster(path, pixels, bands=["red", "green", "blue"], photometric="RGB", alpha="yes")


NAMED = ["red", "green", "blue", "nir"]
HALF = Grid((60, 40), PLACE, UTM)
OPENINGS = {
    "with its alpha": lambda path: open_scene(path).select(NAMED[:3]),
    "alpha is a band": lambda path: open_scene(path, bands=NAMED).select(NAMED[:3]),
    "a nodata": lambda path: open_scene(path, nodata=7).select(NAMED[:3]),
    "one band's nodata": lambda path: open_scene(path, nodata={"green": 7}).select(NAMED[:3]),
    "other names": lambda path: open_scene(path, bands=["blue", "green", "red"]).select(NAMED[:3]),
    "coarser": lambda path: open_scene(path, resolution=60).select(NAMED[:3]),
    "coarser, nearest": lambda path: open_scene(path, resolution=60, resampling="nearest").select(NAMED[:3]),
    "half of it": lambda path: open_scene(path, grid=HALF).select(NAMED[:3]),
    "half of it in a mosaic": lambda path: open_mosaic([open_scene(path, grid=HALF)], grid=open_scene(path).grid),
    "a mosaic": lambda path: open_mosaic([open_scene(path)], grid=open_scene(path).grid),
    "a mosaic, alpha is a band": lambda path: open_mosaic(
        [open_scene(path, bands=NAMED).select(NAMED[:3])], grid=open_scene(path).grid
    ),
}


@pytest.mark.parametrize("second", OPENINGS)
@pytest.mark.parametrize("first", OPENINGS)
def test_no_way_of_opening_a_file_finds_the_blocks_of_another(veiled, tmp_path, first, second):
    store = DiskStore(tmp_path, 2**24)
    for name in (first, second):
        plain = OPENINGS[name](veiled)
        window = Window(0, 0, 80, 60)
        found, truth = cached(plain, store).read(window), plain.read(window)
        assert_array_equal(found.valid, truth.valid)
        assert_array_equal(found.pixels, truth.pixels)


def test_another_process_finds_the_blocks(scene, tmp_path):
    code = (
        "from geounet.raster.sampler import DiskStore, cached; from geounet.raster.scene import open_scene; "
        f"import sys; sys.stdout.write(cached(open_scene({scene.source!r}), DiskStore({str(tmp_path)!r}, 1)).name)"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout.decode()
        for seed in ("1", "2")
    }
    assert names == {cached(scene, DiskStore(tmp_path, 1)).name}


def test_an_alpha_that_counts_is_told_as_part_of_the_origin(veiled):
    rows = [OPENINGS[name](veiled).origin["bands"] for name in ("with its alpha", "alpha is a band")]
    assert [[row.get("alpha") for row in some] for some in rows] == [[4] * 3, [None] * 3]


def test_any_flipped_byte_of_a_block_on_disk_is_noticed(tmp_path):
    pixels, valid = reflectance((5, 6), bands=2), np.arange(30).reshape(5, 6) % 7 > 0

    def ask():
        return DiskStore(tmp_path, 2**20).block(("a", 0, 0), lambda: (pixels.copy(), valid.copy()))

    ask()
    (block,) = tmp_path.glob("*/*.block")
    whole = block.read_bytes()
    for place in range(len(whole)):
        for flip in (1, 32, 255):
            spoilt = bytearray(whole)
            spoilt[place] ^= flip
            block.write_bytes(spoilt)
            again = ask()
            assert_array_equal(again[0], pixels)
            assert_array_equal(again[1], valid)
            assert block.read_bytes() == whole


def test_a_block_that_is_cut_off_while_it_is_in_use_is_made_again(scene, tmp_path):
    kept, window = cached(scene, DiskStore(tmp_path, 2**24)), Window(0, 0, 60, 60)
    truth = kept.read(window)
    (block,) = tmp_path.glob("*/*.block")
    whole = block.read_bytes()
    block.write_bytes(whole[:200])
    assert_array_equal(kept.read(window).pixels, truth.pixels)
    assert block.read_bytes() == whole


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:0], lambda b: b"x" * len(b), lambda b: b[:16]])
def test_a_damaged_block_on_disk_is_made_again(scene, tmp_path, damage):
    window = Window(0, 0, 60, 60)
    truth = cached(scene, DiskStore(tmp_path, 2**24)).read(window)
    (block,) = tmp_path.glob("*/*.block")
    whole = block.read_bytes()
    block.write_bytes(damage(whole))
    again = cached(scene, DiskStore(tmp_path, 2**24)).read(window)
    assert_array_equal(again.pixels, truth.pixels)
    assert block.read_bytes() == whole


def test_the_folder_stays_within_its_limit_and_the_oldest_go_first(scene, tmp_path):
    one = 128 * 128 * 13
    store = DiskStore(tmp_path, 3 * one + 1000)
    kept = cached(scene, store)
    for col in (0, 128, 256):
        kept.read(Window(col, 0, 10, 10))
    assert sorted(p.name for p in tmp_path.glob("*/*")) == ["0_0.block", "0_1.block", "0_2.block"]
    kept.read(Window(0, 128, 10, 10))
    left = sorted(p.name for p in tmp_path.glob("*/*"))
    assert left == ["0_2.block", "1_0.block"]  # down to nine tenths
    assert sum(p.stat().st_size for p in tmp_path.glob("*/*")) <= store.limit_bytes


def test_what_a_killed_run_left_half_written_is_cleared_away_and_what_is_being_written_counts(scene, tmp_path):
    store = DiskStore(tmp_path, 2**20)
    (tmp_path / "other").mkdir()
    old, new = tmp_path / "other" / ".0_0.abcd.part", tmp_path / "other" / ".0_1.abcd.part"
    for part in (old, new):
        part.write_bytes(b"x" * 2**20)
    os.utime(old, (time.time() - 2 * 3600,) * 2)
    cached(scene, store).read(Window(0, 0, 10, 10))
    assert not old.exists()
    assert new.exists()
    assert not list(tmp_path.glob("*/*.block"))  # what another run is writing fills the folder already


def test_a_full_disk_costs_speed_and_nothing_else(scene, tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    kept = cached(scene, DiskStore(tmp_path, 2**24))
    monkeypatch.setattr("pathlib.Path.open", full)
    window = Window(0, 0, 90, 90)
    assert_array_equal(kept.read(window).pixels, scene.read(window).pixels)
    assert caplog.text.count("No space left on device") == 1


def test_labels_are_kept_too(tmp_path, scene):
    truth = np.random.default_rng(1).integers(0, 2, SHAPE, dtype=np.uint8)
    truth[:40] = 255
    labels = open_labels(
        write_raster(tmp_path / "truth.tif", truth, nodata=255), scene.grid, Legend.of(["land", "water"])
    )
    store = MemoryStore(2**24)
    kept = cached(labels, store)
    for window in (Window(-20, -10, 90, 80), Window(100, 30, 320, 270)):
        assert_array_equal(kept.read(window), labels.read(window))
    assert store.size_bytes == SHAPE[0] * SHAPE[1]
    assert isinstance(kept, Labels)
    assert kept.legend == labels.legend
    with pytest.raises(LabelError, match="MemoryStore"):
        cached(labels, DiskStore(tmp_path / "blocks", 2**20))


def test_cached_labels_tell_of_their_files_and_where_they_are_seen(tmp_path, scene):
    path = write_raster(tmp_path / "truth.tif", np.zeros(SHAPE, np.uint8))
    west, south, east, north = scene.grid.bounds
    geopandas.GeoDataFrame(geometry=[box(west, south, east, (south + north) / 2)], crs=UTM).to_file(tmp_path / "a.gpkg")
    labels = open_labels(path, scene.grid, Legend.of(["land", "water"]), aoi=tmp_path / "a.gpkg")
    kept = cached(labels, MemoryStore(2**20))
    assert kept.paths == labels.paths == (str(path), str(tmp_path / "a.gpkg"))
    assert kept.region is labels.region
    assert cached(open_labels(path, scene.grid, Legend.of(["land", "water"])), MemoryStore(0)).region is None


def test_an_array_still_in_its_file_is_read_from_there_once(tmp_path, monkeypatch):
    values = np.arange(600 * 700, dtype=np.int32).reshape(600, 700)
    coords = {"y": 5e6 - 30 * np.arange(600.0), "x": 5e5 + 30 * np.arange(700.0)}
    xarray.DataArray(values, dims=("y", "x"), coords=coords, name="red").to_netcdf(tmp_path / "a.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "a.nc", engine="scipy", cache=False) as dataset:
        plain = open_scene(dataset["red"])
        kept = cached(plain, MemoryStore(2**24))
        read, fill = [], ArrayScene._fill
        monkeypatch.setattr(
            ArrayScene, "_fill", lambda self, window, out: read.append(window) or fill(self, window, out)
        )
        for _ in range(2):
            assert_array_equal(kept.read(Window(30, 20, 40, 50)).pixels[0], values[20:70, 30:70])
        assert read == [Window(0, 0, 512, 512)]
        assert kept.read(Window(510, 510, 190, 90)).pixels[0, -1, -1] == 600 * 700 - 1


def test_a_dask_array_computes_each_chunk_once_and_numpys_is_left_alone():
    computed = []

    def block(block_info=None):
        computed.append(block_info[None]["chunk-location"])
        return np.full((1, 128, 128), 500, np.int16)

    chunks = ((1,), (128,) * 2, (128,) * 2)
    lazy = dask.array.map_blocks(block, chunks=chunks, dtype=np.int16, meta=np.empty((0, 0, 0), np.int16))
    coords = {"y": 5e6 - 30 * np.arange(256.0), "x": 5e5 + 30 * np.arange(256.0)}
    array = xarray.DataArray(lazy, dims=("band", "y", "x"), coords=coords)
    kept = cached(open_scene(array), MemoryStore(2**20))
    for _ in range(3):
        assert (kept.read(Window(50, 50, 100, 100)).pixels == 500).all()
    assert sorted(computed) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    plain = open_scene(xarray.DataArray(np.zeros((1, 256, 256)), dims=("band", "y", "x"), coords=coords))
    assert cached(plain, MemoryStore(2**20)) is plain


def test_pickled_a_memory_store_arrives_empty_and_shared_and_a_disk_store_finds_its_folder(scene, tmp_path):
    store = MemoryStore(2**24)
    pair = [cached(scene, store), cached(scene.select(["nir"]), store)]
    window = Window(5, 5, 50, 50)
    truth = pair[0].read(window)
    first, second = pickle.loads(pickle.dumps(pair))
    assert first.store is second.store
    assert (first.store.size_bytes, first.store.limit_bytes) == (0, 2**24)
    assert_array_equal(first.read(window).pixels, truth.pixels)
    on_disk = pickle.loads(pickle.dumps(cached(scene, DiskStore(tmp_path, 2**24))))
    assert_array_equal(on_disk.read(window).pixels, truth.pixels)


def test_a_store_that_is_not_told_takes_a_quarter_of_what_is_free():
    before = free_memory()
    assert 0 < MemoryStore().limit_bytes == pytest.approx(before / 4, rel=0.5)


def test_a_cached_scene_tells_where_it_comes_from(scene):
    kept = cached(scene, MemoryStore(0))
    assert (kept.paths, kept.origin, kept.bands, kept.grid) == (scene.paths, scene.origin, scene.bands, scene.grid)
    assert cached(kept, MemoryStore(0)) is kept


def test_refusals_say_what_to_do(tmp_path):
    lazy = xarray.DataArray(dask.array.zeros((1, 8, 8), chunks=4), dims=("band", "y", "x"))
    with pytest.raises(SceneError, match=r"lies in no file.*use a MemoryStore"):
        cached(open_scene(lazy), DiskStore(tmp_path, 1000))
    with pytest.raises(ConfigError, match="0 bytes or more, not -1"):
        MemoryStore(-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name another folder") as refused:
        DiskStore(tmp_path / "file", 1000)
    assert isinstance(refused.value, GeoUNetError)
