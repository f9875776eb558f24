"""Pixels have one place, whichever window they are read in, and labels are seen in their region alone."""

import pickle

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.windows import Window

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.core.split import Blocks, BlockSplit
from geounet.errors import SplitError
from geounet.raster.labels import open_labels
from geounet.raster.labels.region import BlockRegion, RegionLabels, lonlat, split_of
from tests.making import PLACE, UTM, write_raster
from tests.strategies import grids, windows

GEOD = Geod(ellps="WGS84")


def exact(grid, window):
    rows, cols = np.mgrid[0 : window.height, 0 : window.width] + 0.5
    x, y = grid.transform @ (cols + window.col_off, rows + window.row_off)
    return np.stack(Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(x, y))


@given(grids(), st.data())
@settings(max_examples=40, deadline=None)
def test_pixels_lie_where_proj_says_to_a_centimetre_in_any_window(grid, data):
    window = data.draw(windows(grid.shape))
    found, there = lonlat(grid, window), exact(grid, window)
    _, _, metres = GEOD.inv(*found.reshape(2, -1), *there.reshape(2, -1))
    assert np.max(metres) <= 0.02
    rows, cols = window.toslices()
    assert_array_equal(found, lonlat(grid, grid.window)[:, rows, cols])


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        pytest.param("EPSG:3413", Affine(50_000, 0, -1e6, 0, -50_000, 1e6), id="around the North Pole"),
        pytest.param("EPSG:4326", Affine(0.5, 0, 160, 0, -0.5, 20), id="across the date line"),
        pytest.param("EPSG:4326", Affine(9, 0, -180, 0, -4.5, 90), id="the whole Earth"),
        pytest.param("EPSG:3857", Affine(1e6, 0, -2e7, 0, -1e6, 2e7), id="nearly the whole Earth"),
        pytest.param("EPSG:3832", Affine(1000, 0, 3_320_000, 0, -1000, 1e5), id="a Mercator plane over the date line"),
    ],
)
def test_large_and_odd_planes_are_exact_too(crs, transform):
    grid = Grid((40, 40), transform, CRS.from_string(crs))
    found, there = lonlat(grid, grid.window), exact(grid, grid.window)
    turn = (found[0] - there[0] + 180) % 360 - 180
    assert_allclose(np.stack([turn, found[1] - there[1]]), 0, atol=2e-7)


def checkerboard(blocks, lon, lat):
    numbers = np.unique(np.append(blocks.near(lon, lat), blocks.at(lon, lat)))
    return BlockSplit(blocks, numbers, np.arange(len(numbers)) % 2, ("train", "test"))


@given(st.integers(0, 2**32 - 1), st.floats(100, 600), st.floats(0, 0.9))
@settings(max_examples=15, deadline=None)
def test_pixels_of_two_splits_lie_a_buffer_apart_across_scenes_in_two_zones(seed, size, part):
    """One place in UTM 33 and 34, 30 m and 20 m: all distances, on the ellipsoid."""
    generator = np.random.default_rng(seed)
    lon, lat = 18.0 + generator.uniform(-0.01, 0.01), generator.uniform(-70, 70)
    scenes = []
    for epsg, pixel in ((32633, 30), (32634, 20)):
        x, y = Transformer.from_crs("EPSG:4326", epsg, always_xy=True).transform(lon, lat)
        turn = Affine.rotation(generator.uniform(0, 360))
        scenes.append(
            Grid((30, 30), Affine.translation(x, y) @ turn @ Affine.scale(pixel, -pixel), CRS.from_epsg(epsg))
        )
    places = [lonlat(grid, grid.window).reshape(2, -1) for grid in scenes]
    ground = checkerboard(Blocks(size, size * part), *np.concatenate(places, axis=1))
    splits = np.concatenate([split_of(grid, ground, grid.window).ravel() for grid in scenes])
    lon, lat = np.concatenate([exact(grid, grid.window).reshape(2, -1) for grid in scenes], axis=1)
    one, two = (generator.permutation(np.flatnonzero(splits == split))[:400] for split in (0, 1))
    i, j = (v.ravel() for v in np.meshgrid(one, two))
    if len(i):
        assert np.min(GEOD.inv(lon[i], lat[i], lon[j], lat[j])[2]) >= size * part


@pytest.fixture
def labels(tmp_path):
    truth = np.arange(60 * 70).reshape(60, 70) % 2
    grid = Grid((60, 70), PLACE, UTM)
    path = write_raster(tmp_path / "truth.tif", truth.astype(np.uint8))
    return open_labels(path, grid, Legend.of(["land", "water"]))


def test_labels_are_the_files_inside_the_region_and_none_outside(labels):
    ground = checkerboard(Blocks(500, 60), *lonlat(labels.grid, labels.grid.window))
    whole, split = labels.read(labels.grid.window), split_of(labels.grid, ground, labels.grid.window)
    for place in range(2):
        seen = RegionLabels.of(labels, BlockRegion(labels.grid, ground, place))
        assert (split == place).any()
        assert_array_equal(seen.read(labels.grid.window), np.where(split == place, whole, 255))
        assert_array_equal(seen.read(Window(-5, 40, 30, 30))[:20, 5:], np.where(split == place, whole, 255)[40:, :25])
        assert (seen.read(Window(-5, 40, 30, 30))[:, :5] == 255).all()
        again = pickle.loads(pickle.dumps(seen))
        assert_array_equal(again.read(labels.grid.window), seen.read(labels.grid.window))
        assert again.region.fingerprint == seen.region.fingerprint
        assert seen.paths == labels.paths
    assert (split == -1).any()


def test_a_region_of_a_large_image_is_the_same_by_windows_across_its_squares():
    grid = Grid((700, 1100), PLACE, UTM)
    ground = checkerboard(Blocks(2000, 300), *lonlat(grid, grid.window))
    region, split = BlockRegion(grid, ground, 1), split_of(grid, ground, grid.window)
    for window in (grid.window, Window(500, 500, 30, 30), Window(0, 511, 1100, 2), Window(1090, 690, 10, 10)):
        rows, cols = window.toslices()
        assert_array_equal(region(window), (split == 1)[rows, cols])


def test_an_image_without_a_place_has_no_blocks():
    ground = BlockSplit(Blocks(500), np.array([1]), np.array([0]), ("train",))
    for grid in (Grid((5, 5), PLACE, None), Grid((5, 5), Affine.identity(), UTM)):
        with pytest.raises(SplitError, match="without a place on Earth"):
            split_of(grid, ground, grid.window)
