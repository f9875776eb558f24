"""A class map comes back pixel for pixel from one whole file, or there is none."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.windows import Window

from geounet.core.grid import Control, ControlPoint, Grid
from geounet.core.legend import Legend
from geounet.errors import LegendError, OutputError, OutputExistsError, SceneError
from geounet.raster.geotiff import LEGEND_TAG, CogWriter, mask_writer, read_legend, tiff_time
from geounet.raster.scene import open_scene
from tests.making import PLACE, SHARED, UTM, needs_shared, write_raster

EDGE = SHARED / "edge-cases"
LEGEND = Legend.of({10: "trees", 80: "water"}, {"water": "#0000ff"})
COORDINATE = st.floats(-1e7, 1e7, allow_nan=False).map(float)


def grid(height=3, width=4, **place):
    return Grid((height, width), **{"transform": PLACE, "crs": UTM, **place})


def write_mask(path, codes, legend=LEGEND, place=None, **options):
    codes = np.asarray(codes, legend.dtype)
    place = place or grid(*codes.shape)
    with mask_writer(path, place, legend, **options) as out:
        out.write(place.window, codes)
    return path


def raw(path):
    """Band 1 as GDAL has it."""
    scene = open_scene(path)
    return scene.read(scene.grid.window).pixels[0]


# --- pixels ----------------------------------------------------------------------------------------------------------


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(st.integers(1, 20), st.integers(1, 20)), st.data())
@settings(max_examples=15, deadline=None)
def test_windows_written_in_any_order_come_back_as_one_raster(tmp_path_factory, shape, size, data):
    path = tmp_path_factory.mktemp("cog") / "mask.tif"
    codes = np.random.default_rng(0).choice(np.array([10, 80, 255], np.uint8), shape)
    corners = [(y, x) for y in range(0, shape[0], size[0]) for x in range(0, shape[1], size[1])]
    with mask_writer(path, grid(*shape), LEGEND) as out:
        for y, x in data.draw(st.permutations(corners)):
            part = codes[y : y + size[0], x : x + size[1]]
            out.write(Window(x, y, part.shape[1], part.shape[0]), part)
    assert_array_equal(raw(path), codes)
    scene = open_scene(path)
    assert_array_equal(scene.read(scene.grid.window).valid, codes != 255)


def test_what_is_never_written_is_nodata(tmp_path):
    with mask_writer(tmp_path / "m.tif", grid(600, 700), LEGEND) as out:
        out.write(Window(0, 0, 1, 1), np.array([[80]], np.uint8))
    codes = raw(tmp_path / "m.tif")
    assert codes[0, 0] == 80
    assert (np.delete(codes.ravel(), 0) == 255).all()


def test_the_file_is_a_cog_that_says_what_it_holds(tmp_path):
    codes = np.full((1100, 1300), 10, np.uint8)
    codes[:, 600:] = 80
    path = write_mask(tmp_path / "m.tif", codes, datetime="2021-06-30T10:12:01", tags={"source": "scene.tif"})
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.overviews(1) == [2, 4]
        assert dataset.compression.name == "deflate"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        assert dataset.nodata == 255
        assert dataset.descriptions == ("class",)
        assert dataset.colormap(1)[80] == (0, 0, 255, 255)
        tags = dataset.tags()
        assert tags["TIFFTAG_DATETIME"] == "2021:06:30 10:12:01"
        assert tags["TIFFTAG_SOFTWARE"].startswith("geounet ")
        assert tags["source"] == "scene.tif"
        assert json.loads(tags[LEGEND_TAG])[1]["name"] == "water"
    assert "<Category>water</Category>" in (tmp_path / "m.tif.aux.xml").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"m.tif", "m.tif.aux.xml"}


def test_overviews_of_class_maps_hold_codes_only(tmp_path):
    codes = np.random.default_rng(0).choice(np.array([10, 80], np.uint8), (1100, 1100))
    path = write_mask(tmp_path / "m.tif", codes)
    with rasterio.open(path, overview_level=0) as dataset:
        assert set(np.unique(dataset.read(1))) == {10, 80}


@pytest.mark.parametrize(
    ("codes", "dtype", "coloured"),
    [([1, 2], "uint8", True), ([0, 300], "uint16", True), ([-5, 7], "int16", False), ([0, 70_000], "int32", False)],
)
def test_codes_of_every_size_are_kept(tmp_path, codes, dtype, coloured):
    legend = Legend.of(dict(zip(codes, ["a", "b"], strict=True)))
    path = write_mask(tmp_path / "m.tif", [[*codes, legend.nodata]], legend)
    assert raw(path).tolist() == [[*codes, legend.nodata]]
    with rasterio.open(path) as dataset:
        assert dataset.dtypes == (dtype,)
        assert dataset.nodata == legend.nodata
        assert (dataset.colorinterp[0].name == "palette") is coloured
    assert read_legend(path) == legend


def test_probabilities_are_a_band_a_class_with_scale_and_offset(tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, (3, 30, 40)).astype(np.uint8)
    place = grid(30, 40)
    with CogWriter(
        tmp_path / "p.tif", place, dtype="uint8", count=3, nodata=255, descriptions=["a", "b", "c"],
        scales=[1 / 254] * 3, offsets=[0.0] * 3, resampling="average",
    ) as out:  # fmt: skip
        out.write(place.window, stored)
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert_array_equal(dataset.read(), stored)
        assert dataset.scales == (1 / 254,) * 3
        assert dataset.descriptions == ("a", "b", "c")
    assert not (tmp_path / "p.tif.aux.xml").exists()


def test_floats_are_kept_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).random((2, 5, 6)).astype(np.float32)
    values[0, 0, 0] = np.nan
    place = grid(5, 6)
    with CogWriter(tmp_path / "p.tif", place, dtype=np.float32, count=2, nodata=float("nan")) as out:
        out.write(place.window, values)
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert_array_equal(dataset.read(), values)


@pytest.mark.parametrize(
    ("window", "pixels"),
    [
        (Window(0, 0, 4, 3), np.zeros((3, 3), np.uint8)),
        (Window(0, 0, 4, 3), np.zeros((3, 4), np.int16)),
        (Window(2, 0, 4, 3), np.zeros((3, 4), np.uint8)),
    ],
)
def test_pixels_that_do_not_fit_are_refused(tmp_path, window, pixels):
    with pytest.raises(ValueError, match=r"fit|sticks out"), mask_writer(tmp_path / "m.tif", grid(), LEGEND) as out:
        out.write(window, pixels)
    assert not list(tmp_path.iterdir())


# --- place -----------------------------------------------------------------------------------------------------------

CONTROL = Control(
    tuple(ControlPoint(row, col, 292196.25000071607 + col / 3, 9117910.75002881 - row / 7, 1 / 3, str(i), "")
          for i, (row, col) in enumerate([(0.0, 0.0), (0.0, 4.0), (3.0, 0.0), (1 / 3, 2.123456789)], 1)),
    UTM,
)  # fmt: skip
POLYNOMIAL = RPC(
    height_off=1.0, height_scale=2.0, lat_off=3.0, lat_scale=4.0, line_den_coeff=[1.0] + [0.333333333333333] * 19,
    line_num_coeff=[0.1] * 20, line_off=5.0, line_scale=6.0, long_off=7.0, long_scale=8.0,
    samp_den_coeff=[1.0] + [0.0] * 19, samp_num_coeff=[0.3] * 20, samp_off=9.0, samp_scale=10.0, err_bias=0.5,
    err_rand=0.25,
)  # fmt: skip
# GDAL keeps these as text of 15 digits


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(grid(), id="north up"),
        pytest.param(grid(crs=None), id="no CRS"),
        pytest.param(grid(crs=None, transform=Affine.identity()), id="no place"),
        pytest.param(grid(transform=Affine(10, 3, 5e5, 2, -9, 5e6)), id="sheared"),
        pytest.param(grid(transform=Affine(10, 0, 5e5, 0, 10, 5e6)), id="south up"),
        pytest.param(grid(transform=Affine(28.5, 0, 292196.25000071607, 0, -57, 9117910.75002881)), id="not square"),
        pytest.param(grid(registration="Point"), id="pixel is point"),
        pytest.param(grid(crs=CRS.from_user_input("ESRI:102039")), id="ESRI code"),
        pytest.param(grid(crs=CRS.from_proj4("+proj=geos +h=35786023 +lon_0=-75 +sweep=x +ellps=GRS80")), id="no code"),
        pytest.param(grid(crs=None, transform=Affine.identity(), control=CONTROL), id="ground control"),
        pytest.param(grid(crs=None, transform=Affine.identity(), control=Control(rpcs=POLYNOMIAL)), id="RPCs"),
        pytest.param(grid(1, 1), id="one pixel"),
    ],
)
def test_the_grid_is_carried_exactly(tmp_path, place):
    codes = np.full(place.shape, 80, np.uint8)
    back = open_scene(write_mask(tmp_path / "m.tif", codes, place=place)).grid
    assert back.transform == place.transform
    # PROJ does not call two geostationary CRSs of one text the same
    assert back.crs == place.crs or back.crs.to_wkt() == place.crs.to_wkt()
    assert back.control == place.control
    assert back.registration == place.registration
    assert back.shape == place.shape


@given(COORDINATE, COORDINATE, st.floats(1e-6, 1e4), st.floats(1e-6, 1e4))
@settings(max_examples=15, deadline=None)
def test_transforms_are_carried_to_the_last_digit(tmp_path_factory, x, y, dx, dy):
    place = grid(transform=Affine(dx, 0, x, 0, -dy, y))
    path = write_mask(tmp_path_factory.mktemp("place") / "m.tif", np.full((3, 4), 10), place=place)
    assert open_scene(path).grid.transform == place.transform


@needs_shared
@pytest.mark.parametrize(
    "name", ["gcp_only.tif", "rpc_only.tif", "real_rotated_utm.tif", "real_geostationary_crs.tif", "worldfile.png"]
)
def test_grids_of_real_scenes_are_carried_exactly(tmp_path, name):
    place = open_scene(EDGE / name).grid
    path = write_mask(tmp_path / "m.tif", np.full(place.shape, 10), place=place)
    assert open_scene(path).grid == place


# --- refusals and accidents ------------------------------------------------------------------------------------------


def test_an_output_that_is_there_is_refused_before_any_work(tmp_path):
    path = write_mask(tmp_path / "m.tif", [[10]])
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"m\.tif exists already"):
        mask_writer(path, grid(), LEGEND)
    assert path.read_bytes() == before
    write_mask(path, [[80]], overwrite=True)
    assert raw(path).tolist() == [[80]]


@pytest.mark.parametrize("suffix", [".aux.xml", ".msk", ".ovr"])
def test_a_strangers_file_that_gdal_would_take_for_ours_is_refused(tmp_path, suffix):
    stranger = tmp_path / f"m.tif{suffix}"
    stranger.write_text("mine")
    with pytest.raises(OutputExistsError, match="GDAL would take it for a part"):
        mask_writer(tmp_path / "m.tif", grid(), LEGEND)
    assert stranger.read_text() == "mine"


def test_overwriting_leaves_no_names_of_the_old_map(tmp_path):
    path = write_mask(tmp_path / "m.tif", [[10]])
    place = grid(1, 1)
    with CogWriter(path, place, dtype="uint8", overwrite=True) as out:
        out.write(place.window, np.zeros((1, 1), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["m.tif"]


def half_a_map(path, **options):
    with mask_writer(path, grid(), LEGEND, **options) as out:
        out.write(Window(0, 0, 4, 1), np.full((1, 4), 10, np.uint8))
        raise RuntimeError("on the way")


def test_an_error_in_the_block_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="on the way"):
        half_a_map(tmp_path / "m.tif")
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_the_old_map_as_it_was(tmp_path):
    path = write_mask(tmp_path / "m.tif", [[10]])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="on the way"):
        half_a_map(path, overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        mask_writer(tmp_path / "none" / "m.tif", grid(), LEGEND)


ENDLESS = """
import sys
import numpy as np
from affine import Affine
from rasterio.windows import Window
from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.raster.geotiff import mask_writer
codes = np.random.default_rng(0).choice(np.array([10, 80], np.uint8), (1024, 1024))
legend = Legend.of({10: "trees", 80: "water"}, {"water": "#0000ff"})
while True:
    with mask_writer(sys.argv[1], Grid(codes.shape, Affine.scale(2), None), legend, overwrite=True) as out:
        for row in range(0, 1024, 256):
            out.write(Window(0, row, 1024, 256), codes[row : row + 256])
        print("written", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_at_any_moment_there_is_a_whole_map_or_none(tmp_path):
    path = tmp_path / "m.tif"
    for moment in np.random.default_rng().uniform(0, 0.4, 3):  # chance is what is tested
        with subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(moment)
            process.kill()
        if path.exists():
            assert set(np.unique(raw(path))) == {10, 80}
            assert read_legend(path) == LEGEND
        assert all(p.name.startswith(".m.") or p.name in ("m.tif", "m.tif.aux.xml") for p in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"TILED": "YES"}, "none of GDAL's COG driver"),
        ({"COMPRES": "LZW"}, r"did you mean COMPRESS\?"),
        ({"COMPRESS": "NOPE"}, "'NOPE' is an unexpected value for COMPRESS"),
        ({"LEVEL": "x"}, "unexpected value for LEVEL"),
        ({"BLOCKSIZE": "abc"}, "multiple of 16 from 128"),
        ({"PREDICTOR": "3"}, "only supported with Float32"),
        ({"COMPRESS": "JPEG"}, "loses values"),
        ({"OVERVIEW_RESAMPLING": "AVERAGE"}, "mix class codes"),
        ({"TILING_SCHEME": "GoogleMapsCompatible"}, "warp the output"),
    ],
)
def test_a_bad_creation_option_is_refused_before_any_work(tmp_path, option, said):
    with pytest.raises(OutputError, match=said):
        mask_writer(tmp_path / "m.tif", grid(), LEGEND, creation_options=option)
    assert not list(tmp_path.iterdir())


def test_creation_options_go_before_ours(tmp_path):
    path = write_mask(tmp_path / "m.tif", [[10]], creation_options={"compress": "LZW", "BLOCKSIZE": "128"})
    with rasterio.open(path) as dataset:
        assert dataset.compression.name == "lzw"
        assert dataset.block_shapes == [(128, 128)]


def test_moments_are_written_as_tiff_has_them():
    assert tiff_time(datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2020:01:02 03:04:05"
    assert tiff_time("2020:01:02 03:04:05") == "2020:01:02 03:04:05"
    with pytest.raises(OutputError, match="is no date"):
        tiff_time("yesterday")


def test_colour_tables_are_for_one_small_unsigned_band(tmp_path):
    with pytest.raises(ValueError, match="colour tables"):
        CogWriter(tmp_path / "m.tif", grid(), dtype="int32", colors={1: (0, 0, 0)})


# --- legends ---------------------------------------------------------------------------------------------------------


def test_a_legend_comes_back_from_the_one_file(tmp_path):
    path = write_mask(tmp_path / "m.tif", [[10]])
    (tmp_path / "m.tif.aux.xml").unlink()
    assert read_legend(path) == LEGEND


def test_codes_without_names_are_called_by_their_number(tmp_path):
    path = write_raster(tmp_path / "m.tif", np.array([[3, 7, 0, 3]], np.int16), nodata=0)
    assert read_legend(path).names == ("class_3", "class_7")
    assert read_legend(path).codes == (3, 7)


def test_names_and_colours_of_a_strangers_map_are_found(tmp_path):
    place = grid(1, 2)
    with CogWriter(
        tmp_path / "m.tif", place, dtype="uint8", nodata=255, colors={4: (1, 2, 3)}, categories={4: "wet", 6: "dry"}
    ) as out:
        out.write(place.window, np.array([[4, 9]], np.uint8))
    legend = read_legend(tmp_path / "m.tif")
    assert [(c.code, c.name) for c in legend.classes] == [(4, "wet"), (6, "dry"), (9, "class_9")]
    assert legend.classes[0].color == (1, 2, 3)


def test_whole_numbers_in_floats_are_codes_and_others_are_not(tmp_path):
    whole = write_raster(tmp_path / "a.tif", np.array([[1, np.nan, 2]], np.float32))
    assert read_legend(whole).codes == (1, 2)
    half = write_raster(tmp_path / "b.tif", np.array([[1, 2.5]], np.float32))
    with pytest.raises(LegendError, match=r"b\.tif holds 2\.5, which is no class code"):
        read_legend(half)


def test_what_has_no_classes_is_refused(tmp_path):
    empty = write_raster(tmp_path / "a.tif", np.zeros((1, 2), np.uint8), nodata=0)
    with pytest.raises(LegendError, match="has no class"):
        read_legend(empty)
    colours = write_raster(tmp_path / "b.tif", np.zeros((3, 1, 2), np.uint8))
    with pytest.raises(LegendError, match="has 3 bands"):
        read_legend(colours)
    with pytest.raises(SceneError, match=r"gone\.tif"):
        read_legend(tmp_path / "gone.tif")


@needs_shared
def test_an_attribute_table_names_the_classes_of_a_palette():
    legend = read_legend(EDGE / "real_palette_landcover.tif")
    water = next(c for c in legend.classes if c.code == 11)
    assert water.name == "Open Water"
    assert water.color == (71, 107, 161)
    with rasterio.open(EDGE / "real_palette_landcover.tif") as dataset:
        assert set(np.unique(dataset.read(1)).tolist()) <= set(legend.codes)
