"""Pixels and labels are those that rasterio, GDAL and shapely find, whatever the type, the layout and the lie of a grid."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject
from rasterio.windows import Window

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.raster.labels import open_labels
from geounet.raster.scene import open_scene
from tests.making import PLACE, UTM, write_raster
from tests.strategies import ORIENTATIONS, PLACES, grid

SHAPE = (50, 70)
WINDOWS = [Window(0, 0, 70, 50), Window(13, 9, 31, 17), Window(-6, -4, 20, 20), Window(55, 40, 30, 30)]
TILES = {"tiled": True, "blockxsize": 32, "blockysize": 16}
LAYOUTS = {
    "one-row strips of a band": {"blockysize": 1, "interleave": "band"},
    "strips of pixels": {"blockysize": 7, "interleave": "pixel"},
    "tiles of a band": {**TILES, "interleave": "band"},
    "tiles of pixels": {**TILES, "interleave": "pixel"},
}
LOSSLESS = ["none", "deflate", "lzw", "zstd", "lzma", "packbits", "lerc", "lerc_deflate", "lerc_zstd"]
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]
FLOATS = ["float16", "float32", "float64"]


def pixels_of(dtype, bands=3):
    """Numbers over the whole range of a type, with its extremes; no NaN."""
    rng = np.random.default_rng(3)
    shape = (bands, *SHAPE)
    if dtype in FLOATS:
        top = 60_000 if dtype == "float16" else 1e30
        values = rng.uniform(-1, 1, shape) * 10.0 ** rng.uniform(-3, np.log10(top), shape)
        return values.astype(dtype).astype(
            "float32" if dtype == "float16" else dtype
        )  # GeoTIFF has it as 16-bit float32
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    values[0, 0, :2] = info.min, info.max
    return values


def compared(path):
    """A scene's windows against the same pixels read whole by rasterio."""
    scene = open_scene(path)
    with rasterio.open(path) as dataset:
        image = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind != ColorInterp.alpha]
        with np.errstate(over="ignore"):
            wanted = dataset.read(image).astype(np.float32)
        valid = (dataset.read_masks(image) != 0).all(axis=0) & np.isfinite(wanted).all(axis=0)
    wanted = np.pad(wanted, ((0, 0), (40, 40), (40, 40)))
    valid = np.pad(valid, 40)
    for window in WINDOWS:
        chip = scene.read(window)
        part = (
            slice(window.row_off + 40, window.row_off + 40 + window.height),
            slice(window.col_off + 40, window.col_off + 40 + window.width),
        )
        np.testing.assert_array_equal(chip.valid, valid[part])
        np.testing.assert_array_equal(chip.pixels[:, chip.valid], wanted[:, *part][:, chip.valid])
    return scene, valid.mean()


@pytest.mark.parametrize("compress", LOSSLESS)
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_a_window_is_what_rasterio_reads_in_every_type_layout_and_compression(tmp_path, dtype, compress):
    pixels = pixels_of(dtype)
    more = {"nbits": 16} if dtype == "float16" else {}
    if compress in ("deflate", "lzw", "zstd"):
        more["predictor"] = 3 if dtype in FLOATS and dtype != "float16" else 2 if dtype != "float16" else 1
    if compress.startswith("lerc") and dtype in ("float16", "float64"):
        pixels = pixels.astype("float32")  # LERC knows no half precision, and rounds a range of 10^60 in double
        more = {}
    for name, layout in LAYOUTS.items():
        compared(write_raster(tmp_path / f"{name}.tif", pixels, compress=compress, **layout, **more))


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_nodata_in_some_bands_is_what_rasterio_masks(tmp_path, dtype):
    pixels = pixels_of(dtype)
    pixels[pixels == -9999] = 0
    pixels[:, :9, :20], pixels[1, 30:40, 30:50] = -9999, -9999
    scene, _ = compared(write_raster(tmp_path / "a.tif", pixels, nodata=-9999))
    assert (~scene.read(scene.grid.window).valid).sum() == 9 * 20 + 10 * 20


@pytest.mark.parametrize(
    ("compress", "bands", "more"),
    [
        ("jpeg", 3, {"photometric": "ycbcr"}),
        ("jpeg", 1, {}),
        ("webp", 3, {"webp_lossless": True}),
        ("webp", 3, {}),
    ],
)
def test_pictures_are_what_rasterio_decodes(tmp_path, compress, bands, more):
    for name, layout in [("strips", {"blockysize": 16}), ("tiles", TILES)]:  # JPEG's own blocks are 16 rows
        path = tmp_path / f"{name}.tif"
        compared(write_raster(path, pixels_of("uint8", bands), compress=compress, interleave="pixel", **layout, **more))


@pytest.mark.parametrize("driver", ["PNG", "JPEG", "GTiff", "ENVI", "HFA", "GPKG"])
def test_other_formats_are_what_rasterio_reads(tmp_path, driver):
    suffix = {"PNG": "png", "JPEG": "jpg", "GTiff": "tif", "ENVI": "dat", "HFA": "img", "GPKG": "gpkg"}[driver]
    compared(write_raster(tmp_path / f"a.{suffix}", pixels_of("uint8"), driver=driver))


def star(rng, image):
    """A jagged polygon with a hole somewhere on an image."""
    height, width = image.shape
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(4, 14, 9)
    col, row = rng.uniform(0, width), rng.uniform(0, height)
    rim = np.column_stack([col + radii * np.cos(angles), row + radii * np.sin(angles)])
    ring = shapely.make_valid(shapely.Polygon(rim)).difference(shapely.Point(col, row).buffer(rng.uniform(0.5, 2)))
    t = image.transform
    return shapely.transform(
        ring, lambda xy: np.column_stack([t.a * xy[:, 0] + t.b * xy[:, 1] + t.c, t.d * xy[:, 0] + t.e * xy[:, 1] + t.f])
    )


def stars_on(folder, image, seed):
    """Overlapping polygons in a file, and their classes in its order."""
    rng = np.random.default_rng(seed)
    polygons, classes = [star(rng, image) for _ in range(10)], rng.integers(0, 3, 10)
    path = folder / f"{seed}.gpkg"
    geopandas.GeoDataFrame({"code": classes}, geometry=polygons, crs=image.crs.to_wkt()).to_file(path)
    return path, polygons, classes


LEGEND = Legend.of(["a", "b", "c"])


@settings(max_examples=8)
@given(st.integers(0, 1000))
def test_burnt_labels_are_rasterio_s_on_north_up_grids(tmp_path_factory, seed):
    for place in PLACES:
        image = grid(place, "north-up", SHAPE)
        path, polygons, classes = stars_on(tmp_path_factory.mktemp("stars"), image, seed)
        wanted = rasterize(
            zip(polygons, classes.tolist(), strict=True), SHAPE, fill=255, transform=image.transform, dtype="uint8"
        )
        labels = open_labels(path, image, LEGEND, column="code")
        np.testing.assert_array_equal(labels.read(image.window), wanted)
        for window in WINDOWS[1:]:
            part = np.pad(wanted, 40, constant_values=255)[window.row_off + 40 :, window.col_off + 40 :]
            np.testing.assert_array_equal(labels.read(window), part[: window.height, : window.width])


@settings(max_examples=4)
@given(st.integers(0, 1000))
def test_burnt_labels_are_those_of_the_last_polygon_around_a_centre_however_the_grid_lies(tmp_path_factory, seed):
    for orientation in ORIENTATIONS:
        image = grid("UTM", orientation, SHAPE)
        path, polygons, classes = stars_on(tmp_path_factory.mktemp("stars"), image, seed)
        rows, cols = np.indices(SHAPE) + 0.5
        t = image.transform
        centres = shapely.points(t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f)
        wanted = np.full(SHAPE, 255)
        for polygon, code in zip(polygons, classes, strict=True):
            wanted[shapely.contains(polygon, centres)] = code
        np.testing.assert_array_equal(open_labels(path, image, LEGEND, column="code").read(image.window), wanted)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_warped_codes_are_gdal_s_nearest_neighbour(tmp_path, orientation):
    codes = np.random.default_rng(2).integers(0, 3, SHAPE).astype(np.uint8)
    path = write_raster(tmp_path / "a.tif", codes)
    image = Grid((40, 40), PLACE @ PLACE.translation(20, 20) @ PLACE.scale(0.61) @ ORIENTATIONS[orientation], UTM)
    wanted = np.full(image.shape, 255, np.uint8)
    reproject(
        codes, wanted, src_transform=PLACE, src_crs=UTM, dst_transform=image.transform, dst_crs=UTM,
        init_dest_nodata=False, resampling=Resampling.nearest, tolerance=0,
    )  # fmt: skip
    found = open_labels(path, image, LEGEND).read(image.window)
    assert (found != 255).mean() > 0.3
    np.testing.assert_array_equal(found, wanted)
