"""Scenes side by side are one: what each has, once, and where they overlap, the first."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import dask.array
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.windows import Window

from geounet.core.grid import Grid
from geounet.errors import BandMismatchError, GridError, SceneError
from geounet.raster.scene import FileScene, MosaicScene, open_mosaic, open_scene, picks
from geounet.raster.scene.lattice import union
from geounet.raster.scene.resample import Placement
from tests.making import PLACE, SHARED, UTM, needs_shared, write_raster
from tests.strategies import windows

NAMES = ("red", "nir")


def at(col, row):
    return PLACE @ Affine.translation(col, row)


def values(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 3000, (2, *shape)).astype(np.int16)


@pytest.fixture
def tiles(tmp_path):
    """Cut a picture into four tiles, the first and second overlapping by two columns."""
    whole = values((20, 30))
    cuts = [(0, 0, 10, 16), (0, 14, 10, 16), (10, 0, 10, 15), (10, 15, 10, 15)]
    paths = [
        write_raster(tmp_path / f"tile_{i}.tif", whole[:, y : y + h, x : x + w], bands=NAMES, transform=at(x, y))
        for i, (y, x, h, w) in enumerate(cuts)
    ]
    return whole, paths


def test_tiles_are_the_picture_that_they_were_cut_from(tiles):
    whole, paths = tiles
    scene = open_scene(paths)
    assert isinstance(scene, MosaicScene)
    assert scene.grid == Grid((20, 30), PLACE, UTM)
    assert scene.bands == NAMES
    assert scene.dtype == np.int16
    chip = scene.read(scene.grid.window)
    assert chip.valid.all()
    assert_array_equal(chip.pixels, whole)
    assert "4 scenes of the same bands are read as one mosaic" in scene.notes[0]
    assert scene.paths == tuple(map(str, paths))


def test_a_folder_and_a_pattern_of_tiles_are_the_mosaic(tiles, tmp_path):
    whole, _ = tiles
    for source in (tmp_path, str(tmp_path / "tile_*.tif")):
        scene = open_scene(source)
        assert_array_equal(scene.read(scene.grid.window).pixels, whole)


def test_the_first_file_need_not_be_the_upper_left_one(tiles):
    whole, paths = tiles
    scene = open_scene(paths[::-1])
    assert scene.grid == Grid((20, 30), PLACE, UTM)
    assert_array_equal(scene.read(scene.grid.window).pixels, whole)


def test_the_first_valid_pixel_is_taken_in_all_bands(tmp_path):
    """Where the first has nodata in one band, the second gives both; holes of -9999 and of 0 both stay out."""
    one = np.array([[[1, -9999, 3, 4]], [[5, 6, 7, -9999]]], np.int16)
    two = np.array([[[11, 12, 13, 0]], [[0, 16, 17, 18]]], np.uint8)
    paths = [
        write_raster(tmp_path / "one.tif", one, bands=NAMES, nodata=-9999),
        write_raster(tmp_path / "two.tif", two, bands=NAMES, nodata=0),
    ]
    chip = open_mosaic(paths).read(Window(0, 0, 4, 1))
    assert chip.valid.tolist() == [[True, True, True, False]]
    assert chip.pixels[:, 0].tolist() == [[1, 12, 3, 0], [5, 16, 7, 0]]


def test_a_view_of_some_bands_rests_on_their_validity(tmp_path):
    one = np.array([[[1, -9999]], [[5, 6]]], np.int16)
    paths = [
        write_raster(tmp_path / "one.tif", one, bands=NAMES, nodata=-9999),
        write_raster(tmp_path / "two.tif", np.full((2, 1, 2), 9, np.int16), bands=NAMES, nodata=-9999),
    ]
    view = open_mosaic(paths).select(["nir"])
    assert view.bands == ("nir",)
    assert view.read(Window(0, 0, 2, 1)).pixels.tolist() == [[[5, 6]]]


@pytest.fixture(scope="module")
def patchwork(tmp_path_factory):
    """Tiles of other pixel size, CRS and nodata around a first one."""
    folder = tmp_path_factory.mktemp("patchwork")
    east = values((40, 40), 1)
    east[:, 5:9, 5:9] = -9999
    return open_mosaic(
        [
            write_raster(folder / "first.tif", values((20, 20)), bands=NAMES, nodata=0),
            write_raster(folder / "finer.tif", east, bands=NAMES, nodata=-9999, transform=at(18, 0) @ Affine.scale(0.5)),
            write_raster(
                folder / "zone.tif", values((30, 30), 2), bands=NAMES, nodata=0, crs=CRS.from_epsg(32632),
                transform=Affine(30, 0, 948_700, 0, -30, 5_317_000),
            ),
        ]
    )  # fmt: skip


def test_tiles_of_other_pixels_and_crs_come_onto_the_grid_of_the_first(patchwork):
    assert patchwork.grid.crs == UTM
    step = ~PLACE @ patchwork.grid.transform  # whole pixels from the first tile's corner
    assert (step.a, step.b, step.d, step.e) == (1, 0, 0, 1)
    assert np.allclose([step.c, step.f], np.round([step.c, step.f]), atol=1e-9)
    assert patchwork.dtype == np.float32
    assert any("finer.tif and 1 more: brought onto the grid of the mosaic" in note for note in patchwork.notes)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_pixel_is_the_same_in_every_window(patchwork, data):
    whole = patchwork.read(patchwork.grid.window)
    window = data.draw(windows(patchwork.grid.shape))
    chip = patchwork.read(window)
    rows = slice(window.row_off, window.row_off + window.height)
    cols = slice(window.col_off, window.col_off + window.width)
    assert_array_equal(chip.pixels, whole.pixels[:, rows, cols])
    assert_array_equal(chip.valid, whole.valid[rows, cols])


def test_a_mosaic_has_the_resolution_asked_for(tiles):
    _, paths = tiles
    assert open_mosaic(paths, resolution=60).grid.shape == (10, 15)
    assert open_scene(paths, resolution=15).grid.shape == (40, 60)
    grid = Grid((7, 7), at(3, 4), UTM)
    assert open_scene(paths, grid=grid).grid == grid


def test_a_mosaic_within_a_mosaic_is_read_through(tiles):
    whole, paths = tiles
    inner = open_mosaic(paths[:2])
    scene = open_mosaic([inner, *paths[2:]])
    assert_array_equal(scene.read(scene.grid.window).pixels, whole)


def test_only_the_tiles_that_a_window_meets_are_read(tiles, monkeypatch):
    _, paths = tiles
    scene = open_scene(paths)
    seen = []
    read = picks._read
    monkeypatch.setattr(picks, "_read", lambda raster, *rest: (seen.append(raster.path), read(raster, *rest)))
    scene.read(Window(16, 12, 5, 5))
    assert seen == [str(paths[3])]
    seen.clear()
    scene.read(Window(14, 3, 2, 2))  # the first has all of it; the second is not asked
    assert seen == [str(paths[0])]


def test_arrays_on_the_lattice_join_in_and_others_are_refused(tmp_path):
    whole = values((4, 9))
    file = write_raster(tmp_path / "s.tif", whole[:, :, :5], bands=NAMES)

    def array(shift):
        x = PLACE.c + 30 * (np.arange(5, 9) + 0.5 + shift)
        y = PLACE.f - 30 * (np.arange(4) + 0.5)
        data = dask.array.from_array(whole[:, :, 5:], chunks=(1, 2, 2))
        coords = {"band": list(NAMES), "x": x, "y": y, "spatial_ref": xr.DataArray(0, attrs={"crs_wkt": UTM.to_wkt()})}
        return open_scene(xr.DataArray(data, dims=("band", "y", "x"), coords=coords))

    scene = open_mosaic([open_scene(file), array(0)])
    assert_array_equal(scene.read(scene.grid.window).pixels, whole)
    with pytest.raises(GridError, match="between those of the mosaic"):
        open_mosaic([open_scene(file), array(0.3)])


def test_threads_and_processes_read_the_same(patchwork):
    there = [Window(x, y, 9, 9) for x in range(0, 30, 7) for y in range(0, 20, 7)]
    again = pickle.loads(pickle.dumps(patchwork))
    with ThreadPoolExecutor(4) as pool:
        for window, chip in zip(there, pool.map(again.read, there), strict=True):
            assert_array_equal(chip.pixels, patchwork.read(window).pixels)


def test_a_mosaic_of_many_tiles_does_not_repeat_their_notes(tmp_path):
    fill = np.full((2, 3, 3), -9999, np.int16)  # undeclared, which each tile has a note about
    tiles = [write_raster(tmp_path / f"{i}.tif", fill, bands=NAMES, transform=at(3 * i, 0)) for i in range(9)]
    notes = open_scene(tiles).notes
    assert sum("declares no nodata" in note for note in notes) == 3
    assert notes[-1].startswith("6 more of these scenes have notes of their own")


def test_a_mosaic_says_where_its_pixels_come_from(tiles):
    _, paths = tiles
    origin = open_scene(paths).origin
    assert [part["bands"][0]["file"] for part in origin["mosaic"]] == list(map(str, paths))


# --- what is a mosaic, and what is not -------------------------------------------------------------------------------


def test_bands_without_a_name_on_one_grid_stay_a_stack(tmp_path):
    paths = [write_raster(tmp_path / f"{i}.tif", np.full((3, 3), i, np.uint8)) for i in range(3)]
    scene = open_scene(paths)
    assert isinstance(scene, FileScene)
    assert scene.read(Window(0, 0, 1, 1)).pixels.ravel().tolist() == [0, 1, 2]


def test_single_bands_without_a_name_are_bands_on_one_ground_and_tiles_on_two(tmp_path):
    one = write_raster(tmp_path / "a.tif", np.full((4, 4), 1, np.uint8))
    coarse = write_raster(tmp_path / "b.tif", np.full((2, 2), 2, np.uint8), transform=PLACE @ Affine.scale(2))
    beside = write_raster(tmp_path / "c.tif", np.full((4, 4), 3, np.uint8), transform=at(4, 0))
    assert open_scene([one, coarse]).bands == ("band_1", "band_2")
    mosaic = open_scene([one, beside])
    assert mosaic.bands == ("band_1",)
    assert mosaic.grid.shape == (4, 8)


def test_names_for_all_files_together_make_a_stack(tmp_path):
    one = write_raster(tmp_path / "a.tif", np.full((4, 4), 1, np.uint8))
    beside = write_raster(tmp_path / "c.tif", np.full((4, 4), 3, np.uint8), transform=at(3, 0))
    assert open_scene([one, beside], bands=["red", "nir"]).bands == ("red", "nir")
    assert open_scene([one, beside], bands=["red"]).grid.shape == (4, 7)


def test_two_dates_of_one_place_are_no_mosaic_unless_asked_for(tmp_path):
    one = write_raster(tmp_path / "2019.tif", values((9, 9)), bands=NAMES)
    two = write_raster(tmp_path / "2020.tif", values((9, 9), 1), bands=NAMES, transform=at(0.1, 0.1))
    with pytest.raises(GridError, match=r"2020\.tif shows the ground of .*2019\.tif .*open_mosaic"):
        open_scene([one, two])
    assert open_mosaic([one, two]).grid.shape == (10, 10)


def test_scenes_far_apart_are_no_mosaic_unless_asked_for(tmp_path):
    one = write_raster(tmp_path / "one.tif", values((9, 9)), bands=NAMES)
    two = write_raster(tmp_path / "two.tif", values((9, 9), 1), bands=NAMES, transform=at(20, 0))
    with pytest.raises(GridError, match=r"two\.tif covers .* apart from .*one\.tif"):
        open_scene([one, two])
    scene = open_mosaic([one, two])
    assert scene.grid.shape == (9, 29)
    assert int((~scene.read(scene.grid.window).valid).sum()) == 9 * 11


def test_a_scene_that_lacks_a_band_is_refused(tmp_path):
    one = write_raster(tmp_path / "one.tif", values((9, 9)), bands=NAMES)
    two = write_raster(tmp_path / "two.tif", values((9, 9), 1), bands=("red", "blue"), transform=at(9, 0))
    with pytest.raises(BandMismatchError, match=r"two\.tif has the bands red, blue and .*one\.tif red, nir"):
        open_mosaic([one, two])
    with pytest.raises(SceneError, match="the list is empty"):
        open_mosaic([])


def test_bands_in_another_order_are_met_by_name(tmp_path):
    one = write_raster(tmp_path / "one.tif", np.array([[[1]], [[2]]], np.uint8), bands=NAMES)
    two = write_raster(tmp_path / "two.tif", np.array([[[2]], [[1]]], np.uint8), bands=NAMES[::-1], transform=at(1, 0))
    assert open_mosaic([one, two]).read(Window(0, 0, 2, 1)).pixels[:, 0].tolist() == [[1, 1], [2, 2]]


@needs_shared
def test_seven_dates_of_one_place_are_refused_and_overlaid_on_demand():
    with pytest.raises(GridError, match="picture of another date"):
        open_scene(SHARED / "naip-timeseries")
    scene = open_mosaic(sorted((SHARED / "naip-timeseries").iterdir()))
    first = open_scene(SHARED / "naip-timeseries" / "m_4709963_se_14_1_20090818.tif")
    step = ~scene.grid.transform @ first.grid.transform
    window = Window(100, 100, 64, 64)
    moved = Window(100 + round(step.c), 100 + round(step.f), 64, 64)
    assert_array_equal(scene.read(moved).pixels, first.read(window).pixels)


DEGREES = CRS.from_epsg(4326)


def in_degrees(folder, name, west, width, *, pixel=0.01, seed=0):
    """A file of 4 rows from a longitude on."""
    transform = Affine(pixel, 0, west, 0, -pixel, 10)
    return write_raster(folder / name, values((4, width), seed), bands=NAMES, crs=DEGREES, transform=transform)


@pytest.mark.parametrize("opened", [open_scene, open_mosaic])
@pytest.mark.parametrize("west_first", [False, True])
def test_tiles_on_both_sides_of_180_degrees_touch(tmp_path, opened, west_first):
    paths = [in_degrees(tmp_path, "a.tif", 179.96, 4), in_degrees(tmp_path, "b.tif", -180, 6, seed=1)]
    scene = opened(paths[:: -1 if west_first else 1])
    assert scene.grid.shape == (4, 10)
    assert scene.grid.transform.c == pytest.approx(-180.04 if west_first else 179.96)
    chip = scene.read(scene.grid.window)
    assert chip.valid.all()
    assert_array_equal(chip.pixels, np.concatenate([values((4, 4)), values((4, 6), 1)], axis=2))


@given(
    st.lists(st.integers(0, 35), min_size=1, max_size=10, unique=True),
    st.lists(st.booleans(), min_size=10, max_size=10),
)
@settings(deadline=None)
def test_a_mosaic_around_the_earth_is_no_wider_than_the_arc_of_its_tiles(places, turned):
    """Tiles of ten degrees, each written from -180 or a turn further."""
    grids = [
        Grid((4, 10), Affine(1, 0, -180 + 10 * place + 360 * turn, 0, -1, 10), DEGREES)
        for place, turn in zip(places, turned, strict=False)
    ]
    found = union(grids[0], grids)
    ring = sorted(places)
    gaps = [(after - before - 1) % 36 for before, after in zip(ring, ring[1:] + ring[:1], strict=True)]
    assert found.shape == (4, 10 * (36 - max(gaps, default=35)))
    for grid in grids:
        offset = Placement(found, grid).offset
        assert offset is not None
        assert 0 <= -offset[1] <= found.shape[1] - 10


def test_a_mosaic_of_the_whole_earth_begins_where_its_tiles_do(tmp_path):
    paths = [in_degrees(tmp_path, f"{i}.tif", west, 10, pixel=1, seed=i) for i, west in enumerate(range(-180, 180, 10))]
    for some in (paths, paths[::-1], paths[18:] + paths[:18]):
        scene = open_scene(some)
        assert scene.grid.bounds == pytest.approx((-180, 6, 180, 10))
        assert_array_equal(scene.read(Window(350, 0, 10, 4)).pixels, values((4, 10), 35))


def test_a_name_instead_of_a_list_is_refused(tmp_path):
    path = in_degrees(tmp_path, "a.tif", 0, 4)
    for name in (path, str(path), open_scene(path)):
        with pytest.raises(SceneError, match=r"open_mosaic takes a list of scenes, not .*open_scene"):
            open_mosaic(name)


@pytest.mark.parametrize("side", [1e9, 1e25])
def test_of_one_pixel_larger_than_the_file_the_average_is_the_mean_and_the_middle_lies_outside(tmp_path, side):
    path = write_raster(tmp_path / "a.tif", values((5, 7)), bands=NAMES)
    chip = open_scene(path, resolution=side, resampling="average").read(Window(0, 0, 1, 1))
    np.testing.assert_allclose(chip.pixels.ravel(), values((5, 7)).mean(axis=(1, 2)), rtol=1e-6)
    assert not open_scene(path, resolution=side).read(Window(0, 0, 1, 1)).valid.any()
