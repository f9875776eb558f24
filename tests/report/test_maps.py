import subprocess
import sys

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.crs import CRS
from shapely.geometry import box

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.errors import GeoUNetError
from geounet.raster.labels import open_labels
from geounet.report import composite, maps, plot_map

UTM = CRS.from_epsg(32633)
PLACE = Affine(10, 0, 500_000, 0, -10, 5_000_000)
LEGEND = Legend.of({10: "water", 20: "forest", 30: "crop"})


def painted(path, color):
    """Pixels of a PNG that have exactly this colour."""
    return int((np.rint(imread(path)[..., :3] * 255) == color).all(axis=-1).sum())


def test_a_map_shows_the_classes_in_their_colours_and_shares(tmp_path, scene_of, mask_of):
    scene = scene_of(np.random.default_rng(0).integers(0, 999, (3, 60, 80)).astype(np.int16), ("red", "green", "blue"))
    codes = np.full((60, 80), 10)
    codes[:, 40:60], codes[:, 60:] = 20, 255  # half water, a quarter forest, a quarter nothing
    path = plot_map(scene, mask_of(codes), tmp_path / "map.png", legend=LEGEND, title="A title")
    water, forest, crop = (painted(path, info.color) for info in LEGEND.classes)
    assert water / forest == pytest.approx(2, rel=0.05)
    assert crop == 0  # a class that the mask lacks is not in the key
    two = plot_map(
        scene,
        mask_of(codes),
        tmp_path / "two.png",
        legend=LEGEND,
        labels=open_labels(mask_of(codes), scene.grid, LEGEND),
    )
    assert painted(two, LEGEND.classes[0].color) / water == pytest.approx(2, rel=0.05)


def test_a_mask_of_a_part_is_shown_with_its_part_of_the_scene(tmp_path, scene_of, mask_of, drawn):
    pixels = np.random.default_rng(0).integers(0, 999, (1, 60, 80)).astype(np.int16)
    part = mask_of(np.full((20, 30), 10), transform=PLACE @ Affine.translation(40, 10))
    plot_map(scene_of(pixels, ("pan",)), part, tmp_path / "map.png", legend=LEGEND)
    image = drawn[0].axes[0].images[0].get_array()
    assert_array_equal(image, composite(scene_of(pixels[:, 10:30, 40:70], ("pan",), "part.tif")))


def test_polygons_in_another_crs_lie_where_their_pixels_are(tmp_path, scene_of, mask_of, drawn):
    scene = scene_of(np.random.default_rng(0).integers(0, 999, (1, 60, 80)).astype(np.int16), ("pan",))
    pond = box(500_000 + 200, 5_000_000 - 300, 500_000 + 500, 5_000_000 - 100)  # columns 20–50, rows 10–30
    frame = gpd.GeoDataFrame({"class": [10]}, geometry=[pond], crs=UTM).to_crs(4326)
    plot_map(scene, mask_of(np.full((60, 80), 10)), tmp_path / "map.png", legend=LEGEND, polygons=frame)
    paths = [path for collection in drawn[0].axes[-1].collections for path in collection.get_paths()]
    assert len(paths) == 3  # glaze, halo, outline
    for path in paths:
        assert_allclose(path.get_extents().extents, [20, 10, 50, 30], atol=1e-3)


def test_a_hole_in_a_polygon_stays_clear():
    figure = Figure(figsize=(1, 1), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(0, 10), frameon=False)
    path = maps._path(box(0, 0, 10, 10).difference(box(3, 3, 7, 7)))
    axes.add_collection(PathCollection([path], facecolor="black", linewidth=0))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    dark = np.asarray(canvas.buffer_rgba())[..., 0] < 128
    expected = np.ones((100, 100), bool)
    expected[30:70, 30:70] = False
    assert (dark != expected).mean() < 0.02  # but for the rims


@given(st.floats(0.05, 500), st.integers(20, 1000))
@settings(max_examples=40, deadline=None)
def test_the_scale_bar_is_round_and_from_a_tenth_to_a_quarter_of_the_width(pixel, width):
    axes = Figure().add_subplot()
    maps._scale_bar(axes, Grid((width, width), Affine(pixel, 0, 500_000 - pixel * width / 2, 0, -pixel, 5e6), UTM))
    number, unit = axes.texts[0].get_text().split()
    metres = float(number) * {"m": 1, "km": 1000}[unit]
    assert f"{metres:e}"[0] in "125"
    left, right = axes.lines[0].get_xdata()
    assert (right - left) * pixel == pytest.approx(metres, rel=1e-6)
    assert width / 10 * 0.999 <= right - left <= width / 4 * 1.001


def test_an_image_without_a_place_has_no_scale_bar():
    axes = Figure().add_subplot()
    maps._scale_bar(axes, Grid((10, 10), Affine.identity(), None))
    assert not axes.texts


def test_without_a_legend_the_mask_says_itself_what_its_codes_are(tmp_path, scene_of, mask_of, drawn):
    scene = scene_of(np.random.default_rng(0).integers(0, 999, (1, 2, 3)).astype(np.int16), ("pan",))
    plot_map(scene, mask_of([[10, 30, 30], [255, 30, 10]]), tmp_path / "map.png")
    key = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert key == ["class_10", "class_30", "no data"]


@pytest.mark.parametrize(("classes", "shape"), [(2, (60, 80)), (20, (60, 80)), (20, (90, 10)), (20, (10, 90))])
def test_the_key_stays_inside_the_picture_and_off_the_panels(tmp_path, scene_of, mask_of, drawn, classes, shape):
    scene = scene_of(np.random.default_rng(0).integers(0, 999, (1, *shape)).astype(np.int16), ("pan",))
    codes = np.arange(shape[0] * shape[1]).reshape(shape) % classes
    legend = Legend.of([f"a class of land cover {k}" for k in range(classes)])
    plot_map(scene, mask_of(codes), tmp_path / "map.png", legend=legend)
    (figure,) = drawn
    renderer = figure.canvas.get_renderer()
    key = figure.legends[0].get_window_extent(renderer)
    assert len(figure.legends[0].get_texts()) == classes + 1
    assert key.x0 >= 0
    assert key.x1 <= figure.bbox.width
    assert key.y1 <= min(axes.get_window_extent(renderer).y0 for axes in figure.axes)


def test_a_mask_that_is_not_there_is_refused_by_name(tmp_path, scene_of):
    scene = scene_of(np.ones((1, 2, 3), np.int16), ("pan",))
    with pytest.raises(GeoUNetError, match=r"no\.tif"):
        plot_map(scene, tmp_path / "no.tif", tmp_path / "map.png", legend=LEGEND)
    assert not (tmp_path / "map.png").exists()


def test_pictures_need_no_window_and_leave_no_global_state():
    check = "import sys, geounet.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
