"""Labels land on the image's pixels, from whatever file and however the grid lies."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points
from rasterio.windows import Window

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.errors import LabelError, LegendError
from geounet.raster import handles
from geounet.raster.gdal import quiet
from geounet.raster.labels import open_labels
from geounet.raster.scene import open_scene
from tests.making import PLACE, SHARED, UTM, needs_shared, write_raster
from tests.raster.test_remote import serving
from tests.strategies import ORIENTATIONS, PLACES, grid

LEGEND = Legend.of({10: "trees", 80: "water"})
IGNORE = LEGEND.ignore_index
GRID = Grid((12, 16), PLACE, UTM)
CODES = np.where(np.add.outer(np.arange(12), np.arange(16)) % 5 < 2, 80, 10).astype(np.uint8)
IDS = (CODES == 80).astype(np.uint8)


def whole(labels):
    return labels.read(labels.grid.window)


def centres(place):
    """x and y of the pixel centres, (height, width) each."""
    rows, cols = np.indices(place.shape) + 0.5
    t = place.transform
    return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f


def write_polygons(path, geometries, crs=UTM, layer=None, **columns):
    frame = geopandas.GeoDataFrame(columns, geometry=list(geometries), crs=crs and crs.to_wkt())
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path, **({"layer": layer} if layer else {}))
    return path


def pixel_box(place, left, top, right, bottom):
    """Ground of a rectangle of pixels."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    t = place.transform
    return shapely.Polygon([(t.a * c + t.b * r + t.c, t.d * c + t.e * r + t.f) for c, r in corners])


@pytest.fixture(scope="module")
def codes_file(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("labels") / "codes.tif", CODES)


class TestRasters:
    def test_on_the_image_s_grid_they_are_read_as_they_are(self, tmp_path):
        labels = open_labels(write_raster(tmp_path / "a.tif", CODES), GRID, LEGEND)
        np.testing.assert_array_equal(whole(labels), IDS)
        assert whole(labels).dtype == np.uint8
        assert labels.notes == ()

    @given(st.integers(-5, 20), st.integers(-5, 20), st.integers(1, 25), st.integers(1, 25))
    def test_a_window_is_that_part_of_the_whole_and_ignored_beyond(self, codes_file, left, top, width, height):
        padded = np.full((60, 60), IGNORE, np.uint8)
        padded[10:22, 10:26] = IDS
        found = open_labels(codes_file, GRID, LEGEND).read(Window(left, top, width, height))
        np.testing.assert_array_equal(found, padded[10 + top :, 10 + left :][:height, :width])

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
    def test_nodata_and_nan_are_ignored_whatever_the_type(self, tmp_path, dtype):
        codes = CODES.astype(dtype)
        codes[:2] = 99
        wanted = IDS.copy()
        wanted[:2] = IGNORE
        if codes.dtype.kind == "f":
            codes[5] = np.nan
            wanted[5] = IGNORE
        labels = open_labels(write_raster(tmp_path / "a.tif", codes, nodata=99), GRID, LEGEND)
        np.testing.assert_array_equal(whole(labels), wanted)

    def test_nodata_that_is_a_class_is_noted(self, tmp_path):
        labels = open_labels(write_raster(tmp_path / "a.tif", CODES, nodata=10), GRID, LEGEND)
        assert set(np.unique(whole(labels))) == {1, IGNORE}
        assert labels.notes[0].endswith("declares 10 (trees) as nodata, so that class has no labels in it.")

    def test_a_mask_inside_the_file_is_kept(self, tmp_path):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            path = write_raster(tmp_path / "a.tif", CODES)
            with rasterio.open(path, "r+") as dataset:
                dataset.write_mask(np.arange(12)[:, None] >= np.full(16, 3))
        wanted = IDS.copy()
        wanted[:3] = IGNORE
        np.testing.assert_array_equal(whole(open_labels(path, GRID, LEGEND)), wanted)
        np.testing.assert_array_equal(  # and where they have to be warped
            open_labels(path, GRID.crop(Window(1, 0, 15, 12)), LEGEND).read(Window(0, 0, 15, 12)), wanted[:, 1:]
        )

    @pytest.mark.parametrize("code", [0, 255])
    def test_beyond_warped_labels_there_is_no_label_though_all_codes_are_taken(self, tmp_path, code):
        path = write_raster(tmp_path / "a.tif", np.full((12, 16), code, np.uint8))
        beyond = Grid((12, 18), PLACE @ Affine.translation(-1, 0), UTM)
        found = whole(open_labels(path, beyond, Legend.of({code: "all"})))
        assert (found[:, 1:17] == 0).all()
        assert (found[:, [0, 17]] == IGNORE).all()

    def test_codes_beyond_float32_survive_warping(self, tmp_path):
        codes = np.where(CODES == 80, 2**24 + 1, 2**24).astype(np.int32)
        path = write_raster(tmp_path / "a.tif", codes)
        part = GRID.crop(Window(2, 3, 10, 8))
        found = whole(open_labels(path, part, Legend.of({2**24: "a", 2**24 + 1: "b"})))
        np.testing.assert_array_equal(found, IDS[3:11, 2:12])

    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    @pytest.mark.parametrize(
        "crs", [pytest.param(UTM, id="its own CRS"), pytest.param(CRS.from_epsg(32634), id="the next UTM zone")]
    )
    def test_on_another_grid_a_pixel_has_the_label_its_centre_lies_in(self, tmp_path, crs, orientation):
        rng = np.random.default_rng(1)
        codes = rng.choice(np.array([10, 80], np.uint8), (70, 80))
        path = write_raster(tmp_path / "a.tif", codes)
        (x,), (y,) = warp_points(UTM, crs, [PLACE.c + 1200], [PLACE.f - 1000])
        image = Grid((30, 40), Affine.translation(x, y) @ Affine.scale(23) @ ORIENTATIONS[orientation], crs)
        found = whole(open_labels(path, image, LEGEND))
        xs, ys = warp_points(crs, UTM, *(v.ravel() for v in centres(image)))
        cols, rows = ((np.array(v) - o) / s for v, o, s in [(xs, PLACE.c, 30), (ys, PLACE.f, -30)])
        inside = (cols >= 0) & (cols < 80) & (rows >= 0) & (rows < 70)
        wanted = np.full(1200, IGNORE)
        wanted[inside] = codes[rows[inside].astype(int), cols[inside].astype(int)] == 80
        edge = np.abs(np.stack([cols - np.rint(cols), rows - np.rint(rows)])).min(axis=0) < 2e-3  # either will do
        assert inside.mean() > 0.5
        np.testing.assert_array_equal(found.ravel()[~edge], wanted[~edge])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (Affine.translation(0.5, 0.5), "is shifted against the image's pixels by 0.50 pixel in x and 0.50 in y"),
            (Affine.scale(2), "has other pixels than the image (one of the image's is 0.5 × 0.5 of its own)"),
        ],
        ids=["half a pixel", "twice the size"],
    )
    def test_another_grid_is_noted_and_refused_on_request(self, tmp_path, change, said):
        path = write_raster(tmp_path / "a.tif", CODES, transform=PLACE @ change)
        assert said in open_labels(path, GRID, LEGEND).notes[0]
        with pytest.raises(LabelError, match=r"does not lie on the image's grid"):
            open_labels(path, GRID, LEGEND, resample=False)

    def test_a_larger_extent_on_the_same_pixels_needs_no_note(self, tmp_path):
        path = write_raster(tmp_path / "a.tif", CODES)
        labels = open_labels(path, GRID.crop(Window(3, 2, 9, 8)), LEGEND)
        assert labels.notes == ()
        np.testing.assert_array_equal(whole(labels), IDS[2:10, 3:12])

    def test_labels_elsewhere_are_noted(self, tmp_path):
        path = write_raster(tmp_path / "a.tif", CODES, transform=PLACE @ Affine.translation(1000, 0))
        labels = open_labels(path, GRID, LEGEND)
        assert "does not meet the image" in labels.notes[0]
        assert (whole(labels) == IGNORE).all()

    def test_without_a_crs_they_must_have_the_image_s_pixels(self, tmp_path):
        path = write_raster(tmp_path / "a.tif", CODES, crs=None)
        labels = open_labels(path, GRID, LEGEND)
        np.testing.assert_array_equal(whole(labels), IDS)
        assert "the labels have no CRS" in labels.notes[0]
        with pytest.raises(LabelError, match=r"without a CRS on both sides it cannot be warped"):
            open_labels(path, GRID.crop(Window(1, 0, 5, 5)), LEGEND)

    def test_an_unknown_code_is_named_with_its_file_or_ignored(self, tmp_path):
        codes = CODES.copy()
        codes[0, 0] = 7
        path = write_raster(tmp_path / "odd.tif", codes)
        with pytest.raises(LegendError, match=r"odd\.tif has the class code 7, .* \(10 trees, 80 water\)"):
            whole(open_labels(path, GRID, LEGEND))
        for options in ({"ignore": [7]}, {"unknown": "ignore"}):
            found = whole(open_labels(path, GRID, LEGEND, **options))
            assert found[0, 0] == IGNORE
            np.testing.assert_array_equal(found[1:], IDS[1:])

    def test_more_than_255_classes_have_16_bit_ids(self, tmp_path):
        codes = np.arange(12 * 16).reshape(12, 16).astype(np.int16) - 50
        legend = Legend.of({code: f"class {code}" for code in range(-60, 300)})
        found = whole(open_labels(write_raster(tmp_path / "a.tif", codes), GRID, legend))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, codes + 60)

    def test_two_bands_complex_numbers_and_options_of_polygons_are_refused(self, tmp_path):
        with pytest.raises(LabelError, match=r"two\.tif has 2 bands; labels have one band"):
            open_labels(write_raster(tmp_path / "two.tif", np.stack([CODES] * 2)), GRID, LEGEND)
        with pytest.raises(LabelError, match=r"sar\.tif holds complex numbers"):
            open_labels(write_raster(tmp_path / "sar.tif", CODES.astype("complex64")), GRID, LEGEND)
        with pytest.raises(LabelError, match=r"a\.tif is a raster: column, layer and background are for polygons"):
            open_labels(write_raster(tmp_path / "a.tif", CODES), GRID, LEGEND, column="class")

    def test_a_damaged_file_is_named(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 2, (256, 256)).astype(np.uint8)
        path = write_raster(tmp_path / "a.tif", noise, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
        (tmp_path / "cut.tif").write_bytes(path.read_bytes()[:5000])
        labels = open_labels(tmp_path / "cut.tif", Grid((256, 256), PLACE, UTM), Legend.of(["a", "b"]))
        with pytest.raises(LabelError, match=r"cut\.tif cannot be read"):
            whole(labels)

    def test_a_file_of_which_gdal_makes_up_the_end_is_refused(self, tmp_path):
        """What is lost of a JPEG is grey, of which GDAL only warns."""
        options = {"driver": "JPEG", "quality": 100, "crs": None, "transform": Affine.identity()}
        with quiet():
            whole_file = write_raster(tmp_path / "whole.jpg", np.full((256, 256), 10, np.uint8), **options).read_bytes()
        (tmp_path / "cut.jpg").write_bytes(whole_file[: len(whole_file) * 2 // 3])
        labels = open_labels(tmp_path / "cut.jpg", Grid((256, 256), Affine.identity(), None), LEGEND, unknown="ignore")
        with pytest.raises(LabelError, match=r"cut\.jpg cannot be read: .*remature end"):
            whole(labels)

    def test_they_may_lie_behind_an_address_that_messages_name_with_its_answer(self, tmp_path, monkeypatch):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
        noise = np.random.default_rng(0).choice(np.array([10, 80], np.uint8), (300, 300))
        write_raster(tmp_path / "far.tif", noise, tiled=True, blockxsize=64, blockysize=64)
        with serving(tmp_path) as shelf:
            labels = open_labels(f"{shelf.address}/far.tif", Grid((300, 300), PLACE, UTM), LEGEND)
            np.testing.assert_array_equal(labels.read(Window(0, 0, 20, 20)), noise[:20, :20] == 80)
            assert {name for _, name, _ in shelf.requests} == {"far.tif"}
            shelf.status["far.tif"] = 403
            with pytest.raises(LabelError, match=r"far\.tif cannot be read: .*403.* Check the address"):
                labels.read(Window(200, 200, 100, 100))


class TestPolygons:
    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    @pytest.mark.parametrize("place", PLACES)
    def test_a_pixel_is_of_the_last_polygon_that_holds_its_centre(self, tmp_path, place, orientation):
        image = grid(place, orientation, (37, 41))
        rng = np.random.default_rng(5)
        stars = [star(rng, rng.uniform(0, 41), rng.uniform(0, 37), image) for _ in range(12)]
        classes = rng.choice([10, 80], 12)
        path = write_polygons(tmp_path / "a.gpkg", stars, image.crs, code=classes)
        labels = open_labels(path, image, LEGEND, column="code")
        points = shapely.points(*centres(image))
        wanted = np.full(image.shape, IGNORE)
        for polygon, code in zip(stars, classes, strict=True):
            wanted[shapely.contains(polygon, points)] = code == 80
        np.testing.assert_array_equal(whole(labels), wanted)
        windows = [Window(c, r, 13, 9) for r in range(-4, 37, 9) for c in range(-4, 41, 13)]
        padded = np.pad(wanted, 20, constant_values=IGNORE)
        for window in windows:
            part = padded[window.row_off + 20 :, window.col_off + 20 :][: window.height, : window.width]
            np.testing.assert_array_equal(labels.read(window), part)

    def test_polygons_in_another_crs_are_brought_to_the_image_s(self, tmp_path):
        image = grid("Web Mercator at 60° N", "rotated", (40, 40))
        wanted = pixel_box(image, 5.2, 3.1, 30.4, 25.3)
        degrees = geopandas.GeoSeries([wanted], crs=3857).to_crs(4326)
        path = write_polygons(tmp_path / "a.geojson", degrees, CRS.from_epsg(4326))
        found = whole(open_labels(path, image, Legend.of(["no", "yes"]), background=0))
        np.testing.assert_array_equal(found, shapely.contains(wanted, shapely.points(*centres(image))))

    def test_a_long_edge_bends_with_the_earth(self, tmp_path):
        """A parallel of 4° bulges by some 400 m, 4 pixels, out of its chord in UTM."""
        image = Grid((60, 3000), Affine(100, 0, 350_000, 0, -100, 6_660_000), UTM)
        north = shapely.box(12, 60.05, 18, 61)
        path = write_polygons(tmp_path / "a.gpkg", [north], CRS.from_epsg(4326))
        found = whole(open_labels(path, image, Legend.of(["south", "north"]), background=0))
        x, y = centres(image)
        _, lat = warp_points(image.crs, CRS.from_epsg(4326), x.ravel(), y.ravel())
        lat = np.reshape(lat, image.shape)
        sure = np.abs(lat - 60.05) > 1e-5  # a metre
        np.testing.assert_array_equal(found[sure], (lat > 60.05)[sure])

    @pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".shp", ".parquet"])
    def test_every_format_is_read(self, tmp_path, suffix):
        path = write_polygons(tmp_path / f"a{suffix}", [pixel_box(GRID, 2, 3, 7, 9)], kind=["water"])
        found = whole(open_labels(path, GRID, LEGEND, column="kind", background=10))
        wanted = np.zeros(GRID.shape)
        wanted[3:9, 2:7] = 1
        np.testing.assert_array_equal(found, wanted)

    @pytest.mark.parametrize("values", [[10, 80], [10.0, 80.0], ["10", "80"], ["trees", "water"], ["trees", "80.0"]])
    def test_classes_are_codes_or_names_however_they_are_written(self, tmp_path, values):
        boxes = [pixel_box(GRID, 0, 0, 8, 12), pixel_box(GRID, 8, 0, 16, 12)]
        path = write_polygons(tmp_path / "a.gpkg", boxes, kind=values)
        np.testing.assert_array_equal(
            whole(open_labels(path, GRID, LEGEND, column="kind")), np.tile(np.arange(16) >= 8, (12, 1))
        )

    def test_bad_values_are_named_with_their_column_or_ignored(self, tmp_path):
        boxes = [pixel_box(GRID, 4 * i, 0, 4 * i + 4, 12) for i in range(4)]
        path = write_polygons(tmp_path / "a.gpkg", boxes, kind=["10", "x", None, "7"])
        with pytest.raises(LabelError, match=r"column kind of .*a\.gpkg holds x, NULL, 7, which the legend does not"):
            open_labels(path, GRID, LEGEND, column="kind")
        found = whole(open_labels(path, GRID, LEGEND, column="kind", background=80, unknown="ignore"))
        assert found[0].tolist() == [0] * 4 + [IGNORE] * 12  # what is unknown is not background either

    def test_several_codes_and_names_may_mean_no_label(self, tmp_path):
        boxes = [pixel_box(GRID, 4 * i, 0, 4 * i + 4, 12) for i in range(4)]
        path = write_polygons(tmp_path / "a.gpkg", boxes, kind=["trees", "cloud", "99", "80"])
        found = whole(open_labels(path, GRID, LEGEND, column="kind", ignore=["cloud", 99]))
        assert found[0].tolist() == [0] * 4 + [IGNORE] * 8 + [1] * 4

    def test_a_column_is_needed_unless_there_is_one_class_beside_the_background(self, tmp_path):
        path = write_polygons(tmp_path / "a.gpkg", [pixel_box(GRID, 2, 3, 7, 9)], kind=["x"], height=[3])
        with pytest.raises(LabelError, match=r"has the columns kind, height; say which .* 2 classes: trees, water"):
            open_labels(path, GRID, LEGEND)
        with pytest.raises(LabelError, match=r"has no column class; it has kind, height"):
            open_labels(path, GRID, LEGEND, column="class")
        assert (whole(open_labels(path, GRID, LEGEND, background=10)) == 1).sum() == 30
        assert (whole(open_labels(path, GRID, Legend.of({7: "roof"}))) == 0).sum() == 30

    def test_a_background_out_of_the_legend_is_refused(self, tmp_path):
        path = write_polygons(tmp_path / "a.gpkg", [pixel_box(GRID, 2, 3, 7, 9)], kind=[80])
        with pytest.raises(LegendError, match=r"background has the class code 9"):
            open_labels(path, GRID, LEGEND, column="kind", background=9)

    def test_holes_stay_background_and_what_sticks_out_is_cut(self, tmp_path):
        hole = pixel_box(GRID, 4, 4, 8, 8)
        path = write_polygons(tmp_path / "a.gpkg", [pixel_box(GRID, 2, 2, 40, 40).difference(hole)], kind=[80])
        wanted = np.zeros(GRID.shape)
        wanted[2:, 2:] = 1
        wanted[4:8, 4:8] = 0
        labels = open_labels(path, GRID, LEGEND, column="kind", background=10)
        np.testing.assert_array_equal(whole(labels), wanted)

    def test_invalid_polygons_are_repaired_and_noted(self, tmp_path):
        labels = open_labels(write_polygons(tmp_path / "a.gpkg", [bowtie()], kind=[80]), GRID, LEGEND, column="kind")
        assert "1 invalid polygons, which were repaired (feature 1: Self-intersection" in labels.notes[0]
        assert (whole(labels) == 1).sum() == 2 * (8 + 6 + 4 + 2)  # two triangles, column by column

    def test_points_and_lines_beside_polygons_are_left_out_and_alone_refused(self, tmp_path):
        x, y = PLACE.c + 100, PLACE.f - 100
        shapes = [shapely.Point(x, y), shapely.LineString([(x, y), (x + 50, y)]), pixel_box(GRID, 1, 1, 3, 3)]
        path = write_polygons(tmp_path / "a.geojson", shapes, kind=[80] * 3)
        labels = open_labels(path, GRID, LEGEND, column="kind")
        assert "has 2 geometries that are no polygons (point, linestring); they are left out" in labels.notes[0]
        assert len(labels.notes) == 1
        assert (whole(labels) == 1).sum() == 4
        path = write_polygons(tmp_path / "b.geojson", shapes[:2], kind=[80] * 2)
        with pytest.raises(LabelError, match=r"has 2 geometries that are no polygons \(point, linestring\)"):
            open_labels(path, GRID, LEGEND, column="kind")

    def test_of_several_layers_one_must_be_named(self, tmp_path):
        path = tmp_path / "a.gpkg"
        write_polygons(path, [pixel_box(GRID, 2, 3, 7, 9)], layer="roofs", kind=[80])
        write_polygons(path, [pixel_box(GRID, 0, 0, 1, 1)], layer="blocks", kind=[80])
        with pytest.raises(LabelError, match=r"has the layers roofs, blocks; say which one"):
            open_labels(path, GRID, LEGEND, column="kind")
        with pytest.raises(LabelError, match=r"has no layer walls; it has roofs, blocks"):
            open_labels(path, GRID, LEGEND, column="kind", layer="walls")
        assert (whole(open_labels(path, GRID, LEGEND, column="kind", layer="roofs")) == 1).sum() == 30

    def test_an_empty_layer_is_all_background_with_a_note(self, tmp_path):
        frame = geopandas.GeoDataFrame({"kind": np.zeros(0, int)}, geometry=[], crs="EPSG:32633")
        frame.to_file(tmp_path / "a.gpkg", geometry_type="Polygon")
        labels = open_labels(tmp_path / "a.gpkg", GRID, LEGEND, column="kind", background=10)
        assert (whole(labels) == 0).all()
        assert labels.notes[0].endswith("has no polygon on the image: all is background.")
        assert (whole(open_labels(tmp_path / "a.gpkg", GRID, LEGEND, column="kind")) == IGNORE).all()

    def test_without_a_crs_on_either_side_they_are_refused(self, tmp_path):
        path = write_polygons(tmp_path / "a.shp", [pixel_box(GRID, 2, 3, 7, 9)], kind=[80])
        with pytest.raises(LabelError, match=r"the image has no CRS or transform"):
            open_labels(path, Grid(GRID.shape, PLACE, None), LEGEND, column="kind")
        path.with_suffix(".prj").unlink()
        with pytest.raises(LabelError, match=r"does not say its CRS \(a shapefile does in its \.prj\)"):
            open_labels(path, GRID, LEGEND, column="kind")

    def test_what_is_neither_raster_nor_polygons_is_refused(self, tmp_path):
        with pytest.raises(LabelError, match=r"nothing\.gpkg cannot be opened .*No such file"):
            open_labels(tmp_path / "nothing.gpkg", GRID, LEGEND)
        (tmp_path / "a.csv").write_text("a,b\n1,2\n")
        with pytest.raises(LabelError, match=r"a\.csv has no layer with geometries"):
            open_labels(tmp_path / "a.csv", GRID, LEGEND)


def star(rng, col, row, image):
    """A jagged polygon around a pixel."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(2, 12, 9)
    t = image.transform
    cols, rows = col + radii * np.cos(angles), row + radii * np.sin(angles)
    return shapely.make_valid(
        shapely.Polygon(np.column_stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f]))
    )


def bowtie():
    """Two triangles 4 pixels wide that meet in a point, drawn as one ring that crosses itself."""
    corners = [(2, 1.7), (10, 10.3), (10, 1.7), (2, 10.3)]
    return shapely.Polygon([(PLACE.a * c + PLACE.c, PLACE.e * r + PLACE.f) for c, r in corners])


@pytest.mark.parametrize("kind", ["raster", "warped", "polygons"])
def test_labels_can_be_read_from_threads_and_sent_to_processes(tmp_path, kind):
    place = GRID if kind != "warped" else GRID.crop(Window(1, 1, 14, 10))
    if kind == "polygons":
        path = write_polygons(tmp_path / "a.gpkg", [pixel_box(GRID, 2, 3, 7, 9)], kind=[80])
        labels = open_labels(path, place, LEGEND, column="kind")
    else:
        labels = open_labels(write_raster(tmp_path / "a.tif", CODES), place, LEGEND)
    wanted = whole(labels)
    sent = pickle.loads(pickle.dumps(labels))
    windows = [Window(c, r, 5, 4) for r in range(0, 8, 2) for c in range(0, 8, 2)] * 5
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(sent.read, windows))
    for window, ids in zip(windows, found, strict=True):
        np.testing.assert_array_equal(ids, wanted[window.toslices()])


@pytest.mark.parametrize("warped", [False, True])
def test_a_thread_keeps_few_label_files_open_and_still_reads_all(tmp_path, monkeypatch, warped):
    monkeypatch.setattr(handles, "MOST_OPEN", 3)
    place = GRID.crop(Window(1, 1, 14, 10)) if warped else GRID
    paths = [write_raster(tmp_path / f"{i}.tif", np.full((12, 16), i, np.uint8)) for i in range(8)]
    every = [open_labels(path, place, Legend.of([str(i) for i in range(8)])) for path in paths]
    for _ in range(2):
        assert [int(labels.read(Window(0, 0, 1, 1))[0, 0]) for labels in every] == list(range(8))
    assert sum(labels.codes.handle.opened for labels in every) == 3


@needs_shared
def test_polygons_of_training_sites_have_the_pixels_that_their_readme_counts():
    folder = SHARED / "landsat5-tm"
    image = open_scene(folder / "LT52240631988227CUB02_B1.TIF").grid
    legend = Legend.of({1: "cleared", 2: "fallen_dry", 3: "forest", 4: "water"})
    for column in ("class_id", "class_name"):
        found = whole(open_labels(folder / "training_polygons.gpkg", image, legend, column=column))
        assert np.bincount(found.ravel(), minlength=4)[:4].tolist() == [1124, 220, 2271, 795]


@needs_shared
@pytest.mark.parametrize(("block", "pixels"), [("a-southeast", 246_230), ("a-west", 994_883), ("b-west", 312_172)])
def test_roofs_in_degrees_have_the_pixels_that_their_readme_counts_on_web_mercator(block, pixels):
    folder = SHARED / "kampala-buildings"
    image = open_scene(folder / "images" / f"{block}_z21.tif").grid
    labels = open_labels(
        folder / "buildings.gpkg", image, Legend.of(["ground", "roof"]), layer="buildings", background=0
    )
    assert (whole(labels) == 1).sum() == pixels


@needs_shared
@pytest.mark.parametrize(
    ("name", "agreement"),
    [
        ("label_ok", 1.0),
        ("label_other_extent", 1.0),
        ("onebit_mask", 1.0),
        ("label_other_crs", 0.999),
        ("label_shifted_half_pixel", 0.98),
        ("label_coarser_57m", 0.91),
    ],
)
def test_the_same_labels_on_other_grids_agree(name, agreement):
    folder = SHARED / "edge-cases"
    image = open_scene(folder / "pixel_is_point.tif").grid
    legend = Legend.of(["other", "green"])
    with rasterio.open(folder / "label_ok.tif") as dataset:
        wanted = dataset.read(1)
    found = whole(open_labels(folder / f"{name}.tif", image, legend))
    assert (found == wanted).mean() >= agreement


class TestParquet:
    """Files that are called Parquet and hold no polygons."""

    @pytest.fixture(params=["empty", "bytes", "plain", "cut"])
    def bad(self, request, tmp_path):
        path = tmp_path / f"{request.param}.parquet"
        if request.param == "plain":
            pd.DataFrame({"class": [10, 80]}).to_parquet(path)
        elif request.param == "cut":
            whole = write_polygons(tmp_path / "whole.parquet", [pixel_box(GRID, 0, 0, 4, 4)]).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        else:
            path.write_bytes(b"" if request.param == "empty" else bytes(range(256)))
        return path

    def test_as_labels_they_are_refused(self, bad):
        with pytest.raises(
            LabelError, match=rf"{bad.name} cannot be opened \(as a raster: .*; as polygons: .*\)\. Give a"
        ):
            open_labels(bad, GRID, LEGEND, column="class")

    def test_as_an_area_of_interest_they_are_refused(self, bad, codes_file):
        with pytest.raises(LabelError, match=rf"{bad.name} cannot be opened \(as polygons: .*\)\. Give polygons"):
            open_labels(codes_file, GRID, LEGEND, aoi=bad)

    def test_a_layer_of_one_is_refused(self, tmp_path, codes_file):
        path = write_polygons(tmp_path / "a.parquet", [pixel_box(GRID, 0, 0, 4, 4)], code=[10])
        with pytest.raises(LabelError, match="has no layers; leave layer='nosuch' out"):
            open_labels(path, GRID, LEGEND, column="code", layer="nosuch")
        with pytest.raises(LabelError, match="has no layers; leave aoi_layer='nosuch' out"):
            open_labels(codes_file, GRID, LEGEND, aoi=path, aoi_layer="nosuch")
