"""A survey counts each pixel once, wherever it is counted, and only once in a lifetime where it is kept."""

from contextlib import contextmanager
from dataclasses import replace

import dask
import numpy as np
import pytest
import rasterio
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.windows import Window

from geounet.core.legend import Legend
from geounet.core.stats import BandStats
from geounet.errors import BandMismatchError, ConfigError, LabelError, OutputError
from geounet.raster.labels import open_labels
from geounet.raster.sampler import MemoryStore, Pair, Sample, cached, read_batch, survey
from geounet.raster.sampler.archive import Archive, Found
from geounet.raster.scene import FileScene, open_scene
from tests.making import BANDS, reflectance, write_raster

LEGEND = Legend.of(["land", "water"])


def pair_in(folder, number, shape, **labels):
    pixels = reflectance(shape, seed=number)
    truth = (pixels[3] < 1500).astype(np.uint8)
    truth[:3] = 255
    if number == 1:
        pixels[:, :10] = -9999
    scene = open_scene(write_raster(folder / f"{number}.tif", pixels, bands=BANDS, nodata=-9999))
    path = write_raster(folder / f"{number}_truth.tif", truth, nodata=255)
    return Pair(scene, open_labels(path, scene.grid, LEGEND, **labels))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Four scenes, one with nodata, one of several windows, labels with holes."""
    folder = tmp_path_factory.mktemp("pairs")
    return [pair_in(folder, n, shape) for n, shape in enumerate([(64, 80), (50, 40), (1040, 600), (128, 128)])]


@pytest.fixture(scope="module")
def found(pairs):
    with dask.config.set(scheduler="synchronous"):
        return survey(pairs, values_of=["nir"])


def pixels_of(pair):
    """Values, class ids and validity of a whole scene, by rasterio."""
    with rasterio.open(pair.scene.source) as dataset:
        image = dataset.read()
    with rasterio.open(pair.labels.source) as dataset:
        truth = dataset.read(1)
    return image, truth, (image != -9999).all(axis=0)


def exact(found):
    """All numbers of a survey, to the last bit."""
    stats = found.stats
    return [
        stats.count, stats.pixels, *(a.tobytes() for a in (stats.mean, stats.m2, stats.minimum, stats.maximum)),
        [dict(bins) for bins in stats.sketch], found.counts.counts.tolist(), found.counts.ignored,
        [(cells.shape, cells.size, cells.sums.dtype.str, cells.sums.tobytes()) for cells in found.cells],
        {name: dict(values) for name, values in found.values.items()},
    ]  # fmt: skip


def test_a_survey_is_numpys_mean_and_count_over_the_valid_pixels(pairs, found):
    whole = [pixels_of(pair) for pair in pairs]
    flat = np.concatenate([image[:, good] for image, _, good in whole], axis=1)
    truth = np.concatenate([ids[good] for _, ids, good in whole])
    assert found.stats.count == flat.shape[1]
    assert found.stats.pixels == sum(good.size for *_, good in whole)
    assert_allclose(found.stats.mean, flat.mean(axis=1), rtol=1e-12)
    assert_allclose(found.stats.std, flat.std(axis=1), rtol=1e-9)
    assert_array_equal(found.stats.minimum, flat.min(axis=1))
    assert_array_equal(found.stats.maximum, flat.max(axis=1))
    assert_allclose(
        found.stats.quantiles([0.01, 0.5, 0.99]),
        np.quantile(flat, [0.01, 0.5, 0.99], axis=1, method="lower").T,
        rtol=0.01,
    )
    assert_array_equal(found.counts.counts, [(truth == 0).sum(), (truth == 1).sum()])
    assert found.counts.ignored == (truth == 255).sum()


def test_values_are_counted_one_by_one(pairs, found):
    nir = np.concatenate([image[3, good] for image, _, good in map(pixels_of, pairs)])
    values, counts = np.unique(nir, return_counts=True)
    assert dict(found.values["nir"]) == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert list(found.values["nir"]) == sorted(found.values["nir"])


def test_cells_know_what_lies_where(pairs, found):
    assert len(found.cells) == len(pairs)
    rng = np.random.default_rng(0)
    for pair, cells in zip(pairs, found.cells, strict=True):
        _, truth, good = pixels_of(pair)
        for _ in range(20):
            top, left = (16 * int(rng.integers(-(-length // 16))) for length in cells.shape)
            here = (slice(top, top + 64), slice(left, left + 64))
            kinds = [(truth[here][good[here]] == value).sum() for value in (0, 1, 255)]
            assert cells.inside(np.array([top]), np.array([left]), 64)[0].tolist() == kinds


@contextmanager
def cluster_of_threads():
    from distributed import Client

    with Client(processes=False, n_workers=2, threads_per_worker=2, dashboard_address=None):
        yield


@contextmanager
def cluster_of_processes():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster),
    ):
        yield


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(lambda: dask.config.set(scheduler="threads", num_workers=1), id="one thread"),
        pytest.param(lambda: dask.config.set(scheduler="threads", num_workers=7), id="seven threads"),
        pytest.param(cluster_of_threads, id="a cluster of threads"),
        pytest.param(cluster_of_processes, id="a cluster of processes"),
    ],
)
def test_every_bit_is_the_same_wherever_it_is_counted(pairs, found, scheduler):
    with scheduler():
        assert exact(survey(pairs, values_of=["nir"])) == exact(found)


def test_surveys_of_parts_add_to_that_of_the_whole(pairs, found):
    parts = [survey([pair], values_of=["nir"]) for pair in pairs]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert exact(total) == exact(found)


def test_scenes_without_labels_have_no_class_counts(pairs):
    alone = [Pair(pair.scene) for pair in pairs[:2]]
    found = survey(alone)
    assert found.counts.counts.tolist() == []
    assert found.counts.ignored == found.stats.count == survey(pairs[:2]).stats.count
    assert [cells.classes for cells in found.cells] == [0, 0]
    assert found.cells[1].totals.tolist() == [40 * 40]


def test_scenes_with_and_without_labels_are_counted_together(pairs):
    mixed = survey([Pair(pairs[0].scene), pairs[3]])
    assert mixed.counts.counts.tolist() == survey([pairs[3]]).counts.counts.tolist()
    assert mixed.counts.ignored == 64 * 80 + survey([pairs[3]]).counts.ignored
    assert [cells.classes for cells in mixed.cells] == [0, 2]


def test_a_scene_without_a_valid_pixel_adds_nothing(pairs, tmp_path):
    void = open_scene(
        write_raster(tmp_path / "void.tif", np.full((6, 20, 20), -9999, np.int16), bands=BANDS, nodata=-9999)
    )
    alone = survey([Pair(void)])
    assert (alone.stats.count, alone.stats.pixels, alone.counts.ignored) == (0, 400, 0)
    both = survey([Pair(pairs[0].scene), Pair(void)])
    assert both.stats.mean.tolist() == survey([Pair(pairs[0].scene)]).stats.mean.tolist()


def test_a_band_of_no_whole_numbers_holds_no_categories(tmp_path):
    scene = open_scene(
        write_raster(tmp_path / "a.tif", np.linspace(0, 1, 64, dtype="f4").reshape(8, 8), bands=["slope"])
    )
    with pytest.raises(ConfigError, match=r"band slope of .*a\.tif holds values that are no whole numbers"):
        survey([Pair(scene)], values_of=["slope"])


@pytest.mark.parametrize("shape", [(512, 150), (1024, 75)], ids=["in one window", "in two"])
def test_a_band_of_too_many_values_holds_no_categories(tmp_path, shape):
    pixels = np.arange(512 * 150, dtype=np.int32).reshape(shape)
    scene = open_scene(write_raster(tmp_path / "a.tif", pixels // 2, bands=["code"]))
    assert dict(survey([Pair(scene)], values_of=["code"]).values["code"]) == dict.fromkeys(range(256 * 150), 2)
    scene = open_scene(write_raster(tmp_path / "b.tif", pixels, bands=["code"]))
    with pytest.raises(ConfigError, match=r"band code of .*b\.tif holds more than 65536 different values"):
        survey([Pair(scene)], values_of=["code"])


def test_a_band_that_is_not_there_has_no_values(pairs):
    with pytest.raises(BandMismatchError, match=r"values of scl are to be counted, but .*0\.tif has the bands blue, "):
        survey(pairs, values_of=["scl"])


def test_a_survey_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no scene to count pixels in"):
        survey([])


@pytest.mark.parametrize("bands", [["nir", "blue"], ["blue", "red"], ["blue"], ["blue", "nir", "red"]])
def test_scenes_of_other_bands_or_in_another_order_do_not_add(pairs, bands):
    mixed = [Pair(pairs[0].scene.select(["blue", "nir"])), Pair(pairs[1].scene.select(bands))]
    told = rf"1\.tif has the bands {', '.join(bands)}, but .*0\.tif blue, nir; .* in the same order"
    for read in (lambda: survey(mixed), lambda: read_batch(mixed, [Sample(0, Window(0, 0, 8, 8))])):
        with pytest.raises(BandMismatchError, match=told):
            read()


def test_a_band_that_stands_in_for_another_counts_as_it(pairs, tmp_path):
    narrow = open_scene(pairs[1].scene.source, bands=["blue", "green", "red", "nir08", "swir1", "swir2"])
    mixed = [Pair(pairs[0].scene), Pair(narrow)]
    truth = survey([Pair(pair.scene) for pair in pairs[:2]], values_of=["nir"])
    assert exact(survey(mixed, values_of=["nir"])) == exact(truth)
    survey([Pair(narrow)], cache=tmp_path)
    for _ in range(2):
        assert exact(survey(mixed, values_of=["nir"], cache=tmp_path)) == exact(truth)


def test_what_cannot_be_read_is_said(pairs, tmp_path):
    path = write_raster(tmp_path / "gone.tif", np.zeros((64, 80), np.uint8), nodata=255)
    pair = Pair(pairs[0].scene, open_labels(path, pairs[0].scene.grid, LEGEND))
    path.write_bytes(b"")
    with pytest.raises(LabelError, match=r"gone\.tif"):
        survey([pair])


@pytest.fixture
def reads(monkeypatch):
    """Windows of scenes that were read."""
    seen, fill = [], FileScene._fill
    monkeypatch.setattr(FileScene, "_fill", lambda self, window, out: seen.append(window) or fill(self, window, out))
    return seen


@pytest.fixture
def own(tmp_path):
    """Two pairs whose files a test may spoil."""
    return [pair_in(tmp_path, n, (64, 80)) for n in (0, 1)]


def test_what_was_counted_once_is_not_read_again(pairs, found, tmp_path, reads):
    folder = tmp_path / "deep" / "cache"
    first = survey(pairs, values_of=["nir"], cache=folder)
    assert exact(first) == exact(found)
    assert len(reads) > 0
    assert len(list(folder.iterdir())) == len(pairs)
    reads.clear()
    again = [Pair(open_scene(p.scene.source), open_labels(p.labels.source, p.scene.grid, LEGEND)) for p in pairs]
    assert exact(survey(again, values_of=["nir"], cache=folder)) == exact(found)
    assert survey(again[::-1], values_of=["nir"], cache=folder).counts.counts.tolist() == found.counts.counts.tolist()
    assert reads == []
    survey([*again[:1], Pair(again[0].scene)], values_of=["nir"], cache=folder)
    assert len(reads) == 1  # the scene alone is something else


CHANGES = {
    "a pixel of the scene": lambda pair: repaint(pair.scene.source),
    "a label": lambda pair: repaint(pair.labels.source),
    "a mask beside the scene": lambda pair: hide(pair.scene.source),
}
OPTIONS = {
    "bands": lambda pair: replace(pair, scene=pair.scene.select(["red", "nir"])),
    "nodata": lambda pair: replace(pair, scene=open_scene(pair.scene.source, nodata=0)),
    "the legend": lambda pair: labelled_anew(pair, Legend.of(["water", "land"])),
    "an ignored code": lambda pair: labelled_anew(pair, LEGEND, ignore=[7]),
    "one class": lambda pair: labelled_anew(pair, Legend.of(["land"]), unknown="ignore"),
}


def repaint(path):
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, 40, 40] = 1 - pixels[:, 40, 40] % 2
        dataset.write(pixels)


def hide(path):
    with rasterio.open(path) as dataset:
        shape, profile = dataset.shape, dataset.profile
    good = np.full(shape, 255, np.uint8)
    good[30:] = 0
    write_raster(f"{path}.msk", good, transform=profile["transform"], crs=profile["crs"])
    with rasterio.open(f"{path}.msk", "r+") as mask:
        mask.update_tags(**{f"INTERNAL_MASK_FLAGS_{band}": "2" for band in range(1, 7)})


def labelled_anew(pair, legend, **options):
    return replace(pair, labels=open_labels(pair.labels.source, pair.scene.grid, legend, **options))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changed_is_counted_again(own, tmp_path, reads, change):
    before = survey(own, cache=tmp_path / "cache")
    change(own[0])
    again = [Pair(open_scene(p.scene.source), open_labels(p.labels.source, p.scene.grid, LEGEND)) for p in own]
    reads.clear()
    after = survey(again, cache=tmp_path / "cache")
    assert len(reads) == 1
    assert exact(after) == exact(survey(again)) != exact(before)


@pytest.mark.parametrize("change", OPTIONS.values(), ids=OPTIONS)
def test_what_is_read_otherwise_is_counted_again(own, tmp_path, reads, change):
    survey(own[1:], cache=tmp_path / "cache")
    other = [change(own[1])]
    reads.clear()
    after = survey(other, cache=tmp_path / "cache")
    assert len(reads) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert exact(after) == exact(survey(other))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda raw: raw[:400], id="cut off"),
        pytest.param(lambda raw: raw[:300] + b"?" * 50 + raw[350:], id="overwritten within"),
    ],
)
def test_a_damaged_file_is_made_again(own, tmp_path, reads, spoil):
    cache = tmp_path / "cache"
    first = survey(own, cache=cache)
    path = min(cache.iterdir())
    path.write_bytes(spoil(whole := path.read_bytes()))
    reads.clear()
    assert exact(survey(own, cache=cache)) == exact(first)
    assert len(reads) == 1
    assert len(path.read_bytes()) == len(whole)
    reads.clear()
    survey(own, cache=cache)
    assert reads == []


def test_any_flipped_byte_of_what_was_kept_is_noticed(tmp_path):
    archive, whole = Archive(tmp_path / "cache"), survey([pair_in(tmp_path, 0, (6, 7))])
    found = Found(whole.stats, whole.cells[0], {})
    archive.keep("once", found)
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    assert archive.find("once", (6, 7), found.cells.size, ()).stats.mean.tolist() == found.stats.mean.tolist()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        assert archive.find("once", (6, 7), found.cells.size, ()) is None


def test_what_was_counted_is_found_again_for_pairs_kept_in_memory(own, tmp_path, reads):
    first = survey(own, cache=tmp_path / "cache")
    reads.clear()
    store = MemoryStore(2**20)
    again = [Pair(cached(pair.scene, store), cached(pair.labels, store)) for pair in own]
    assert exact(survey(again, cache=tmp_path / "cache")) == exact(first)
    assert reads == []


def test_a_survey_that_fails_keeps_what_was_whole(own, tmp_path):
    bad = Pair(own[1].scene, open_labels(own[1].labels.source, own[1].scene.grid, Legend.of(["land"])))
    with pytest.raises(ValueError, match="legend"):
        survey([own[0], bad], cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) <= 1
    assert not list((tmp_path / "cache").glob("*.part*"))


def test_a_scene_in_memory_is_known_by_its_values(tmp_path):
    import xarray

    def pair(value):
        array = xarray.DataArray(np.full((1, 8, 8), value, np.int16), dims=("band", "y", "x"))
        return Pair(open_scene(array, bands=["red"]))

    first = survey([pair(3)], cache=tmp_path)
    assert exact(survey([pair(3)], cache=tmp_path)) == exact(first)
    assert survey([pair(4)], cache=tmp_path).stats.mean.tolist() == [4]


def test_a_scene_that_cannot_be_told_from_others_is_counted_every_time(tmp_path):
    class Moody(FileScene):
        def __reduce__(self):
            raise TypeError("cannot be pickled")

    made = pair_in(tmp_path, 0, (20, 20)).scene
    moody = Moody(**{name: getattr(made, name) for name in made.__dataclass_fields__})
    object.__setattr__(moody, "tags", {"lock": object()})
    assert survey([Pair(moody)], cache=tmp_path / "cache").stats.count == 400
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_read(pairs, tmp_path, reads):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        survey(pairs, cache=tmp_path / "file" / "cache")
    assert reads == []


def test_a_wide_scene_is_read_row_by_row(tmp_path, reads):
    scene = open_scene(write_raster(tmp_path / "wide.tif", np.ones((700, 1100), np.uint8)))
    found = survey([Pair(scene)])
    assert found.stats.count == 700 * 1100
    assert {(w.row_off, w.col_off, w.height, w.width) for w in reads} == {
        (row, col, height, width)
        for row, height in ((0, 512), (512, 188))
        for col, width in ((0, 512), (512, 512), (1024, 76))
    }
    assert found.stats.mean.tolist() == BandStats.of(scene.read(Window(0, 0, 1100, 700)).pixels).mean.tolist()
