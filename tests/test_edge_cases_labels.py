"""Every awkward label of the shared collection is burnt, warped or refused rightly, and awkward pixels train nothing wrong."""

import re
from dataclasses import dataclass
from functools import partial

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform as warp_points

from geounet.core.grid import apply
from geounet.core.legend import Legend
from geounet.errors import ConfigError, LabelError, LegendError
from geounet.inference import predict
from geounet.raster.labels import Labels, open_labels
from geounet.raster.sampler import Pair, Sample, read_batch, survey
from geounet.raster.scene import open_scene
from geounet.training import Fitting, Network, Sampling, train
from tests.making import needs_shared
from tests.test_edge_cases import FOLDER, MAPPED, SCENES, rows

pytestmark = needs_shared

LEGEND = Legend.of(["other", "green"])
IGNORE = LEGEND.ignore_index
TINY = {
    "sampler": Sampling(chip_size=32, chips_per_epoch=4, seed=5),
    "model": Network(depth=1, width=2),
    "training": Fitting(epochs=1, batch_size=4),
}

RASTERS = [
    "label_ok.tif", "label_shifted_half_pixel.tif", "label_coarser_57m.tif", "label_other_extent.tif",
    "label_other_crs.tif", "label_float32_nan.tif", "label_unexpected_class.tif", "label_all_ignore.tif",
    "label_rgb_colours.tif", "onebit_mask.tif",
]  # fmt: skip
VECTORS = [
    "polygons_hole_bowtie_outside.gpkg", "mixed_geometry.geojson", "empty_layer.gpkg", "no_prj.shp",
    "class_field_text_null.gpkg", "two_layers.gpkg",
]  # fmt: skip


def test_every_row_of_the_table_has_its_test():
    assert len(rows()) == 80
    assert sorted(rows()) == sorted({*SCENES, *RASTERS, *VECTORS})


@pytest.fixture(scope="module")
def image():
    """The 128 x 128 scene that labels were made for."""
    return open_scene(FOLDER / "pixel_is_point.tif")


@pytest.fixture(scope="module")
def truth():
    with rasterio.open(FOLDER / "label_ok.tif") as dataset:
        return dataset.read(1)


def whole(labels):
    return labels.read(labels.grid.window)


def centres(grid):
    """x and y of the pixel centres, (height, width) each."""
    rows, cols = np.indices(grid.shape) + 0.5
    return apply(grid.transform, cols, rows)


def nearest(path, grid):
    """Ids of the label pixels that hold the centres of a grid's, and how far, in pixels, a centre is from their edges."""
    with rasterio.open(path) as dataset:
        stored = dataset.read(1)
        x, y = centres(grid)
        x, y = (np.reshape(v, grid.shape) for v in warp_points(grid.crs, dataset.crs, x.ravel(), y.ravel()))
        cols, rows = apply(~dataset.transform, x, y)
    inside = (cols >= 0) & (rows >= 0) & (cols < stored.shape[1]) & (rows < stored.shape[0])
    ids = np.full(grid.shape, IGNORE)
    ids[inside] = stored[rows[inside].astype(int), cols[inside].astype(int)]
    return ids, np.abs(np.stack([cols - np.rint(cols), rows - np.rint(rows)])).min(axis=0)


def off_edges(frame, points):
    """True at centres away from all edges; a centre on one may be of either side."""
    clear = shapely.distance(frame.boundary.union_all(), points) > 1e-3  # metres
    assert clear.mean() > 0.98
    return clear


class TestRasters:
    def test_a_pair_that_is_right_trains(self, image, truth, tmp_path):
        labels = open_labels(FOLDER / "label_ok.tif", image.grid, LEGEND)
        assert labels.notes == ()
        assert_array_equal(whole(labels), truth)
        run = trained(Pair(image, labels), tmp_path)
        assert run.validation.confusion.counts.sum() == 128 * 128

    @pytest.mark.parametrize(
        ("name", "note"),
        [
            ("label_coarser_57m.tif", "has other pixels than the image (one of the image's is 0.5 × 0.5 of its own)"),
            ("label_other_extent.tif", None),
            ("label_other_crs.tif", "is in EPSG:4326, the image in EPSG:31985: warped onto the image's grid"),
        ],
    )
    def test_on_another_grid_a_pixel_has_the_label_that_holds_its_centre_or_it_is_refused(self, image, name, note):
        labels = open_labels(FOLDER / name, image.grid, LEGEND)
        wanted, margin = nearest(FOLDER / name, image.grid)
        sure = margin > 2e-3  # a centre on the edge of two label pixels may have either
        assert_array_equal(whole(labels)[sure], wanted[sure])
        assert sure.mean() > 0.9
        assert [note in said for said in labels.notes] == ([True] if note else [])
        with pytest.raises(LabelError, match=rf"{name} does not lie on the image's grid"):
            open_labels(FOLDER / name, image.grid, LEGEND, resample=False)

    def test_half_a_pixel_away_a_pixel_has_one_of_the_four_labels_that_touch_its_centre(self, image):
        name = FOLDER / "label_shifted_half_pixel.tif"
        labels = open_labels(name, image.grid, LEGEND)
        (note,) = labels.notes
        assert "is shifted against the image's pixels by 0.50 pixel in x and 0.50 in y" in note
        with pytest.raises(LabelError, match=r"half_pixel.tif does not lie on the image's grid"):
            open_labels(name, image.grid, LEGEND, resample=False)
        found = whole(labels)
        with rasterio.open(name) as dataset:
            stored = np.pad(dataset.read(1), 2, constant_values=IGNORE)
            cols, rows = apply(~dataset.transform, *centres(image.grid))
        cols, rows = np.rint(cols).astype(int), np.rint(rows).astype(int)
        touching = np.stack([stored[rows + 2 + i, cols + 2 + j] for i in (-1, 0) for j in (-1, 0)])
        assert (found == touching).any(axis=0).all()
        assert (found != IGNORE).mean() > 0.97

    def test_floats_are_codes_and_nan_is_no_label(self, image):
        with rasterio.open(FOLDER / "label_float32_nan.tif") as dataset:
            stored = dataset.read(1)
        assert np.isnan(stored).any()
        found = whole(open_labels(FOLDER / "label_float32_nan.tif", image.grid, LEGEND))
        assert_array_equal(found, np.where(np.isnan(stored), IGNORE, stored))

    def test_a_value_that_is_no_class_is_refused_before_training_or_ignored_by_choice(self, image, tmp_path):
        name = "label_unexpected_class.tif"
        with rasterio.open(FOLDER / name) as dataset:
            stored = dataset.read(1)
        message = rf"{name} has the class code 7, which the legend does not know \(0 other, 1 green\)"
        pair = Pair(image, open_labels(FOLDER / name, image.grid, LEGEND))
        told = []
        with pytest.raises(LegendError, match=message):
            train({"train": [pair], "validate": [pair]}, tmp_path / "run", **TINY, progress=told.append)
        assert told == []
        assert list(tmp_path.iterdir()) == []
        for options in ({"ignore": [7]}, {"unknown": "ignore"}):
            found = whole(open_labels(FOLDER / name, image.grid, LEGEND, **options))
            assert_array_equal(found, np.where(stored == 7, IGNORE, stored))

    def test_labels_that_are_nodata_everywhere_are_refused_alone_and_count_nothing_beside_others(self, image, tmp_path):
        empty = Pair(image, open_labels(FOLDER / "label_all_ignore.tif", image.grid, LEGEND))
        full = Pair(image, open_labels(FOLDER / "label_ok.tif", image.grid, LEGEND))
        assert survey([empty]).counts.counts.sum() == 0
        with pytest.raises(ConfigError, match=r"the training scenes have no valid, labelled pixel"):
            train({"train": [empty], "validate": [full]}, tmp_path / "none", **TINY)
        run = train({"train": [empty, full], "validate": [full, empty], "test": [empty]}, tmp_path / "run", **TINY)
        assert all(np.isfinite(value) for epoch in run.history for value in epoch.values())
        assert run.validation.confusion.counts.sum() == 128 * 128
        assert run.test.confusion.counts.sum() == 0

    def test_colours_are_refused_with_their_counts_unless_the_legend_has_them(self, image, truth):
        path = FOLDER / "label_rgb_colours.tif"
        with pytest.raises(LegendError, match=r"label_rgb_colours\.tif shows the colours #008000 in 14057 pixels, #80"):
            open_labels(path, image.grid, LEGEND)
        labels = open_labels(path, image.grid, LEGEND, colors={"green": "#008000", 0: (128, 0, 0)})
        assert_array_equal(whole(labels), truth)

    def test_one_bit_masks_are_codes(self, image, truth):
        assert_array_equal(whole(open_labels(FOLDER / "onebit_mask.tif", image.grid, LEGEND)), truth)


class TestVectors:
    def test_holes_crossings_and_what_runs_out_of_the_image(self, image):
        path = FOLDER / "polygons_hole_bowtie_outside.gpkg"
        labels = open_labels(path, image.grid, LEGEND, background=0)
        frame = geopandas.read_file(path)
        bad = ~frame.is_valid
        assert bad.sum() == 1
        assert (
            f"1 invalid polygons, which were repaired (feature {frame.index[bad][0] + 1}: Self-int" in labels.notes[0]
        )
        points = shapely.points(*centres(image.grid))
        wanted = np.any([shapely.contains(shape, points) for shape in frame.geometry.make_valid()], axis=0)
        clear = (
            shapely.distance(frame.boundary.union_all(), points) > 1e-3
        )  # metres; on an edge, a pixel may be of either
        assert clear.mean() > 0.98
        assert_array_equal(whole(labels)[clear], wanted[clear])
        assert any(len(shape.interiors) for shape in frame.geometry[~bad])
        left, bottom, right, top = image.grid.bounds
        assert not shapely.box(left, bottom, right, top).covers(frame.geometry[~bad].union_all())

    def test_polygons_are_used_and_points_and_lines_left_out_by_number_and_kind(self, image):
        path = FOLDER / "mixed_geometry.geojson"
        labels = open_labels(path, image.grid, LEGEND, background=0)
        assert re.search(r"2 geometries that are no polygons \(point, linestring\); they are left out", labels.notes[0])
        polygons = [shape for shape in geopandas.read_file(path).geometry if shape.geom_type == "Polygon"]
        burnt = rasterize(polygons, out_shape=image.grid.shape, transform=image.grid.transform)
        assert burnt.any()
        assert_array_equal(whole(labels), burnt)

    def test_an_empty_layer_is_all_background_and_says_so(self, image):
        labels = open_labels(FOLDER / "empty_layer.gpkg", image.grid, LEGEND, background=0)
        assert (whole(labels) == 0).all()
        assert labels.notes[0].endswith("empty_layer.gpkg has no polygon on the image: all is background.")

    def test_a_shapefile_without_its_prj_is_refused(self, image):
        with pytest.raises(
            LabelError, match=r"no_prj\.shp does not say its CRS \(a shapefile does in its \.prj\); add it"
        ):
            open_labels(FOLDER / "no_prj.shp", image.grid, LEGEND, background=0)

    def test_text_and_null_are_named_with_their_field(self, image):
        path = FOLDER / "class_field_text_null.gpkg"
        frame = geopandas.read_file(path)
        (field,) = (name for name in frame.columns if name != "geometry")
        assert frame[field].fillna("NULL").tolist() == ["1", "x", "NULL"]
        with pytest.raises(
            LabelError, match=rf"column {field} of .*null\.gpkg holds x, NULL, which the legend does not know"
        ):
            open_labels(path, image.grid, LEGEND, column=field, background=0)
        found = whole(open_labels(path, image.grid, LEGEND, column=field, background=0, unknown="ignore"))
        points = shapely.points(*centres(image.grid))
        held = [shapely.contains(shape, points) for shape in frame.geometry.make_valid()]
        clear = off_edges(frame, points)
        assert_array_equal((found == 1)[clear], held[0][clear])
        assert_array_equal((found == IGNORE)[clear], (held[1] | held[2])[clear])

    def test_of_two_layers_one_must_be_named(self, image):
        path = FOLDER / "two_layers.gpkg"
        first, second = geopandas.list_layers(path)["name"]
        with pytest.raises(LabelError, match=rf"two_layers\.gpkg has the layers {first}, {second}; say which one"):
            open_labels(path, image.grid, LEGEND, background=0)
        points = shapely.points(*centres(image.grid))
        for layer in (first, second):
            frame = geopandas.read_file(path, layer=layer)
            clear = off_edges(frame, points)
            wanted = shapely.contains(frame.make_valid().union_all(), points)
            found = whole(open_labels(path, image.grid, LEGEND, background=0, layer=layer))
            assert_array_equal(found[clear], wanted[clear])


def test_polygons_in_a_projected_geojson_are_burnt_in_the_crs_that_the_file_names(tmp_path):
    scene = open_scene(FOLDER / "real_pan_uint16.tif")
    path = FOLDER / "real_pan_uint16_labels.geojson"
    frame = geopandas.read_file(path)
    assert frame.crs.to_epsg() == 32616
    labels = open_labels(path, scene.grid, LEGEND, background=0)
    polygons = [shape for shape in frame.geometry if shape is not None and not shape.is_empty]
    wanted = rasterize(polygons, scene.grid.shape, transform=scene.grid.transform)
    assert wanted.sum() > 1000
    assert_array_equal(whole(labels), wanted)
    assert np.isfinite(trained(Pair(scene, labels), tmp_path).history[0]["loss"])


@pytest.mark.parametrize(
    "name",
    [
        "real_rotated_utm.tif", "sheared_30deg.tif", "south_up.tif", "nonsquare_pixels.tif", "pixel_is_point.tif",
        "real_landsat_epsg4326.tif", "real_small_20x20.tif",
    ],
)  # fmt: skip
def test_polygons_land_on_the_pixels_whose_centres_they_hold_through_the_full_affine(name, tmp_path):
    grid = open_scene(FOLDER / name).grid
    height, width = grid.shape
    cols, rows = np.array([[0.12, 0.83, 0.71, 0.4], [0.21, 0.07, 0.9, 0.55]]) * [[width], [height]]
    shape = shapely.Polygon(np.column_stack(apply(grid.transform, cols, rows)))
    geopandas.GeoSeries([shape], crs=grid.crs.to_wkt()).to_file(tmp_path / "a.gpkg")
    wanted = shapely.contains(shape, shapely.points(*centres(grid)))
    assert wanted.sum() > 30
    assert_array_equal(whole(open_labels(tmp_path / "a.gpkg", grid, LEGEND, background=0)), wanted)


@pytest.mark.parametrize(
    "name",
    [
        "no_crs.tif", "no_georef.tif", "gcp_only.tif", "rpc_only.tif", "real_rotated_nocrs_tiny.tif",
        "real_float_nan_2x3.tif", "png_inside.tif", "worldfile.png",
    ],
)  # fmt: skip
def test_polygons_on_an_image_without_a_place_are_refused(name):
    grid = open_scene(FOLDER / name).grid
    with pytest.raises(LabelError, match=r"has polygons, but the image has no CRS or transform"):
        open_labels(FOLDER / "two_layers.gpkg", grid, LEGEND, background=0)


@dataclass(frozen=True, eq=False)
class Chessboard(Labels):
    """Classes 0 and 1 by turns, whatever the image."""

    def _ids(self, window):
        rows, cols = np.indices((window.height, window.width))
        return ((rows + window.row_off + cols + window.col_off) % 2).astype(np.uint8)


def chessboard(scene):
    return Pair(scene, Chessboard("a chessboard", LEGEND, scene.grid, ()))


@pytest.mark.parametrize("name", MAPPED)
def test_statistics_and_batches_are_of_the_valid_pixels_alone(name):
    scene = open_scene(FOLDER / name)
    pair = chessboard(scene)
    chip, ids = scene.read(scene.grid.window), whole(pair.labels)
    seen = survey([pair])
    assert_array_equal(seen.counts.counts, np.bincount(ids[chip.valid], minlength=2))
    if chip.valid.any():
        values = chip.pixels[:, chip.valid].astype(float)
        assert_allclose(seen.stats.mean, values.mean(axis=1), rtol=1e-6)
        assert_allclose(seen.stats.std, values.std(axis=1), rtol=1e-5, atol=1e-6)
    batch = read_batch([pair], [Sample(0, scene.grid.window)])
    assert_array_equal(batch.mask[0] == IGNORE, ~chip.valid)
    assert_array_equal(np.isfinite(batch.image[0]).all(axis=0), chip.valid)


def trained(pair, folder):
    """A run of one step on a pair, with a finite loss."""
    run = train({"train": [pair], "validate": [pair]}, folder / "run", **TINY)
    assert all(np.isfinite(value) for epoch in run.history for value in epoch.values())
    return run


@pytest.mark.parametrize(
    "open_it",
    [
        pytest.param(partial(open_scene, FOLDER / name, **options), id=name)
        for name, options in {
            "constant_band.tif": {},
            "float32_nan_declared.tif": {},
            "float32_nan_inf_undeclared.tif": {},
            "nodata_in_one_band.tif": {},
            "nodata_undeclared_-9999.tif": {"nodata": -9999},
            "nodata_differs_per_band.vrt": {},
            "scale_offset_int16.tif": {},
            "int8.tif": {},
            "uint32.tif": {},
            "real_float_nan_undeclared_tiny.tif": {},
            "real_small_20x20.tif": {},
            "one_row.tif": {},
        }.items()
    ],
)
def test_training_sees_the_pixels_that_prediction_sees_and_stays_finite(open_it, tmp_path):
    """Nodata, NaN and masks leave statistics, loss and map by the same rule; scale and offset are applied in neither."""
    scene = open_it()
    chip = scene.read(scene.grid.window)
    run = trained(chessboard(scene), tmp_path)
    assert run.validation.confusion.counts.sum() == chip.valid.sum()
    values = chip.pixels[:, chip.valid].astype(float)
    for band, mean, std in zip(run.model.bands, values.mean(axis=1), values.std(axis=1), strict=True):
        assert_allclose((band.mean, band.std), (mean, std), rtol=1e-4, atol=1e-6)
    mask = predict(scene, run.model).to_geotiff(tmp_path / "mask.tif")
    with rasterio.open(mask.path) as dataset:
        assert_array_equal(dataset.read(1) == dataset.nodata, ~chip.valid)


def test_a_scene_of_nodata_alone_is_refused_and_beside_another_trains_nothing(tmp_path):
    scene = open_scene(FOLDER / "real_all_nodata_narrow.tif")
    empty = chessboard(scene)
    assert survey([empty]).counts.counts.sum() == 0
    with pytest.raises(ConfigError, match=r"the training scenes have no valid, labelled pixel: look at nodata"):
        train({"train": [empty], "validate": [empty]}, tmp_path / "none", **TINY)
    pixels = np.random.default_rng(0).integers(1, 500, (4, 60, 71)).astype(np.uint16)
    profile = {"driver": "GTiff", "count": 4, "height": 60, "width": 71, "dtype": "uint16", "nodata": 0}
    with rasterio.open(
        tmp_path / "a.tif", "w", **profile, crs=CRS.from_epsg(32628), transform=scene.grid.transform
    ) as a:
        a.write(pixels)
        a.descriptions = scene.bands
    full = chessboard(open_scene(tmp_path / "a.tif"))
    often = {**TINY, "sampler": Sampling(chip_size=32, chips_per_epoch=16, group_power=0, seed=5)}  # from each scene
    run = train({"train": [empty, full], "validate": [full, empty]}, tmp_path / "run", **often)
    assert all(np.isfinite(value) for epoch in run.history for value in epoch.values())
    assert_allclose([band.mean for band in run.model.bands], pixels.mean(axis=(1, 2)), rtol=1e-5)
