"""Folders as agencies deliver them are scenes: the files' names say which band each holds."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from geounet.errors import SceneError
from geounet.raster.scene import MosaicScene, open_scene
from geounet.raster.scene.products import stacks, token
from tests.making import SHARED, UTM, needs_shared, write_raster

CORNER = Affine(10, 0, 500_000, 0, -10, 5_300_000)
TILE = "T33UUP_20200101T100319"
BANDS_OF = {
    10: ["B02", "B03", "B04", "B08", "TCI", "AOT", "WVP"],
    20: ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12", "SCL", "TCI", "AOT", "WVP"],
    60: ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B09", "B11", "B12", "SCL", "TCI", "AOT", "WVP"],
}
"""Files of a Level-2A product at each pixel size."""
NUMBER = {name: i for i, name in enumerate(["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11",
                                            "B12", "AOT", "SCL", "WVP", "TCI"])}  # fmt: skip


def write_jp2(path, pixels, transform):
    height, width = pixels.shape[-2:]
    count = 1 if pixels.ndim == 2 else len(pixels)
    profile = {
        "height": height,
        "width": width,
        "count": count,
        "dtype": pixels.dtype,
        "crs": UTM,
        "transform": transform,
    }
    with rasterio.open(path, "w", driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES", **profile) as dataset:
        dataset.write(pixels.reshape(count, height, width))


def make_safe(folder, tile=TILE, corner=CORNER, plus=0):
    """Make a product whose pixels are the place of the band in `NUMBER` times 1000, plus the pixel size."""
    images = folder / "GRANULE" / f"L2A_{tile}" / "IMG_DATA"
    for size, names in BANDS_OF.items():
        (images / f"R{size}m").mkdir(parents=True)
        for name in names:
            value = NUMBER[name] * 1000 + size + plus
            shape = ((3,) if name == "TCI" else ()) + (120 // size, 120 // size)
            pixels = np.full(
                shape,
                NUMBER[name] if name in ("TCI", "SCL") else value,
                np.uint8 if name in ("TCI", "SCL") else np.uint16,
            )
            write_jp2(images / f"R{size}m" / f"{tile}_{name}_{size}m.jp2", pixels, corner @ Affine.scale(size / 10))
    (folder / "MTD_MSIL2A.xml").write_text("<nothing/>")
    quality = folder / "GRANULE" / f"L2A_{tile}" / "QI_DATA"
    quality.mkdir()
    write_jp2(quality / "MSK_CLDPRB_20m.jp2", np.zeros((6, 6), np.uint8), corner @ Affine.scale(2))
    return folder


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    return make_safe(tmp_path_factory.mktemp("s2") / "S2A_MSIL2A_20200101T100319_N0500_R122_T33UUP.SAFE")


SPECTRAL = (
    "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "swir1", "swir2",
)  # fmt: skip


def test_a_safe_folder_has_each_band_once_from_its_finest_file(safe):
    scene = open_scene(safe)
    assert scene.bands == (*SPECTRAL, "aot", "scl", "wvp")
    assert scene.grid.transform == CORNER
    assert scene.grid.shape == (12, 12)
    finest = [20, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20, 10, 0, 10]
    order = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12", "AOT", "SCL", "WVP"]
    expected = [NUMBER[name] * 1000 + size if size else NUMBER[name] for name, size in zip(order, finest, strict=True)]
    chip = scene.read(scene.grid.window)
    assert chip.valid.all()
    assert (chip.pixels == np.array(expected)[:, None, None]).all()


@pytest.mark.parametrize(
    ("resolution", "shape", "size"),
    [(20, 6, {"blue": 20, "nir": 10, "nir09": 60}), (60, 2, {"blue": 60, "nir": 10}), ("coarsest", 2, {"blue": 10})],
)
def test_the_file_nearest_to_the_resolution_asked_for_is_read(safe, resolution, shape, size):
    scene = open_scene(safe, resolution=resolution)
    assert scene.grid.shape == (shape, shape)
    view = scene.select(list(size))
    got = [int(value) % 1000 for value in view.read(view.grid.window).pixels[:, 0, 0]]
    assert got == list(size.values())


def test_the_image_folder_of_a_product_is_the_product(safe):
    images = next(safe.glob("GRANULE/*/IMG_DATA"))
    assert open_scene(images).bands == open_scene(safe).bands
    assert open_scene(images / "R20m").grid.shape == (6, 6)


def test_two_products_side_by_side_are_one_mosaic(safe, tmp_path):
    east = make_safe(
        tmp_path / "S2A_MSIL2A_20200101T100319_N0500_R122_T33UVP.SAFE",
        "T33UVP_20200101T100319",
        CORNER @ Affine.translation(10, 0),
        plus=500,
    )
    scene = open_scene([safe, east])
    assert isinstance(scene, MosaicScene)
    assert scene.bands == open_scene(safe).bands
    assert scene.grid.shape == (12, 22)
    blue = scene.select(["blue"])
    pixels = blue.read(blue.grid.window).pixels[0]
    assert (pixels[:, :12] == 1010).all()  # the first where they overlap
    assert (pixels[:, 12:] == 1510).all()


def landsat(folder, name, codes, size=4):
    folder.mkdir()
    for value, code in enumerate(codes, 1):
        write_raster(folder / f"{name}_{code}.TIF", np.full((size, size), value, np.uint16), driver="GTiff")
    (folder / f"{name}_MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\nEND")
    (folder / f"{name}_MTL.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("name", "codes", "bands"),
    [
        pytest.param(
            "LC09_L2SP_193024_20220101_20220103_02_T1",
            ["QA_PIXEL", "SR_QA_AEROSOL", "SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7", "ST_B10", "ST_QA"],
            ("coastal", "blue", "green", "red", "nir", "swir1", "swir2", "thermal", "qa_pixel", "sr_qa_aerosol", "st_qa"),
            id="Landsat 9 Collection 2 Level 2",
        ),
        pytest.param("LC08_L2SP_193024_20200101_20200103_02_T1", ["SR_B4", "SR_B5"], ("red", "nir"),
                     id="the name of the file says which sensor"),
        pytest.param("LT05_L2SP_193024_19900101_20200103_02_T1", ["SR_B4", "SR_B5"], ("nir", "swir1"),
                     id="the same bands of another"),
        pytest.param("LE07_L1TP_193024_20000101_20200103_02_T1", ["B1", "B2", "B6_VCID_1", "B6_VCID_2", "B8"],
                     ("blue", "green", "B6_VCID_1", "B6_VCID_2", "pan"), id="Landsat 7's two thermal bands"),
        pytest.param("LC08_L1TP_193024_20200101_20200103_02_T1", ["B1", "B10", "B11", "B2", "B9"],
                     ("coastal", "blue", "cirrus", "thermal", "thermal2"), id="by number, not by letter"),
    ],
)  # fmt: skip
def test_a_landsat_folder_is_a_scene(tmp_path, name, codes, bands):
    scene = open_scene(landsat(tmp_path / name, name, codes))
    assert scene.bands == bands
    values = scene.read(scene.grid.window).pixels[:, 0, 0].astype(int)
    assert sorted(values) == list(range(1, len(codes) + 1))


@pytest.mark.parametrize("name", [f"{TILE}_B02_10m.tif", "LC08_L1TP_193024_20200101_20200103_01_T1_B2.TIF"])
def test_zero_is_nodata_where_the_product_says_so_and_the_file_says_nothing(tmp_path, name):
    path = write_raster(tmp_path / name, np.array([[0, 1, 7]], np.uint16), driver="GTiff")
    window = Window(0, 0, 3, 1)
    scene = open_scene(path)
    assert scene.read(window).valid.tolist() == [[False, True, True]]
    assert any("declares no nodata; 0 counts as such" in note for note in scene.notes)
    assert open_scene(path, nodata=float("nan")).read(window).valid.all()
    assert open_scene(path, nodata=7).read(window).valid.tolist() == [[True, True, False]]
    declared = write_raster(tmp_path / name, np.array([[0, 1, 7]], np.uint16), driver="GTiff", nodata=1)
    assert open_scene(declared).read(window).valid.tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("sensor", "codes", "bands"),
    [
        ("S30", ["B02", "B04", "B05", "B8A", "Fmask", "SZA"], ("blue", "red", "rededge1", "nir08", "fmask", "sza")),
        ("L30", ["B02", "B04", "B05", "Fmask", "VAA"], ("blue", "red", "nir", "fmask", "vaa")),
    ],
)
def test_an_hls_folder_is_a_scene(tmp_path, sensor, codes, bands):
    for code in codes:
        write_raster(tmp_path / f"HLS.{sensor}.T33UUP.2020001T100319.v2.0.{code}.tif", np.ones((3, 3), np.int16))
    assert open_scene(tmp_path).bands == bands


def test_a_preview_is_a_scene_when_it_is_asked_for_by_name(safe):
    preview = next(safe.glob("GRANULE/*/IMG_DATA/R10m/*_TCI_10m.jp2"))
    assert open_scene(preview).bands == ("band_1", "band_2", "band_3")


def test_two_dates_of_a_product_in_one_folder_are_two_stacks():
    names = [
        f"HLS.S30.T33UUP.{day}T100319.v2.0.{code}.tif" for day in ("2020001", "2020006") for code in ("B02", "B03")
    ]
    assert stacks(names) == [names[:2], names[2:]]


def test_products_of_one_name_in_two_folders_are_two_stacks():
    paths = ["a/B02.tif", "a/B03.tif", "b/B02.tif", "b/B03.tif"]
    assert stacks(paths) == [paths[:2], paths[2:]]


def test_a_name_that_says_nothing_leaves_the_files_as_they_are():
    assert stacks(["x_B02.tif", "dem.tif"]) == [["x_B02.tif", "dem.tif"]]


@pytest.mark.parametrize("name", ["dem.tif", "scene_BW.tif", "LAB2.tif", "tile_20200101.tif", "scl_map.tif"])
def test_names_of_other_files_hold_no_band(name):
    assert token(name) is None


def test_a_pattern_without_a_match_is_refused(tmp_path):
    with pytest.raises(SceneError, match="no file matches"):
        open_scene(str(tmp_path / "*.SAFE"))


@needs_shared
def test_the_landsat_5_scene_of_seven_files():
    scene = open_scene(SHARED / "landsat5-tm")
    assert scene.bands == ("blue", "green", "red", "nir", "swir1", "thermal", "swir2")
    assert scene.grid.shape == (310, 287)
    assert scene.read(scene.grid.window).valid.all()
    assert scene.notes == ()
