"""A window read equals rasterio's own, from any thread, and a pixel is valid by one rule."""

import gc
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rioxarray
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.env import get_gdal_config
from rasterio.windows import Window

from geounet.errors import BandMismatchError, GridError, SceneError, UnsupportedRasterError
from geounet.raster import handles
from geounet.raster.gdal import CACHE_BYTES
from geounet.raster.scene import ArrayScene, open_scene
from tests.making import BANDS, PLACE, SHARED, UTM, needs_shared, write_raster

EDGE = SHARED / "edge-cases"

# (dtype, nodata): each kind GDAL compares in its own way
KINDS = [
    ("uint8", None), ("uint8", 0), ("int8", -1), ("uint16", 65535), ("int16", -9999), ("int32", -(2**31)),
    ("uint32", 2**32 - 1), ("float32", None), ("float32", -9999.0), ("float32", float("nan")), ("float32", -3.4e38),
    ("float32", 0.0), ("float64", -9999.0), ("float64", 1e-5), ("float64", -1.7976931348623157e308),
]  # fmt: skip


def awkward(dtype, nodata, shape, seed):
    """Values near and at nodata, at the ends of the type and, for floats, not finite."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        tempting = [0.0, 1.0, np.nan, np.inf, -np.inf]
        near = [] if nodata is None or np.isnan(nodata) else [nodata, nodata * (1 - 3e-7), nodata * (1 - 6e-7)]
        values = np.asarray(tempting + near, kind)
    else:
        info = np.iinfo(kind)
        near = [] if nodata is None else [n for n in (nodata - 1, nodata, nodata + 1) if info.min <= n <= info.max]
        values = np.asarray([info.min, info.max, 1, 7, *near], kind)
    return rng.choice(values, shape)


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    """One small tiled raster of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    return [
        write_raster(folder / f"{i}.tif", awkward(dtype, nodata, (3, 40, 50), i), nodata=nodata, tiled=True,
                     blockxsize=16, blockysize=16)
        for i, (dtype, nodata) in enumerate(KINDS)
    ]  # fmt: skip


@given(
    st.integers(0, len(KINDS) - 1),
    st.tuples(st.integers(-20, 60), st.integers(-20, 60), st.integers(1, 40), st.integers(1, 40)),
    st.permutations(["band_1", "band_2", "band_3"]).flatmap(lambda names: st.integers(1, 3).map(lambda n: names[:n])),
)
@settings(max_examples=150, deadline=None)
def test_a_window_read_equals_rasterios_own(rasters, number, place, names):
    window = Window(*place)
    chip = open_scene(rasters[number]).select(names).read(window)
    indexes = [int(name[-1]) for name in names]
    with rasterio.open(rasters[number]) as dataset, np.errstate(over="ignore"):
        whole = dataset.read(indexes).astype(np.float32)
        good = (dataset.read_masks(indexes) != 0).all(axis=0) & np.isfinite(whole).all(axis=0)
    # a border as wide as any window takes the place of what is outside
    whole = np.pad(whole, ((0, 0), (60, 60), (60, 60)))
    good = np.pad(good, 60)
    rows, cols = (slice(start + 60, start + 60 + size) for start, size in ((place[1], place[3]), (place[0], place[2])))
    assert chip.pixels.dtype == np.float32
    assert chip.window == window
    assert_array_equal(chip.pixels, whole[:, rows, cols])
    assert_array_equal(chip.valid, good[rows, cols])


def test_a_chip_is_filled_band_by_band_where_it_is_not_valid(tmp_path):
    pixels = np.array([[[1, -9999, 3]], [[4, 5, -9999]]], np.int16)
    chip = open_scene(write_raster(tmp_path / "s.tif", pixels, nodata=-9999)).read(Window(0, 0, 3, 1))
    assert chip.valid.tolist() == [[True, False, False]]
    assert chip.filled([10, 20]).tolist() == [[[1, 10, 10]], [[4, 20, 20]]]


def test_a_wholly_valid_chip_is_filled_without_a_copy(tmp_path):
    chip = open_scene(write_raster(tmp_path / "s.tif", np.ones((2, 3, 4), np.uint8))).read(Window(0, 0, 4, 3))
    assert chip.filled([0, 0]) is chip.pixels


# --- bands -----------------------------------------------------------------------------------------------------------


def test_bands_are_met_by_name_in_the_order_asked_for(tmp_path):
    pixels = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels, bands=["B12", "B11", "B08", "B04", "B03", "B02"]))
    assert scene.bands == ("swir2", "swir1", "nir", "red", "green", "blue")
    view = scene.select(["blue", "nir08"])  # nir stands in for nir08
    assert view.bands == ("blue", "nir")
    assert view.read(Window(0, 0, 1, 1)).pixels.ravel().tolist() == [5, 2]


def test_validity_rests_on_the_bands_that_are_read(tmp_path):
    pixels = np.ones((2, 1, 2), np.int16)
    pixels[1, 0, 0] = -1
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels, bands=["red", "nir"], nodata=-1))
    window = Window(0, 0, 2, 1)
    assert scene.read(window).valid.tolist() == [[False, True]]
    assert scene.select(["red"]).read(window).valid.all()


def test_a_missing_band_is_refused_with_what_there_is_and_what_to_do(tmp_path):
    named = open_scene(write_raster(tmp_path / "a.tif", np.ones((2, 2, 2), np.uint8), bands=["red", "nir"]))
    with pytest.raises(BandMismatchError, match=r"red, nir; blue, red are to be read, so blue is missing.*bands="):
        named.select(["blue", "red"])
    bare = open_scene(write_raster(tmp_path / "b.tif", np.ones((2, 2, 2), np.uint8)))
    with pytest.raises(BandMismatchError, match=r"does not name all of its bands: pass --bands blue=1"):
        bare.select(["blue", "red"])
    assert bare.select(["band_2", "band_1"]).bands == ("band_2", "band_1")


def test_two_bands_of_one_name_cannot_be_told_apart(tmp_path):
    scene = open_scene(write_raster(tmp_path / "s.tif", np.ones((2, 2, 2), np.uint8), bands=["red", "B04"]))
    assert scene.bands == ("red", "red")
    with pytest.raises(BandMismatchError, match="more than one band called red"):
        scene.select(["red"])
    assert open_scene(tmp_path / "s.tif", bands={"red": 2}).select(["red"]).bands == ("red",)


def test_the_user_names_bands_by_order_or_by_number(tmp_path):
    pixels = np.arange(1, 4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    path = write_raster(tmp_path / "s.tif", pixels)
    assert open_scene(path, bands=["B02", "B03", "B04"]).bands == ("blue", "green", "red")
    some = open_scene(path, bands={"nir": 3, "red": 1})
    assert some.bands == ("nir", "red")
    assert some.read(Window(0, 0, 1, 1)).pixels.ravel().tolist() == [3, 1]
    with pytest.raises(BandMismatchError, match="has 3 image bands, but 2 names"):
        open_scene(path, bands=["a", "b"])
    with pytest.raises(BandMismatchError, match="nir=4 is not one of them"):
        open_scene(path, bands={"nir": 4})


@pytest.fixture
def rgba(tmp_path):
    pixels = np.full((4, 1, 3), 9, np.uint8)
    pixels[3] = [[0, 1, 255]]
    path = write_raster(tmp_path / "rgba.tif", pixels, photometric="rgb", alpha="yes")
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    return path


def test_alpha_says_what_is_valid_and_is_no_image_band(rgba):
    scene = open_scene(rgba)
    assert scene.bands == ("band_1", "band_2", "band_3")
    assert scene.read(Window(0, 0, 3, 1)).valid.tolist() == [[False, True, True]]
    assert any("marks band 4 as alpha" in note for note in scene.notes)


@pytest.mark.parametrize("bands", [["red", "green", "blue", "nir"], {"nir": 4}])
def test_alpha_is_an_image_band_when_the_user_says_so(rgba, bands):
    scene = open_scene(rgba, bands=bands)
    chip = scene.select(["nir"]).read(Window(0, 0, 3, 1))
    assert chip.pixels.ravel().tolist() == [0, 1, 255]
    assert chip.valid.all()
    assert not any("alpha" in note for note in scene.notes)


def test_alpha_described_as_a_light_is_an_image_band(rgba):
    with rasterio.open(rgba, "r+") as dataset:
        for index, name in enumerate(["red", "green", "blue", "nir"], 1):
            dataset.set_band_description(index, name)
    scene = open_scene(rgba)
    assert scene.bands == ("red", "green", "blue", "nir")
    assert scene.read(Window(0, 0, 3, 1)).valid.all()


def test_nodata_and_alpha_both_count(rgba):
    with rasterio.open(rgba, "r+") as dataset:
        dataset.write(np.array([[9, 0, 9]], np.uint8), 1)
    valid = open_scene(rgba, nodata=0).read(Window(0, 0, 3, 1)).valid
    assert valid.tolist() == [[False, False, True]]


# --- nodata ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodata", [-9999, 0.5, 1e30])
def test_nodata_that_the_type_cannot_hold_masks_nothing_in_a_file_and_is_refused_from_a_user(tmp_path, nodata):
    path = write_raster(tmp_path / "s.tif", np.arange(256, dtype=np.uint8).reshape(16, 16))
    declared = tmp_path / "declared.vrt"
    rasterio.shutil.copy(path, declared, driver="VRT")
    text = declared.read_text().replace("<ColorInterp>", f"<NoDataValue>{nodata:g}</NoDataValue><ColorInterp>")
    declared.write_text(text)
    assert "<NoDataValue>" in text
    assert open_scene(declared).read(Window(0, 0, 16, 16)).valid.all()
    with pytest.raises(SceneError, match=r"s\.tif.*uint8\) cannot hold it"):
        open_scene(path, nodata=nodata)


@pytest.mark.parametrize("nodata", [float("inf"), float("nan")])
def test_no_integer_is_nodata_where_the_user_says_nan(tmp_path, nodata):
    path = write_raster(tmp_path / "s.tif", np.arange(256, dtype=np.uint8).reshape(16, 16), nodata=7)
    assert open_scene(path, nodata=nodata).read(Window(0, 0, 16, 16)).valid.all()


def test_the_users_nodata_replaces_the_files(tmp_path):
    path = write_raster(tmp_path / "s.tif", np.array([[0, 5, 7]], np.int16), nodata=5)
    assert open_scene(path).read(Window(0, 0, 3, 1)).valid.tolist() == [[True, False, True]]
    assert open_scene(path, nodata=0).read(Window(0, 0, 3, 1)).valid.tolist() == [[False, True, True]]


def test_neighbours_of_a_large_integer_nodata_stay_valid(tmp_path):
    """4294967295 and 4294967294 are one float32."""
    path = write_raster(tmp_path / "s.tif", np.array([[2**32 - 1, 2**32 - 2]], np.uint32), nodata=2**32 - 1)
    assert open_scene(path).read(Window(0, 0, 2, 1)).valid.tolist() == [[False, True]]


def test_a_double_beyond_float32_is_not_valid(tmp_path):
    path = write_raster(tmp_path / "s.tif", np.array([[1e300, 1.5]]))
    assert open_scene(path).read(Window(0, 0, 2, 1)).valid.tolist() == [[False, True]]


@pytest.mark.parametrize("internal", [True, False])
def test_masks_inside_and_beside_the_file_count(tmp_path, internal):
    path = write_raster(tmp_path / "s.tif", np.ones((2, 8, 8), np.uint8))
    mask = np.eye(8, dtype=bool)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert (tmp_path / "s.tif.msk").exists() is not internal
    assert_array_equal(open_scene(path).read(Window(0, 0, 8, 8)).valid, mask)


def test_usual_fill_that_is_not_declared_is_noted(tmp_path):
    path = write_raster(tmp_path / "s.tif", np.array([[-9999, 3]], np.int16))
    assert any("declares no nodata" in note for note in open_scene(path).notes)
    assert not open_scene(path, nodata=-9999).notes


# --- sources ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def product(tmp_path):
    """One file a band, as Landsat 8 has them."""
    folder = tmp_path / "LC08"
    folder.mkdir()
    for number in (2, 3, 4, 5, 6):  # only Landsat 8 and 9 have a reflectance band 6
        write_raster(folder / f"LC08_L2SP_SR_B{number}.TIF", np.full((4, 4), number, np.uint16), driver="GTiff")
    return folder


def test_a_folder_of_band_files_is_one_scene(product):
    for source in (product, str(product / "*_SR_B?.TIF"), sorted(product.iterdir())):
        scene = open_scene(source).select(["nir", "blue"])
        assert scene.read(Window(0, 0, 1, 1)).pixels.ravel().tolist() == [5, 2]


def test_band_files_named_by_the_user_go_by_their_place_in_the_list(product):
    scene = open_scene(sorted(product.iterdir()), bands={"red": 3, "blue": 1})
    assert scene.bands == ("red", "blue")
    assert scene.read(Window(0, 0, 1, 1)).pixels.ravel().tolist() == [4, 2]


def test_sensor_tokens_that_fit_no_sensor_together_stay_as_they_are(tmp_path):
    paths = [write_raster(tmp_path / f"x_B{n}.tif", np.ones((2, 2), np.uint8)) for n in (4, 5)]
    assert open_scene(paths).bands == ("B4", "B5")  # red, nir on Landsat 8; nir, swir1 on Landsat 5


def test_files_on_different_grids_without_a_place_are_refused_with_the_difference(tmp_path):
    one = write_raster(tmp_path / "one.tif", np.ones((4, 4), np.uint8))
    other = write_raster(tmp_path / "other.tif", np.ones((2, 2), np.uint8), transform=PLACE @ Affine.scale(2), crs=None)
    with pytest.raises(GridError, match=r"other\.tif does not lie on the grid of .*one\.tif"):
        open_scene([one, other])


def test_files_of_different_types_and_nodata_stack(tmp_path):
    one = write_raster(tmp_path / "one.tif", np.array([[0, 1, 2]], np.uint8), nodata=0)
    other = write_raster(tmp_path / "other.tif", np.array([[0.5, 1.5, np.nan]], np.float32))
    scene = open_scene([one, other])
    chip = scene.read(Window(0, 0, 3, 1))
    assert scene.dtype == np.float32
    assert chip.valid.tolist() == [[False, True, False]]
    assert_array_equal(chip.pixels[:, 0], [[0, 1, 2], [0.5, 1.5, np.nan]])


def test_nothing_matches_and_nothing_given_are_refused(tmp_path):
    with pytest.raises(SceneError, match="no file matches"):
        open_scene(str(tmp_path / "*.tif"))
    with pytest.raises(SceneError, match="the list is empty"):
        open_scene([])
    with pytest.raises(SceneError, match=r"gone\.tif does not exist"):
        open_scene(tmp_path / "gone.tif")


def test_complex_numbers_are_refused_with_the_reason(tmp_path):
    path = write_raster(tmp_path / "c.tif", np.ones((2, 2), np.complex64))
    with pytest.raises(UnsupportedRasterError, match=r"c\.tif holds complex numbers \(complex64\) in band 1"):
        open_scene(path)


def test_damage_is_an_error_with_file_and_window_and_never_zeros(tmp_path):
    rng = np.random.default_rng(0)
    path = write_raster(tmp_path / "s.tif", rng.integers(0, 255, (1, 64, 64), np.uint8), tiled=True, blockxsize=16,
                        blockysize=16, compress="deflate")  # fmt: skip
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    Path(path).write_bytes(data)
    scene = open_scene(path)
    with pytest.raises(SceneError, match=r"s\.tif cannot be read at rows 0 to 63, columns 0 to 63"):
        scene.read(scene.grid.window)


def test_jpeg_damage_that_gdal_only_mutters_about_is_an_error(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "s.tif"
    write_raster(path, rng.integers(0, 255, (3, 64, 64), np.uint8), compress="jpeg", photometric="ycbcr")
    data = bytearray(path.read_bytes())
    data[-400:] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(SceneError, match="JPEGLib"):
        open_scene(path).read(Window(0, 0, 64, 64))


# --- threads, processes, handles -------------------------------------------------------------------------------------


def test_threads_read_what_one_reader_reads(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 1000, (3, 200, 200)).astype(np.int16)
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels, tiled=True, blockxsize=64, blockysize=64))
    windows = [Window(x, y, 50, 50) for y in range(0, 200, 25) for x in range(0, 200, 25)]
    with ThreadPoolExecutor(8) as pool:
        for window, chip in zip(windows, pool.map(scene.read, windows), strict=True):
            rows, cols = slice(window.row_off, window.row_off + 50), slice(window.col_off, window.col_off + 50)
            inside = pixels[:, rows, cols]
            assert_array_equal(chip.pixels[:, : inside.shape[1], : inside.shape[2]], inside)


def test_a_scene_survives_pickling_after_it_was_read(tmp_path):
    scene = open_scene(write_raster(tmp_path / "s.tif", np.arange(12, dtype=np.uint8).reshape(1, 3, 4), nodata=3))
    window = Window(0, 0, 4, 3)
    before = scene.read(window)
    after = pickle.loads(pickle.dumps(scene)).read(window)
    assert_array_equal(after.pixels, before.pixels)
    assert_array_equal(after.valid, before.valid)


def open_files_here():
    return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted through /proc")
def test_files_are_closed_with_their_scene(tmp_path):
    path = write_raster(tmp_path / "s.tif", np.ones((1, 4, 4), np.uint8))
    scene = open_scene(path)
    scene.read(Window(0, 0, 4, 4))
    assert str(path) in open_files_here()
    del scene
    gc.collect()
    assert str(path) not in open_files_here()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted through /proc")
def test_a_thread_keeps_few_files_open_and_still_reads_all(tmp_path, monkeypatch):
    monkeypatch.setattr(handles, "MOST_OPEN", 3)
    paths = [write_raster(tmp_path / f"{i}.tif", np.full((4, 4), i, np.uint8)) for i in range(8)]
    scenes = [open_scene(path) for path in paths]
    for _ in range(2):
        read = [int(scene.read(Window(0, 0, 1, 1)).pixels[0, 0, 0]) for scene in scenes]
        assert read == list(range(8))
    assert len(open_files_here() & {str(path) for path in paths}) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # what is tested
def test_a_forked_child_opens_the_file_anew(tmp_path):
    scene = open_scene(write_raster(tmp_path / "s.tif", np.full((1, 4, 4), 7, np.uint8)))
    scene.read(Window(0, 0, 4, 4))
    mine = id(scene.picks[0].raster.handle.dataset())
    child = os.fork()
    if child == 0:
        fresh = id(scene.picks[0].raster.handle.dataset()) != mine
        os._exit(0 if fresh and scene.read(Window(0, 0, 4, 4)).pixels.min() == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_block_cache_is_bounded_in_every_thread(tmp_path, monkeypatch):
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    scene = open_scene(write_raster(tmp_path / "s.tif", np.ones((1, 4, 4), np.uint8)))
    seen = []

    def read():
        scene.read(Window(0, 0, 4, 4))
        seen.append(get_gdal_config("GDAL_CACHEMAX"))

    for _ in range(2):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    read()
    assert max(seen) <= CACHE_BYTES


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray multiplies transforms by *
@pytest.mark.parametrize("chunks", [None, {"x": 7, "y": 5}])
@pytest.mark.parametrize("masked", [False, True])
def test_an_array_from_a_file_is_the_files_scene(tmp_path, chunks, masked):
    pixels = np.random.default_rng(0).integers(0, 9, (2, 20, 30)).astype(np.int16)
    path = write_raster(tmp_path / "s.tif", pixels, bands=["B02", "B03"], nodata=3)
    with rioxarray.open_rasterio(path, chunks=chunks, masked=masked) as array:
        scene = open_scene(array)
        assert isinstance(scene, ArrayScene)
        file = open_scene(path)
        assert scene.grid == file.grid
        assert scene.bands == file.bands == ("blue", "green")
        window = Window(-3, 4, 20, 30)
        mine, its = scene.read(window), file.read(window)
        assert_array_equal(mine.valid, its.valid)
        assert_array_equal(mine.filled([0, 0]), its.filled([0, 0]))


def array(values, x, y, **attrs):
    spatial_ref = xr.DataArray(0, attrs={"crs_wkt": UTM.to_wkt()})
    return xr.DataArray(
        values, dims=("band", "y", "x"), coords={"x": x, "y": y, "spatial_ref": spatial_ref}, attrs=attrs
    )


def test_coordinates_are_pixel_centres():
    scene = open_scene(array(np.zeros((1, 2, 3)), x=[15.0, 45.0, 75.0], y=[-15.0, -45.0]))
    assert scene.grid.transform == Affine(30, 0, 0, 0, -30, 0)
    assert scene.grid.crs == UTM
    assert not scene.notes


def test_ascending_y_stays_as_it_is():
    scene = open_scene(array(np.arange(6.0).reshape(1, 2, 3), x=[15.0, 45.0, 75.0], y=[15.0, 45.0]))
    assert scene.grid.transform == Affine(30, 0, 0, 0, 30, 0)
    assert scene.read(Window(0, 0, 1, 1)).pixels.ravel().tolist() == [0]


def test_a_cropped_array_does_not_keep_the_place_of_the_whole():
    whole = array(np.zeros((1, 4, 4)), x=np.arange(15.0, 120, 30), y=-np.arange(15.0, 120, 30))
    whole.coords["spatial_ref"].attrs["GeoTransform"] = "0 30 0 0 0 -30"
    assert open_scene(whole[:, 1:, 2:]).grid.transform == Affine(30, 0, 60, 0, -30, -30)


def test_a_rotated_grid_comes_from_its_geotransform():
    cube = xr.DataArray(np.zeros((1, 2, 2)), dims=("band", "y", "x"))
    cube.coords["spatial_ref"] = xr.DataArray(0, attrs={"spatial_ref": UTM.to_wkt(), "GeoTransform": "5 1 2 7 3 -4"})
    assert open_scene(cube).grid.transform == Affine(1, 2, 5, 3, -4, 7)


def test_uneven_coordinates_are_on_no_grid():
    with pytest.raises(GridError, match=r"x coordinates .* not evenly spaced"):
        open_scene(array(np.zeros((1, 2, 3)), x=[0.0, 1.0, 5.0], y=[1.0, 0.0]))


def test_axes_other_than_band_y_x_are_refused_with_a_way_out():
    with pytest.raises(UnsupportedRasterError, match=r"axes \(time, y, x\).*da\.isel\(time=0\)"):
        open_scene(xr.DataArray(np.zeros((2, 2, 2)), dims=("time", "y", "x")))
    with pytest.raises(UnsupportedRasterError, match="complex"):
        open_scene(xr.DataArray(np.zeros((2, 2), complex), dims=("y", "x")))


def test_a_plain_image_and_axes_by_other_names_are_scenes():
    pixels = np.arange(6.0).reshape(2, 3)
    image = xr.DataArray(pixels, dims=("lat", "lon"), coords={"lat": [2.0, 1.0], "lon": [5.0, 6.0, 7.0]})
    scene = open_scene(image, bands=["red"])
    assert scene.bands == ("red",)
    assert scene.grid.transform == Affine(1, 0, 4.5, 0, -1, 2.5)
    last = open_scene(xr.DataArray(np.stack([pixels, -pixels], -1), dims=("y", "x", "band")))
    assert last.read(Window(1, 1, 1, 1)).pixels.ravel().tolist() == [4, -4]


@pytest.mark.parametrize("place", ["attrs", "encoding"])
@pytest.mark.parametrize("key", ["_FillValue", "nodata"])
def test_an_arrays_nodata_is_found_in_attributes_and_encoding(place, key):
    cube = xr.DataArray(np.array([[1, 2, 3]]), dims=("y", "x"))
    getattr(cube, place)[key] = 2
    assert open_scene(cube).read(Window(0, 0, 3, 1)).valid.tolist() == [[True, False, True]]


def test_band_names_come_from_text_coordinates():
    cube = xr.DataArray(np.zeros((2, 1, 1)), dims=("band", "y", "x"), coords={"band": ["B04", "B08"]})
    assert open_scene(cube).bands == ("red", "nir")


def test_only_the_window_of_a_lazy_array_is_computed():
    computed = []

    def note(block, block_info=None):
        computed.append(block_info[0]["chunk-location"])
        return block

    lazy = dask.array.zeros((1, 40, 40), chunks=(1, 10, 10)).map_blocks(note, dtype=float, meta=np.zeros((0, 0, 0)))
    scene = open_scene(xr.DataArray(lazy, dims=("band", "y", "x")))
    assert scene.block_shape == (10, 10)
    scene.read(Window(0, 12, 5, 5))
    assert computed == [(0, 1, 0)]


# --- edge cases ------------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("real_float_nodata_rounding.tif", 616 - 518),
        ("real_all_nodata_narrow.tif", 0),
        ("float32_nan_declared.tif", 128 * 128 - 30 * 50),
        ("float32_nan_inf_undeclared.tif", 128 * 128 - 30 * 50 - 10 * 10 - 5 * 5),
        ("nodata_in_one_band.tif", 128 * 108 - 10 * 10),
        ("nodata_tag_not_in_data.tif", 128 * 128),
        ("nodata_out_of_range.vrt", 128 * 128),
        ("sparse.tif", 128 * 128),
        ("mixed_dtypes.vrt", 128 * 128),
        ("external_mask_missing.tif", 128 * 128),
        ("nir_tagged_as_alpha.tif", 128 * 128),
    ],
)
def test_valid_pixels_of_the_edge_cases(name, valid):
    scene = open_scene(EDGE / name)
    assert int(scene.read(scene.grid.window).valid.sum()) == valid


@needs_shared
def test_every_nodata_of_a_vrt_masks_its_own_band():
    scene = open_scene(EDGE / "nodata_differs_per_band.vrt")
    valid = scene.read(scene.grid.window).valid
    assert not valid[:10].any()
    assert not valid[118:].any()
    assert scene.select(["band_3", "band_4"]).read(scene.grid.window).valid.all()


@needs_shared
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zero_length.tif", "is empty"),
        ("truncated_header.tif", "cannot be opened as a raster"),
        ("not_a_raster.tif", "is a web page"),
        ("two_layers.gpkg", "no raster format"),
        ("real_two_subdatasets.h5", r"(?s)subdatasets:.*//data\n.*//data2"),
        ("real_sar_complex64.tif", "complex64"),
    ],
)
def test_what_is_no_scene_is_refused_by_name(name, said):
    with pytest.raises((SceneError, UnsupportedRasterError), match=said) as refusal:
        open_scene(EDGE / name)
    assert name in str(refusal.value)


@needs_shared
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing_source.vrt", r"this_file_is_not_there\.tif"),
        ("truncated_half.tif", "Read error"),
        ("real_corrupt_blocks.tif", "Read error"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_the_window(name, said):
    scene = open_scene(EDGE / name)
    with pytest.raises(SceneError, match=said) as refusal:
        scene.read(scene.grid.window)
    assert name in str(refusal.value)
    assert "rows 0 to" in str(refusal.value)


@needs_shared
def test_a_subdataset_opens_by_its_path():
    scene = open_scene(f"HDF5:{EDGE / 'real_two_subdatasets.h5'}://data")
    assert scene.read(scene.grid.window).valid.all()


@needs_shared
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_crs.tif", "no CRS"),
        ("no_georef.tif", "no place on Earth"),
        ("gcp_only.tif", "5 ground control points only"),
        ("rpc_only.tif", "RPCs"),
        ("real_palette_landcover.tif", "palette"),
        ("multi_page.tif", "2 pages"),
        ("scale_offset_int16.tif", "offset"),
        ("nodata_undeclared_-9999.tif", "-9999"),
    ],
)
def test_what_deserves_a_warning_is_noted(name, said):
    assert any(said in note for note in open_scene(EDGE / name).notes)


@needs_shared
def test_georeference_is_carried_as_it_is():
    assert open_scene(EDGE / "pixel_is_point.tif").grid.registration == "Point"
    assert open_scene(EDGE / "south_up.tif").grid.transform.e > 0
    assert open_scene(EDGE / "sheared_30deg.tif").grid.transform.b != 0
    control = open_scene(EDGE / "gcp_only.tif").grid.control
    assert control.crs == CRS.from_epsg(31985)
    assert (control.points[4].row, control.points[4].col) == (64, 64)
    assert open_scene(EDGE / "rpc_only.tif").grid.control.rpcs.line_off == 5760.0


def test_bands_of_a_product_in_the_usual_order(tmp_path):
    scene = open_scene(write_raster(tmp_path / "s.tif", np.zeros((6, 2, 2), np.int16), bands=BANDS))
    assert scene.select(BANDS).bands == BANDS
    assert scene.tags["AREA_OR_POINT"] == "Area"


@pytest.mark.parametrize("source", [None, 5, 2.5, [None], ["a.tif", 5], {"a.tif"}, {"type": "Feature"}, b"a.tif"])
def test_a_source_of_another_kind_is_refused_by_its_name(source):
    with pytest.raises(SceneError, match=r"a scene is opened from a path, a list of paths, .*, not from .*\("):
        open_scene(source)


@pytest.mark.parametrize("nodata", ["0", [0], {"nir": "0"}, {"nir": None}])
def test_nodata_that_is_no_number_is_refused(tmp_path, nodata):
    path = write_raster(tmp_path / "a.tif", np.ones((4, 4), np.uint8), bands=["nir"])
    with pytest.raises(SceneError, match=r"nodata is a number, or a mapping of band to number, not .*\("):
        open_scene(path, nodata=nodata)
