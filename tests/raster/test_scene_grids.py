"""Bands of several pixel sizes and reference systems are one scene: as GDAL warps them, whatever the window."""

import pickle

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geounet.core.grid import Grid
from geounet.errors import BandMismatchError, GridError
from geounet.raster.scene import open_scene, picks
from tests.making import PLACE, UTM, write_raster
from tests.strategies import windows

GRANULE = "T33UUP_20200101T100319"
FINE = Affine(10, 0, 500_000, 0, -10, 5_300_000)


def noise(shape, seed=0, holes=0.0, nodata=-1):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3000, shape).astype(np.int16)
    values[rng.random(shape) < holes] = nodata
    return values


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Bands of 10, 20 and 60 m, as Sentinel-2 has them, with nodata in the coarser ones."""
    folder = tmp_path_factory.mktemp("sizes")
    return [
        write_raster(folder / f"{GRANULE}_{band}_{10 * step}m.tif", noise((size, size), seed, holes), nodata=-1, transform=FINE @ Affine.scale(step))
        for seed, (band, size, step, holes) in enumerate([("B02", 72, 1, 0), ("B11", 36, 2, 0.1), ("B09", 12, 6, 0.1)])
    ]  # fmt: skip


def test_bands_are_brought_to_the_finest_grid_and_a_note_says_so(sizes):
    scene = open_scene(sizes)
    assert scene.grid.transform == FINE
    assert scene.grid.shape == (72, 72)
    assert scene.dtype == np.float32  # values between stored ones are no integers
    assert [note.split(":")[0].split("100319_")[1] for note in scene.notes] == [
        "B11_20m.tif lies on another grid (0.5 of its pixels to one of the scene's)",
        "B09_60m.tif lies on another grid (0.1667 of its pixels to one of the scene's)",
    ]


@pytest.mark.parametrize(
    ("resolution", "size", "side"),
    [("finest", 72, 10), ("coarsest", 12, 60), (20, 36, 20), (30, 24, 30), (50, 15, 50), (7, 103, 7)],
)
def test_the_resolution_asked_for_is_the_scenes(sizes, resolution, size, side):
    grid = open_scene(sizes, resolution=resolution).grid
    assert grid.shape == (size, size)
    assert_allclose(grid.transform, FINE @ Affine.scale(side / 10), rtol=1e-12)


def test_a_grid_asked_for_is_the_scenes(sizes):
    grid = Grid((9, 11), FINE @ Affine.translation(3, 4) @ Affine.scale(1.5), UTM)
    scene = open_scene(sizes, grid=grid)
    assert scene.grid == grid
    assert scene.read(grid.window).pixels.shape == (3, 9, 11)


def test_a_view_keeps_the_grid_and_reads_the_same_numbers(sizes):
    scene = open_scene(sizes)
    view = scene.select(["swir1"])
    assert view.grid == scene.grid
    window = Window(5, 6, 30, 31)
    assert_array_equal(view.read(window).pixels[0], scene.read(window).pixels[1])


def test_the_value_between_four_pixels_is_worked_out_by_hand(tmp_path):
    """A 10 m pixel's centre lies a quarter of a 20 m pixel from that one's centre: weights 9, 3, 3, 1 of 16."""
    one = write_raster(tmp_path / f"{GRANULE}_B02.tif", np.zeros((4, 4), np.uint8), transform=FINE)
    two = np.array([[16, 32], [64, 160]], np.uint8)
    two = write_raster(tmp_path / f"{GRANULE}_B11.tif", two, transform=FINE @ Affine.scale(2))
    got = open_scene([one, two]).select(["swir1"]).read(Window(0, 0, 4, 4)).pixels[0]
    assert got[1, 1] == (9 * 16 + 3 * 32 + 3 * 64 + 160) / 16
    assert got[0, 0] == 16  # beyond the outermost centres there is only the pixel itself
    assert got[0, 1] == (3 * 16 + 32) / 4


def test_nodata_never_bleeds(tmp_path):
    """Beside a hole, a value comes from the pixels that have one; the hole is as large as the pixel that has none."""
    one = write_raster(tmp_path / f"{GRANULE}_B02.tif", np.ones((4, 4), np.int16), transform=FINE)
    two = np.array([[100, -9999], [100, 100]], np.int16)
    two = write_raster(tmp_path / f"{GRANULE}_B11.tif", two, transform=FINE @ Affine.scale(2), nodata=-9999)
    chip = open_scene([one, two]).read(Window(0, 0, 4, 4))
    hole = np.zeros((4, 4), bool)
    hole[:2, 2:] = True
    assert_array_equal(chip.valid, ~hole)
    assert (chip.pixels[1][~hole] == 100).all()


def test_a_band_does_not_depend_on_the_holes_of_the_others(tmp_path):
    pixels = noise((2, 20, 20))
    whole = write_raster(tmp_path / "whole.tif", pixels, nodata=-1)
    pixels[1, 5:9, 5:9] = -1
    holed = write_raster(tmp_path / "holed.tif", pixels, nodata=-1)
    grid = Grid((30, 30), PLACE @ Affine.scale(0.7), UTM)
    window = grid.window
    one, other = (open_scene(path, grid=grid).read(window) for path in (whole, holed))
    assert_array_equal(one.pixels[0], other.pixels[0])


def test_infinities_and_nan_do_not_bleed_either(tmp_path):
    pixels = np.full((6, 6), 5, np.float32)
    pixels[2, 2], pixels[3, 3], pixels[4, 4] = np.nan, np.inf, -9999
    path = write_raster(tmp_path / "s.tif", pixels, nodata=-9999)
    chip = open_scene(path, resolution=10).read(Window(0, 0, 18, 18))
    assert (chip.pixels[0][chip.valid] == 5).all()
    assert int((~chip.valid).sum()) == 3 * 9


# --- the same as GDAL's ----------------------------------------------------------------------------------------------

PLACES = {
    "twice as fine": (UTM, Affine(15, 0, 500_000, 0, -15, 5_300_000), (80, 80)),
    "a third, and shifted": (UTM, Affine(10, 0, 500_013, 0, -10, 5_299_991), (110, 110)),
    "thrice as coarse": (UTM, Affine(90, 0, 500_000, 0, -90, 5_300_000), (13, 13)),
    "two and a half as coarse": (UTM, Affine(75, 0, 500_000, 0, -75, 5_300_000), (16, 16)),
    "shifted by a part": (UTM, PLACE @ Affine.translation(0.3, 0.6), (40, 40)),
    "rotated": (UTM, PLACE @ Affine.translation(10, 0) @ Affine.rotation(30), (30, 30)),
    "the next zone": (CRS.from_epsg(32632), Affine(30, 0, 948_700, 0, -30, 5_317_600), (50, 50)),
    "degrees": (CRS.from_epsg(4326), Affine(0.0004, 0, 14.999, 0, -0.0003, 47.8545), (50, 50)),
}


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    path = tmp_path_factory.mktemp("warp") / "s.tif"
    return write_raster(path, noise((40, 41), 5, holes=0.05), nodata=-1, tiled=True, blockxsize=16, blockysize=16)


UPRIGHT = ["thrice as coarse", "two and a half as coarse"]
"""Where GDAL averages what is under a pixel, and not under the bounding box of a bent or turned one."""


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, method) for name in PLACES for method in ("nearest", "bilinear")] + [(name, "average") for name in UPRIGHT],
)
def test_a_scene_on_another_grid_is_what_gdal_warps(raster, name, method):
    crs, transform, shape = PLACES[name]
    scene = open_scene(raster, grid=Grid(shape, transform, crs), resampling=method)
    chip = scene.read(scene.grid.window)
    down, across = scene.picks[0].placement.ratio
    with rasterio.open(raster) as dataset, WarpedVRT(
        dataset, crs=crs, transform=transform, height=shape[0], width=shape[1], resampling=Resampling[method],
        dtype="float32", nodata=np.nan, src_nodata=-1, tolerance=1e-9, XSCALE=1 / max(across, 1), YSCALE=1 / max(down, 1),
    ) as vrt:  # fmt: skip
        expected = vrt.read(1)
    assert_array_equal(chip.valid, np.isfinite(expected))
    assert chip.valid.any()
    # in another CRS places are interpolated: 0.2 of values that differ by 3000 from pixel to pixel
    tolerance = 0.2 if crs != UTM and method == "bilinear" else 1e-3
    assert_allclose(chip.pixels[0][chip.valid], expected[chip.valid], rtol=0, atol=tolerance)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(list(PLACES)), st.sampled_from(["nearest", "bilinear", "average"]))
def test_a_pixel_is_the_same_in_every_window(raster, data, name, method):
    crs, transform, shape = PLACES[name]
    scene = open_scene(raster, grid=Grid(shape, transform, crs), resampling=method)
    whole = scene.read(scene.grid.window)
    window = data.draw(windows(shape))
    chip = scene.read(window)
    rows = slice(window.row_off, window.row_off + window.height)
    cols = slice(window.col_off, window.col_off + window.width)
    assert_array_equal(chip.pixels, whole.pixels[:, rows, cols])
    assert_array_equal(chip.valid, whole.valid[rows, cols])


def test_a_large_window_is_read_in_parts_that_fit_together(raster, monkeypatch):
    scene = open_scene(raster, grid=Grid((37, 29), PLACE @ Affine.scale(1.1), UTM))
    before = scene.read(scene.grid.window)
    monkeypatch.setattr(picks, "MOST_SOURCE", 20)
    after = scene.read(scene.grid.window)
    assert_array_equal(after.pixels, before.pixels)
    assert_array_equal(after.valid, before.valid)


def test_the_pole_is_warped_as_gdal_does(tmp_path):
    """Meridians meet there and the date line ends: nothing between exact places would be right."""
    lon, lat = np.radians(np.arange(-179.5, 180)), np.arange(89.5, -90, -1)
    world = (100 * np.cos(lon)[None, :] + lat[:, None]).astype(np.float32)
    path = write_raster(tmp_path / "w.tif", world, crs=CRS.from_epsg(4326), transform=Affine(1, 0, -180, 0, -1, 90))
    grid = Grid((60, 60), Affine(100_000, 0, -3e6, 0, -100_000, 3e6), CRS.from_epsg(3995))
    scene = open_scene(path, grid=grid)
    down, across = scene.picks[0].placement.ratio
    with rasterio.open(path) as dataset, WarpedVRT(
        dataset, crs=grid.crs, transform=grid.transform, height=60, width=60, resampling=Resampling.bilinear,
        tolerance=1e-9, XSCALE=1 / max(across, 1), YSCALE=1 / max(down, 1),
    ) as vrt:  # fmt: skip
        expected = vrt.read(1)
    chip = scene.read(grid.window)
    assert chip.valid.all()
    assert_allclose(chip.pixels[0], expected, rtol=0, atol=1e-3)


def test_a_raster_across_the_date_line_is_warped_there(tmp_path):
    """Pixels of a grid in UTM zone 1 come from both sides of 180 degrees."""
    columns = np.broadcast_to(np.arange(64, dtype=np.float32), (64, 64))
    west = Affine(0.001, 0, 179.968, 0, -0.001, 60.03)
    path = write_raster(tmp_path / "s.tif", columns, crs=CRS.from_epsg(4326), transform=west)
    grid = Grid((20, 20), Affine(60, 0, 331_500, 0, -60, 6_656_000), CRS.from_epsg(32601))
    scene = open_scene(path, grid=grid)
    chip = scene.read(grid.window)
    assert chip.valid.all()
    step = np.diff(chip.pixels[0], axis=1)
    assert (step > 0).all()  # no seam, which would jump by the whole circle
    assert step.max() < 1.2


# --- extents, types, choices -----------------------------------------------------------------------------------------


def test_bands_of_other_extent_on_the_same_lattice_are_read_as_they_are(tmp_path):
    one = write_raster(tmp_path / f"{GRANULE}_B02.tif", noise((8, 8)))
    other = noise((4, 4), 1)
    other_path = write_raster(tmp_path / f"{GRANULE}_B03.tif", other, transform=PLACE @ Affine.translation(2, 3))
    scene = open_scene([one, other_path])
    assert scene.dtype == np.int16
    chip = scene.read(Window(0, 0, 8, 8))
    expected = np.zeros((8, 8), bool)
    expected[3:7, 2:6] = True
    assert_array_equal(chip.valid, expected)
    assert_array_equal(chip.pixels[1][3:7, 2:6], other)


def test_classes_of_a_product_are_never_mixed(tmp_path):
    write_raster(tmp_path / f"{GRANULE}_B02_10m.tif", np.zeros((4, 4), np.uint16), transform=FINE)
    classes = np.array([[4, 9], [6, 11]], np.uint8)
    scl = write_raster(tmp_path / f"{GRANULE}_SCL_20m.tif", classes, transform=FINE @ Affine.scale(2))
    assert scl.exists()
    scene = open_scene(tmp_path)
    assert scene.bands == ("blue", "scl")
    assert_array_equal(scene.select(["scl"]).read(Window(0, 0, 4, 4)).pixels[0], classes.repeat(2, 0).repeat(2, 1))
    mixed = open_scene(tmp_path, resampling={"SCL": "bilinear"}).select(["scl"]).read(Window(0, 0, 4, 4)).pixels[0]
    assert mixed[0, 1] == (3 * 4 + 9) / 4


def test_each_band_has_the_resampling_and_nodata_that_its_name_was_given(sizes):
    scene = open_scene(sizes, resampling={"swir1": "nearest"}, nodata={"B09": 7, "blue": 0})
    rows = {row["name"]: row for row in scene.origin["bands"]}
    assert rows["swir1"]["resampling"] == "nearest"
    assert rows["nir09"]["resampling"] == "bilinear"
    assert {name: row["nodata"] for name, row in rows.items()} == {"blue": 0, "swir1": -1, "nir09": 7}


def test_a_name_that_no_band_has_and_a_method_that_nobody_knows_are_refused(sizes):
    with pytest.raises(BandMismatchError, match=r"nodata was given for pink; the bands of .* are blue, swir1, nir09"):
        open_scene(sizes, nodata={"pink": 0})
    with pytest.raises(BandMismatchError, match="by nearest, bilinear, average, not by 'magic'"):
        open_scene(sizes, resampling="magic")
    with pytest.raises(GridError, match="'finest' or 'coarsest', not 'best'"):
        open_scene(sizes, resolution="best")
    with pytest.raises(GridError, match="above 0"):
        open_scene(sizes, resolution=0)


def test_a_band_in_another_crs_is_warped_and_a_note_says_so(tmp_path):
    one = write_raster(tmp_path / f"{GRANULE}_B02.tif", np.ones((40, 40), np.uint16))
    place = Affine(30, 0, 948_700, 0, -30, 5_317_600)
    two = np.full((60, 60), 7, np.uint16)
    two = write_raster(tmp_path / f"{GRANULE}_B03.tif", two, transform=place, crs=CRS.from_epsg(32632), nodata=0)
    scene = open_scene([one, two])
    assert any("from EPSG:32632 to EPSG:32633 by bilinear resampling" in note for note in scene.notes)
    chip = scene.read(Window(0, 0, 40, 40))
    assert chip.valid.any()
    assert (chip.pixels[1][chip.valid] == 7).all()


def test_bands_that_share_no_ground_are_no_scene(tmp_path):
    one = write_raster(tmp_path / f"{GRANULE}_B02.tif", noise((8, 8)))
    far = write_raster(tmp_path / f"{GRANULE}_B03.tif", noise((8, 8)), transform=PLACE @ Affine.translation(100, 0))
    with pytest.raises(GridError, match=r"_B03\.tif covers .* shares no ground with the scene's grid"):
        open_scene([one, far])


def test_a_scene_on_another_grid_survives_pickling(sizes):
    scene = open_scene(sizes)
    before = scene.read(Window(3, 4, 20, 21))
    after = pickle.loads(pickle.dumps(scene)).read(Window(3, 4, 20, 21))
    assert_array_equal(after.pixels, before.pixels)
    assert_array_equal(after.valid, before.valid)
