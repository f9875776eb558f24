"""Where pixels lie on Earth, and how large they are there."""

import numpy as np
import pyproj
import pytest
import rasterio.windows
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.windows import Window

from geounet.core.grid import Control, ControlPoint, Grid, Ground, apply, common_grid
from geounet.errors import GridError
from tests.strategies import ORIENTATIONS, PLACES, grid, grids, windows

UTM = CRS.from_epsg(32633)
DEGREES = CRS.from_epsg(4326)
PLACE = Affine(30, 0, 500_000, 0, -30, 5_300_000)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rasterio 1.4 with affine 3.1
@given(grids(), st.data())
def test_a_crop_lies_where_rasterio_says(where, data):
    window = data.draw(windows(where.shape))
    part = where.crop(window)
    assert part.shape == (window.height, window.width)
    assert part.crs == where.crs
    assert part.transform.almost_equals(rasterio.windows.transform(window, where.transform), 1e-6)


@given(grids(), st.data())
def test_a_crop_of_a_crop_is_a_crop(where, data):
    outer = data.draw(windows(where.shape))
    part = where.crop(outer)
    inner = data.draw(windows(part.shape))
    both = Window(outer.col_off + inner.col_off, outer.row_off + inner.row_off, inner.width, inner.height)
    assert part.crop(inner).same_pixels(where.crop(both))


@given(st.data())
def test_the_window_of_a_crop_s_bounds_is_that_crop(data):
    where = grid("UTM", data.draw(st.sampled_from(["north-up", "south-up"])), (40, 50))
    window = data.draw(windows(where.shape))
    assert where.window_of(where.crop(window).bounds) == window


@given(st.floats(0.01, 38.99), st.floats(0.01, 0.99), st.floats(0.01, 48.99), st.floats(0.01, 0.99))
def test_a_window_holds_the_bounds_like_rasterio_s_rounded_outwards(top, height, left, width):
    where = grid("UTM", "north-up", (40, 50))
    west, north = where.transform @ (left, top)
    east, south = where.transform @ (left + width, top + height)
    found = where.window_of((west, south, east, north))
    wanted = rasterio.windows.from_bounds(west, south, east, north, where.transform)
    assert found.row_off == int(wanted.row_off)
    assert found.row_off + found.height == int(np.ceil(wanted.row_off + wanted.height))
    assert found.col_off + found.width == int(np.ceil(wanted.col_off + wanted.width))


def test_bounds_beyond_the_grid_are_cut_at_its_edges():
    assert Grid((10, 20), PLACE, UTM).window_of((0, 0, 1e7, 1e7)) == Window(0, 0, 20, 10)


def test_bounds_in_another_crs_are_brought_to_the_grid_s():
    where = Grid((100, 100), PLACE, UTM)
    west, south = pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(500_310, 5_298_510)
    found = where.window_of((west, south, west + 0.001, south + 0.001), DEGREES)
    assert found == Window(10, 45, 3, 5)  # 310 to 385 m east and 1379 to 1490 m south of the corner, 30 m a pixel


@pytest.mark.parametrize(
    ("bounds", "crs", "said"),
    [
        ((5, 0, 4, 1), None, "are empty"),
        ((0, 0, 1, 1), None, "do not meet the scene"),
        ((30, 10, 31, 11), DEGREES, "do not meet the scene"),
        (
            (0, -90, 180, 90),
            CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84"),
            "do not meet|no place|cannot",
        ),
    ],
)
def test_bounds_elsewhere_are_refused(bounds, crs, said):
    with pytest.raises(GridError, match=said):
        Grid((10, 20), PLACE, UTM).window_of(bounds, crs)


def test_bounds_with_no_place_in_the_grid_s_crs_are_refused():
    space = Grid(
        (10, 20), Affine(1000, 0, 0, 0, -1000, 0), CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84")
    )
    with pytest.raises(GridError, match=r"no place|cannot be brought"):
        space.window_of((170, 10, 175, 20), DEGREES)  # the far side


def test_bounds_need_the_grid_s_own_coordinates_where_it_has_no_crs():
    with pytest.raises(GridError, match=r"the scene has no CRS"):
        Grid((10, 20), PLACE, None).window_of((0, 0, 1, 1), DEGREES)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("place", PLACES)
def test_pixels_have_their_area_on_the_ellipsoid(place, orientation):
    where = grid(place, orientation, (6, 5))
    areas = np.broadcast_to(where.pixel_areas(), where.shape)
    ground = Ground.of(where)
    geod = pyproj.Geod(ellps="WGS84")
    for row, col in [(0, 0), (3, 2), (5, 4)]:
        steps = np.linspace(0, 1, 50)
        cols = np.concatenate([col + steps, np.full(50, col + 1), col + 1 - steps, np.full(50, col)])
        rows = np.concatenate([np.full(50, row), row + steps, np.full(50, row + 1), row + 1 - steps])
        lon, lat = ground.lonlat(*apply(where.transform, cols, rows))
        area = abs(geod.polygon_area_perimeter(lon, lat)[0])
        planar = ground.unit is not None
        assert areas[row, col] == pytest.approx(area, rel=2e-3 if planar else 1e-5)


@given(grids(), st.data())
def test_the_areas_of_a_window_are_those_of_the_whole(where, data):
    window = data.draw(windows(where.shape))
    whole = np.broadcast_to(where.pixel_areas(), where.shape)
    part = np.broadcast_to(where.pixel_areas(window), (window.height, window.width))
    np.testing.assert_allclose(part, whole[window.toslices()], rtol=1e-9)


def test_a_degree_grid_of_the_world_has_the_area_of_the_ellipsoid():
    world = Grid((180, 360), Affine(1, 0, -180, 0, -1, 90), DEGREES)
    assert world.pixel_areas().sum() * 360 == pytest.approx(5.10065621724e14, rel=1e-4)  # m², WGS 84; 1° chords


def test_the_zone_between_two_parallels_has_its_known_area():
    """On a sphere of radius R, a zone of the width w radians from φ₁ to φ₂ has R²·w·(sin φ₂ − sin φ₁)."""
    radius = 6_371_000.0
    sphere = CRS.from_proj4(f"+proj=longlat +R={radius}")
    zone = Grid((300, 10), Affine(0.1, 0, 5, 0, -0.1, 70), sphere)
    expected = radius**2 * np.radians(1.0) * (np.sin(np.radians(70)) - np.sin(np.radians(40)))
    assert zone.pixel_areas().sum() * 10 == pytest.approx(expected, rel=1e-9)


def test_a_projection_that_keeps_areas_at_its_centre_alone_is_not_taken_at_its_word():
    crs = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84 +units=m")
    centre = Grid((10, 10), Affine(3000, 0, -15_000, 0, -3000, 15_000), crs)
    assert Ground.of(centre).unit == 1
    disc = Grid((110, 110), Affine(100_000, 0, -5_500_000, 0, -100_000, 5_500_000), crs)
    areas = disc.pixel_areas()
    assert np.isnan(areas[0, 0])  # space
    assert areas[55, 55] == pytest.approx(1e10, rel=1e-3)
    assert areas[55, 103] > 2e10  # seen at a slant


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Grid((10, 10), PLACE, UTM), 30.0),
        (Grid((10, 10), Affine(28.5, 0, 5e5, 0, -57, 5e6), UTM), 28.5 * 2**0.5),
        (Grid((10, 10), Affine(10, 0, 1e6, 0, -10, 8_399_737), CRS.from_epsg(3857)), 5.01),  # cos 60° = ½
        (Grid((10, 10), Affine(100, 0, 1e6, 0, -100, 2e5), CRS.from_epsg(2263)), 30.48),
        (Grid((10, 10), PLACE, None), None),
        (Grid((10, 10), Affine.identity(), UTM), None),
    ],
)
def test_pixel_size_is_in_metres_whatever_the_crs(where, expected):
    assert where.pixel_size_m == (expected and pytest.approx(expected, rel=2e-3))


def test_areas_without_a_place_are_refused():
    with pytest.raises(GridError, match=r"no place on Earth"):
        Grid((10, 10), PLACE, None).pixel_areas()


def test_control_points_and_rpcs_move_with_a_crop():
    rpcs = RPC(
        height_off=0.0, height_scale=1.0, lat_off=0.0, lat_scale=1.0, long_off=0.0, long_scale=1.0,
        line_off=100.0, line_scale=50.0, samp_off=200.0, samp_scale=60.0,
        line_num_coeff=[1.0] * 20, line_den_coeff=[1.0] * 20, samp_num_coeff=[1.0] * 20, samp_den_coeff=[1.0] * 20,
    )  # fmt: skip
    control = Control((ControlPoint(5, 7, 15.0, 48.0), ControlPoint(9, 2, 16.0, 47.0)), DEGREES, rpcs)
    part = Grid((20, 20), Affine.identity(), None, control).crop(Window(3, 4, 10, 10)).control
    assert [(p.row, p.col, p.x, p.y) for p in part.points] == [(1, 4, 15.0, 48.0), (5, -1, 16.0, 47.0)]
    assert (part.rpcs.line_off, part.rpcs.samp_off) == (96.0, 197.0)
    assert (rpcs.line_off, rpcs.samp_off) == (100.0, 200.0)  # the whole keeps its own


def test_a_grid_is_the_same_within_a_thousandth_of_a_pixel():
    where = Grid((10, 10), PLACE, UTM)
    assert where.same_pixels(Grid((10, 10), PLACE @ Affine.translation(0.0005, 0), UTM))
    for other in (
        Grid((10, 10), PLACE @ Affine.translation(0.5, 0), UTM),
        Grid((10, 10), PLACE @ Affine.scale(1.001), UTM),  # a hundredth of a pixel at the far corner
        Grid((10, 11), PLACE, UTM),
        Grid((10, 10), PLACE, DEGREES),
        Grid((10, 10), PLACE, None),
    ):
        assert not where.same_pixels(other)


def test_a_common_grid_is_found_or_the_odd_one_named():
    where = Grid((10, 10), PLACE, UTM)
    assert common_grid([("a.tif", where), ("b.tif", where)]) is where
    with pytest.raises(GridError, match=r"c\.tif does not lie on the grid of a\.tif: shape \(9, 10\) and \(10, 10\)"):
        common_grid([("a.tif", where), ("b.tif", where), ("c.tif", Grid((9, 10), PLACE, UTM))])
