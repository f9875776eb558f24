import subprocess
import sys

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry import box

from geounet import report
from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.core.metrics import Confusion
from geounet.errors import GeoUNetError, OutputExistsError
from geounet.raster.labels import open_labels
from geounet.raster.scene import open_scene
from geounet.report import composite, plot_confusion, plot_curves, plot_map

UTM = CRS.from_epsg(32633)
PLACE = Affine(10, 0, 500_000, 0, -10, 5_000_000)
LEGEND = Legend.of({10: "water", 20: "forest", 30: "crop"})
HISTORY = [
    {"epoch": 1, "loss": 2.0, "val_loss": 2.1, "val_miou": 0.3, "learning_rate": 1e-3, "val_iou_water": 0.4, "val_iou_a b": 0.2},
    {"epoch": 2, "loss": 1.0, "val_loss": 1.2, "val_miou": 0.6, "learning_rate": 5e-4, "val_iou_water": 0.7, "val_iou_a b": np.nan},
    {"epoch": 3, "loss": 0.5, "val_loss": 1.4, "val_miou": 0.5, "learning_rate": 1e-4, "val_iou_water": 0.6, "val_iou_a b": 0.4},
]  # fmt: skip


@pytest.fixture
def scene_of(tmp_path):
    def make(pixels, bands, name="scene.tif", nodata=-1, transform=PLACE, crs=UTM):
        pixels = np.asarray(pixels)
        count, height, width = pixels.shape
        profile = {"driver": "GTiff", "dtype": pixels.dtype, "crs": crs, "transform": transform, "nodata": nodata}
        with rasterio.open(tmp_path / name, "w", count=count, height=height, width=width, **profile) as file:
            file.write(pixels)
            file.descriptions = tuple(bands)
        return open_scene(tmp_path / name)

    return make


@pytest.fixture
def mask_of(tmp_path):
    def make(codes, name="mask.tif", transform=PLACE):
        codes = np.asarray(codes, np.uint8)
        profile = {"driver": "GTiff", "dtype": "uint8", "crs": UTM, "transform": transform, "nodata": 255}
        with rasterio.open(tmp_path / name, "w", count=1, height=codes.shape[0], width=codes.shape[1], **profile) as f:
            f.write(codes, 1)
        return tmp_path / name

    return make


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    save = report._save
    monkeypatch.setattr(report, "_save", lambda figure, *rest: (figures.append(figure), save(figure, *rest))[1])
    return figures


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (("blue", "green", "red", "nir"), (2, 1, 0)),
        (("nir", "red", "green", "swir1"), (0, 1, 2)),
        (("green", "red", "nir08", "swir1"), (2, 1, 0)),
        (("band a", "band b", "band c", "band d"), (0, 1, 2)),
        (("band a", "band b"), (0, 0, 0)),
        (("pan",), (0, 0, 0)),
    ],
)
def test_bands_are_shown_by_name_and_else_in_order(scene_of, bands, shown):
    pixels = np.random.default_rng(0).integers(0, 4000, (len(bands), 12, 9)).astype(np.int16)
    picture = composite(scene_of(pixels, bands))
    alone = [composite(scene_of(pixels[[band]], ("pan",), f"{band}.tif"))[..., 0] for band in range(len(bands))]
    assert picture.shape == (12, 9, 4)
    for channel, band in enumerate(shown):
        assert_array_equal(picture[..., channel], alone[band])


def test_the_stretch_goes_from_the_2nd_to_the_98th_percentile_of_valid_pixels(scene_of):
    values = np.arange(-1, 101, dtype=np.float32)[None, None]  # -1 is nodata; 0 … 100 are left
    picture = composite(scene_of(values, ("pan",)))[0]
    assert picture[0].tolist() == [255, 255, 255, 0]  # clear, over white
    grey = picture[1:, 0].astype(float)
    assert_array_equal(grey[:3], 0)  # up to the 2nd percentile, which is 2
    assert_array_equal(grey[98:], 255)
    assert grey[50] == round(255 * 0.5**0.75)
    assert (np.diff(grey) >= 0).all()
    assert (picture[1:, 3] == 255).all()


def test_a_scene_of_one_value_is_grey_and_an_empty_one_is_clear(scene_of):
    assert (composite(scene_of(np.full((1, 4, 5), 7, np.int16), ("pan",)))[..., :3] == 128).all()
    nothing = composite(scene_of(np.full((1, 4, 5), -1, np.int16), ("pan",), "nothing.tif"))
    assert (nothing[..., 3] == 0).all()
    assert (nothing[..., :3] == 255).all()


@pytest.mark.parametrize("strip", [1, 500, 2**24])
def test_a_large_scene_is_averaged_to_size_over_its_valid_pixels(scene_of, monkeypatch, strip):
    monkeypatch.setattr(report, "_STRIP", strip)
    rng = np.random.default_rng(1)
    small = rng.integers(0, 1000, (3, 6, 8)).astype(np.int16)
    small[:, 1, 2] = -1
    large = np.kron(small, np.ones((1, 4, 4), np.int16))
    ripple = np.tile([[1, -1], [-1, 1]], (12, 16)).astype(np.int16)  # which averages out in squares of 4
    large = np.where(large == -1, -1, 2 + large + ripple).astype(np.int16)
    large[0, 8, 8] = large[0, 8, 9] = -1  # a plus and a minus: the mean of the rest stays
    bands = ("red", "green", "blue")
    assert_array_equal(
        composite(scene_of(large, bands), size=8),
        composite(scene_of(np.where(small == -1, -1, small + 2).astype(np.int16), bands, "small.tif")),
    )


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_a_picture_is_never_larger_than_asked_and_keeps_its_shape(height, width, size):
    pixels, valid = np.ones((1, height, width)), np.ones((height, width), bool)
    step = max(1, -(-max(height, width) // size))
    rows, cols = report._average(pixels, valid, step).shape[1:]
    assert max(rows, cols) <= size
    assert (rows, cols) == (-(-height // step), -(-width // step))


def test_a_window_shows_its_part(scene_of):
    pixels = np.random.default_rng(2).integers(0, 999, (1, 20, 30)).astype(np.int16)
    part = composite(scene_of(pixels, ("pan",)), Window(5, 7, 12, 10))
    assert_array_equal(part, composite(scene_of(pixels[:, 7:17, 5:17], ("pan",), "part.tif")))


def test_curves_mark_the_epoch_with_the_best_mean_iou(tmp_path, drawn):
    path = plot_curves(HISTORY, tmp_path / "curves.png")
    losses, scores, _ = drawn[0].axes
    (star,) = [line for line in scores.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[2, 0.6]]
    assert "0.600, epoch 2" in scores.get_title(loc="left")
    assert losses.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.5]
    assert [text.get_text() for text in scores.get_legend().get_texts()] == ["water", "a b", "mean"]
    assert imread(path).shape[2] == 4


def test_curves_of_one_epoch_and_of_undefined_scores_can_be_drawn(tmp_path):
    lost = [{**HISTORY[0], "val_miou": np.nan}]
    assert plot_curves(lost, tmp_path / "curves.png").is_file()


def test_curves_of_no_epoch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no epochs"):
        plot_curves([], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [1, 2, 5, 12, 20])
def test_every_number_of_a_confusion_table_fits_its_cell(tmp_path, drawn, classes):
    counts = np.random.default_rng(classes).integers(0, 10**9, (classes, classes))
    plot_confusion(Confusion(counts), [f"class number {k}" for k in range(classes)], tmp_path / "confusion.png")
    (figure,) = drawn
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        cell = axes.get_window_extent(renderer).width / classes
        texts = [text for text in axes.texts if text.get_text()]
        assert len(texts) == classes**2
        assert max(text.get_window_extent(renderer).width for text in texts) < cell
        assert min(text.get_fontsize() for text in texts) >= 7
        ticks = [label.get_window_extent(renderer) for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
        assert min(box.x0 for box in ticks) >= 0
        assert min(box.y0 for box in ticks) >= 0


def test_confusion_shares_are_of_the_true_class(tmp_path, drawn):
    plot_confusion(Confusion(np.array([[30, 10], [0, 0]])), ["a", "b"], tmp_path / "confusion.png")
    pixels, shares = ([text.get_text() for text in axes.texts] for axes in drawn[0].axes)
    assert pixels == ["30", "10", "0", "0"]
    assert shares == ["75.0", "25.0", "–", "–"]  # no pixel is truly b


def test_a_confusion_needs_a_name_for_each_class(tmp_path):
    with pytest.raises(ValueError, match="2 classes need as many names, not 1"):
        plot_confusion(Confusion.empty(2), ["a"], tmp_path / "confusion.png")


def test_a_picture_that_is_there_is_kept_unless_overwriting_is_asked_for(tmp_path):
    path = plot_curves(HISTORY, tmp_path / "curves.png")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="exists already"):
        plot_curves(HISTORY[:2], path)
    assert path.read_bytes() == before
    plot_curves(HISTORY[:2], path, overwrite=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


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
    path = report._path(box(0, 0, 10, 10).difference(box(3, 3, 7, 7)))
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
    report._scale_bar(axes, Grid((width, width), Affine(pixel, 0, 500_000 - pixel * width / 2, 0, -pixel, 5e6), UTM))
    number, unit = axes.texts[0].get_text().split()
    metres = float(number) * {"m": 1, "km": 1000}[unit]
    assert f"{metres:e}"[0] in "125"
    left, right = axes.lines[0].get_xdata()
    assert (right - left) * pixel == pytest.approx(metres, rel=1e-6)
    assert width / 10 * 0.999 <= right - left <= width / 4 * 1.001


def test_an_image_without_a_place_has_no_scale_bar():
    axes = Figure().add_subplot()
    report._scale_bar(axes, Grid((10, 10), Affine.identity(), None))
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
