"""Items of the catalogues people use become scenes with the right files, bands, nodata and pixels."""

import copy
import json
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pystac
import pytest
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.windows import Window

from geounet.errors import BandMismatchError, GeoUNetError, SceneError
from geounet.raster.scene import open_mosaic, open_scene
from geounet.raster.scene.stac import is_item, item_bands, open_item, read_item
from tests.making import PLACE, write_raster

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
CORNER = Window(0, 0, 1, 1)


def make_item(folder, assets, *, version="1.0.0", collection=None, properties=None, name="item.json"):
    """Write an item beside its files; each asset is its fields, with `href` relative."""
    content = {
        "type": "Feature", "stac_version": version, "stac_extensions": [], "id": "made-up", "links": [],
        "geometry": {"type": "Point", "coordinates": [15, 47]}, "bbox": [15, 47, 15, 47],
        "properties": {"datetime": "2023-06-01T10:00:31Z"} | (properties or {}), "assets": assets,
    }  # fmt: skip
    if collection:
        content["collection"] = collection
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def write_assets(folder, values, *, size=6, side=30, dtype=np.uint16, **profile):
    """One constant raster for each file name."""
    for name, value in values.items():
        write_raster(
            folder / name,
            np.full((size, size), value, dtype),
            transform=PLACE @ Affine.scale(side / 30),
            driver="GTiff",
            **profile,
        )


def corner(scene, *names):
    return (scene.select(names) if names else scene).read(CORNER).pixels.ravel().tolist()


# --- the catalogues --------------------------------------------------------------------------------------------------

EARTH_SEARCH = {  # key: (name, common name, metres)
    "coastal": ("coastal", "coastal", 60), "blue": ("blue", "blue", 10), "green": ("green", "green", 10),
    "red": ("red", "red", 10), "rededge1": ("rededge1", "rededge", 20), "rededge2": ("rededge2", "rededge", 20),
    "rededge3": ("rededge3", "rededge", 20), "nir": ("nir", "nir", 10), "nir08": ("nir08", "nir08", 20),
    "nir09": ("nir09", "nir09", 60), "swir16": ("swir16", "swir16", 20), "swir22": ("swir22", "swir22", 20),
}  # fmt: skip


@pytest.fixture
def earth_search(tmp_path):
    """Sentinel-2 L2A as Earth Search v1 has it: each band as COG and as JPEG 2000, a composite, quality layers."""
    assets = {}
    for number, (key, (name, common, side)) in enumerate(EARTH_SEARCH.items(), start=1):
        write_assets(tmp_path, {f"{key}.tif": number}, size=720 // side, side=side)
        fields = {
            "roles": ["data", "reflectance"], "gsd": side, "eo:bands": [{"name": name, "common_name": common}],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}],
        }  # fmt: skip
        assets[key] = {"href": f"./{key}.tif", "type": COG, **fields}
        assets[f"{key}-jp2"] = {"href": f"s3://nowhere/{key}.jp2", "type": "image/jp2", **fields}
    write_assets(tmp_path, {"SCL.tif": 4}, size=36, side=20, dtype=np.uint8)
    visual = [{"name": name, "common_name": name} for name in ("red", "green", "blue")]
    assets |= {
        "scl": {"href": "SCL.tif", "type": COG, "roles": ["data", "reflectance"], "gsd": 20,
                "raster:bands": [{"nodata": 0, "data_type": "uint8"}]},
        "visual": {"href": "TCI.tif", "type": COG, "roles": ["visual"], "eo:bands": visual},
        "thumbnail": {"href": "thumbnail.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "granule_metadata": {"href": "metadata.xml", "type": "application/xml", "roles": ["metadata"]},
    }  # fmt: skip
    properties = {"platform": "sentinel-2a", "constellation": "sentinel-2", "instruments": ["msi"]}
    return make_item(tmp_path, assets, collection="sentinel-2-l2a", properties=properties)


def test_sentinel_2_of_earth_search_is_its_twelve_bands_at_10_m(earth_search):
    scene = open_scene(earth_search)
    assert scene.bands == (
        "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "swir1", "swir2",
    )  # fmt: skip
    assert scene.grid.transform.a == 10
    assert scene.grid.shape == (72, 72)
    assert corner(scene) == list(range(1, 13))
    assert all(path.endswith(".tif") for path in scene.paths)
    assert scene.tags["TIFFTAG_DATETIME"] == "2023:06:01 10:00:31"
    assert scene.tags["STAC_ITEM"] == "made-up"


def test_an_offset_that_is_not_applied_is_noted_once(earth_search):
    notes = [note for note in open_scene(earth_search).notes if "declares an offset" in note]
    assert len(notes) == 1
    assert "coastal = stored × 0.0001 + -0.1" in notes[0]


def test_quality_layers_are_read_when_they_are_named_and_never_mixed(earth_search):
    codes = np.tile(np.array([4, 9], np.uint8), (36, 18))
    write_raster(earth_search.parent / "SCL.tif", codes, transform=PLACE @ Affine.scale(20 / 30))
    scene = open_scene(earth_search, bands=["B04", "scl"], resolution=10)
    assert scene.bands == ("red", "scl")
    assert set(np.unique(scene.read(scene.grid.window).pixels[1])) == {4, 9}


def test_where_the_item_says_what_the_file_does_not_its_nodata_holds(earth_search):
    folder = earth_search.parent
    write_raster(folder / "red.tif", np.array([[0, 7]], np.uint16))
    write_raster(folder / "blue.tif", np.array([[7, 0]], np.uint16), nodata=7)
    read = Window(0, 0, 2, 1)
    assert open_scene(earth_search, bands=["red"]).read(read).valid.tolist() == [[False, True]]
    assert open_scene(earth_search, bands=["blue"]).read(read).valid.tolist() == [[False, True]]
    both = open_scene(earth_search, bands=["red", "blue"], nodata={"B04": 7})
    assert both.select(["red"]).read(read).valid.tolist() == [[True, False]]
    assert both.select(["blue"]).read(read).valid.tolist() == [[False, True]]


def test_a_mask_in_the_file_goes_before_the_items_nodata(earth_search):
    import rasterio

    path = write_raster(earth_search.parent / "red.tif", np.array([[0, 7]], np.uint16))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.array([[True, False]]))
    assert open_scene(earth_search, bands=["red"]).read(Window(0, 0, 2, 1)).valid.tolist() == [[True, False]]


LANDSAT = {  # key: (file's ending, band, common name, role)
    "qa": ("ST_QA.TIF", None, None, "data"), "red": ("SR_B4.TIF", "OLI_B4", "red", "data"),
    "blue": ("SR_B2.TIF", "OLI_B2", "blue", "data"), "green": ("SR_B3.TIF", "OLI_B3", "green", "data"),
    "nir08": ("SR_B5.TIF", "OLI_B5", "nir08", "data"), "swir16": ("SR_B6.TIF", "OLI_B6", "swir16", "data"),
    "swir22": ("SR_B7.TIF", "OLI_B7", "swir22", "data"), "lwir11": ("ST_B10.TIF", "TIRS_B10", "lwir11", "data"),
    "coastal": ("SR_B1.TIF", "OLI_B1", "coastal", "data"), "qa_pixel": ("QA_PIXEL.TIF", None, None, "cloud"),
}  # fmt: skip


def landsat_assets(folder, version):
    assets = {}
    for number, (key, (ending, band, common, role)) in enumerate(LANDSAT.items(), start=1):
        file = f"LC08_L2SP_190027_20230601_02_T1_{ending}"
        write_assets(folder, {file: number}, nodata=0)
        raster = {"nodata": 0, "data_type": "uint16", "scale": 2.75e-05, "offset": -0.2}
        assets[key] = {"href": file, "type": COG, "roles": [role]}
        if version == "1.1.0":
            light = {"name": band, "eo:common_name": common, "eo:center_wavelength": 0.65} if band else {"name": key}
            assets[key]["bands"] = [{"nodata": 0, "raster:scale": 2.75e-05, "raster:offset": -0.2} | light]
        else:
            assets[key]["raster:bands"] = [raster]
            if band:
                assets[key]["eo:bands"] = [{"name": band, "common_name": common, "center_wavelength": 0.65}]
    assets["rendered_preview"] = {"href": "https://nowhere/preview.png", "type": "image/png", "roles": ["overview"]}
    return assets


@pytest.fixture(params=["1.0.0", "1.1.0"])
def landsat(request, tmp_path):
    """Landsat Collection 2 Level 2 as the Planetary Computer has it, in both versions of STAC."""
    assets = landsat_assets(tmp_path, request.param)
    return make_item(
        tmp_path, assets, version=request.param, collection="landsat-c2-l2", properties={"platform": "landsat-8"}
    )


def test_landsat_of_the_planetary_computer_is_the_same_in_both_versions(landsat):
    scene = open_scene(landsat)
    assert scene.bands == ("red", "blue", "green", "nir", "swir1", "swir2", "thermal", "coastal")
    assert corner(scene) == [2, 3, 4, 5, 6, 7, 8, 9]
    bands = {band.asset: band for band in item_bands(read_item(landsat)[1])}
    assert (bands["red"].nodata, bands["red"].scale, bands["red"].offset) == (0, 2.75e-05, -0.2)
    assert bands["red"].wavelength == 0.65
    assert not bands["qa_pixel"].spectral


def test_an_item_and_the_folder_of_its_files_are_one_scene(landsat):
    folder = open_scene(landsat.parent)
    item = open_scene(landsat, bands=[*LANDSAT])
    for name in folder.bands:
        assert corner(folder, name) == corner(item, name)
    assert set(item.bands) >= {"nir", "qa_pixel"}


def test_an_assets_key_and_the_items_own_name_find_a_band(landsat):
    for names in (["nir08", "qa_pixel"], ["OLI_B5", "QA_PIXEL"], ["nir", "qa_pixel"]):
        assert corner(open_scene(landsat, bands=names)) == [5, 10]
    assert open_item(landsat, bands={"one": "red", "B03": "OLI_B3"}).bands == ("one", "green")


HLS = {
    "L30": {
        "B04": ("red", "red"), "B05": ("nir", "nir08"), "B06": ("swir1", "swir16"), "B07": ("swir2", "swir22"),
        "B10": ("thermal", "lwir11"),
    },
    "S30": {
        "B04": ("red", "red"), "B05": ("rededge1", "rededge"), "B06": ("rededge2", "rededge"),
        "B07": ("rededge3", "rededge"), "B8A": ("nir08", "nir"), "B11": ("swir1", "swir16"),
    },
}  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("product", HLS)
def test_the_codes_of_hls_mean_what_they_do_on_its_satellite(tmp_path, product, named):
    """Some catalogues give common names, which are broad or of the other near infrared; some give none."""
    bands = HLS[product]
    assets = {}
    for number, code in enumerate([*bands, "Fmask", "SZA"], start=1):
        file = f"HLS.{product}.T33UWP.2023152T100031.v2.0.{code}.tif"
        write_assets(tmp_path, {file: number}, dtype=np.int16)
        assets[code] = {"href": file, "type": COG, "roles": ["data"]}
        if named and code in bands:
            assets[code]["eo:bands"] = [{"name": code, "common_name": bands[code][1]}]
    path = make_item(tmp_path, assets, collection=f"HLS{product}.v2.0")
    scene = open_scene(path)
    assert scene.bands == tuple(name for name, _ in bands.values())
    assert corner(scene) == [*range(1, len(bands) + 1)]
    assert corner(open_scene(path, bands=["fmask", "red"])) == [len(bands) + 1, 1]


@pytest.mark.parametrize("fields", ["eo:bands", "bands"])
def test_the_bands_of_one_file_are_named_by_the_item(tmp_path, fields):
    """NAIP: red, green, blue, near infrared in one file, the fourth marked as alpha by some writers."""
    pixels = np.arange(1, 5, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    write_raster(tmp_path / "m.tif", pixels, photometric="rgb", alpha="yes")
    key = "common_name" if fields == "eo:bands" else "eo:common_name"
    bands = [{"name": name, key: name.lower()} for name in ("Red", "Green", "Blue", "NIR")]
    assets = {
        "image": {"href": "m.tif", "type": COG, "roles": ["data"], fields: bands},
        "thumbnail": {"href": "t.tif", "type": COG, "roles": ["thumbnail"]},
    }
    path = make_item(tmp_path, assets, version="1.1.0" if fields == "bands" else "1.0.0", collection="naip")
    scene = open_scene(path)
    assert scene.bands == ("red", "green", "blue", "nir")
    assert corner(scene) == [1, 2, 3, 4]
    assert scene.read(CORNER).valid.all()
    assert corner(open_scene(path, bands=["nir", "blue"])) == [4, 3]
    assert open_scene(path, bands={"nir": 1}).bands == ("nir",)


def test_a_composite_gives_way_to_single_bands_and_coarse_files_to_fine_ones(tmp_path):
    """The Planetary Computer's `visual` has the role data; the Copernicus Data Space has each band in three sizes."""
    write_assets(tmp_path, {"B02_10m.tif": 1, "B03_10m.tif": 2}, side=10, size=36)
    write_assets(tmp_path, {"B02_20m.tif": 3, "B03_20m.tif": 4}, side=20, size=18)
    write_raster(tmp_path / "visual.tif", np.full((3, 36, 36), 9, np.uint8), transform=PLACE @ Affine.scale(1 / 3))
    band = {"B02": {"name": "B02", "eo:common_name": "blue"}, "B03": {"name": "B03", "eo:common_name": "green"}}
    assets = {
        "visual": {"href": "visual.tif", "type": COG, "roles": ["data"], "bands": [*band.values(), {"name": "B04"}]}
    }
    for code, told in band.items():
        for side in (20, 10):
            assets[f"{code}_{side}m"] = {"href": f"{code}_{side}m.tif", "type": COG, "gsd": side, "bands": [told]}
    path = make_item(tmp_path, assets, version="1.1.0", properties={"constellation": "sentinel-2"})
    assert corner(open_scene(path, bands=["blue", "green"])) == [1, 2]
    coarse = open_scene(path, bands=["blue", "green"], resolution=20)
    assert corner(coarse) == [3, 4]
    assert coarse.grid.shape == (18, 18)
    assert corner(open_scene(path, bands=["visual"])) == [9, 9, 9]
    assert corner(open_scene(path, bands=["B03_20m"])) == [4]


def test_where_no_asset_holds_light_all_data_are_bands(tmp_path):
    write_assets(tmp_path, {"vv.tif": 1, "vh.tif": 2, "mask.tif": 3})
    assets = {key: {"href": f"{key}.tif", "type": COG, "roles": ["data"]} for key in ("vv", "vh")}
    path = make_item(tmp_path, assets | {"mask": {"href": "mask.tif", "type": COG, "roles": ["data-mask"]}})
    assert open_scene(path).bands == ("vv", "vh")
    assert corner(open_scene(path, bands=["mask"])) == [3]


def test_an_item_of_one_undescribed_asset_opens_as_its_file(tmp_path):
    write_raster(tmp_path / "s.tif", np.ones((2, 3, 3), np.uint8), bands=["B04", "B08"])
    path = make_item(tmp_path, {"data": {"href": "s.tif"}})
    assert open_scene(path).bands == ("red", "nir")
    assert open_scene(path, bands=["one", "two"]).bands == ("one", "two")
    with pytest.raises(BandMismatchError, match=r"does not name the bands.*bands=\{'red': 1\}"):
        open_item(path, bands={"red": "B04"})


def test_codes_are_taken_by_nearest_neighbour_where_the_item_says_they_are_codes(tmp_path):
    write_assets(tmp_path, {"b.tif": 1}, size=8)
    write_raster(tmp_path / "map.tif", np.tile(np.array([10, 80], np.uint8), (4, 2)), transform=PLACE @ Affine.scale(2))
    classes = [{"value": 10, "name": "trees"}, {"value": 80, "name": "water"}]
    assets = {
        "blue": {"href": "b.tif", "type": COG, "roles": ["data"]},
        "map": {"href": "map.tif", "type": COG, "roles": ["data"], "classification:classes": classes},
    }
    path = make_item(tmp_path, assets)
    for resampling in ("bilinear", "average", {"blue": "average"}):
        scene = open_scene(path, bands=["blue", "map"], resampling=resampling)
        assert set(np.unique(scene.read(scene.grid.window).pixels[1])) == {10, 80}
    mixed = open_scene(path, bands=["blue", "map"], resampling={"map": "bilinear"})
    assert len(np.unique(mixed.read(mixed.grid.window).pixels[1])) > 2


# --- where items come from -------------------------------------------------------------------------------------------


def test_an_item_opens_from_its_path_its_content_and_as_an_object(landsat):
    read = pystac.Item.from_file(str(landsat))
    with_place = read.to_dict(transform_hrefs=False)
    with_place["assets"] = {k: v | {"href": str(landsat.parent / v["href"])} for k, v in with_place["assets"].items()}
    for source in (landsat, str(landsat), read, with_place):
        assert is_item(source)
        scene = open_scene(source)
        assert scene.bands[:2] == ("red", "blue")
        assert corner(scene, "red") == [2]


def test_a_pystac_item_comes_through_unchanged(landsat):
    item = pystac.Item.from_file(str(landsat))
    before = item.to_dict()
    open_scene(item)
    assert item.to_dict() == before
    again = pystac.Item.from_dict(before, href=str(landsat))
    assert item_bands(again) == item_bands(item)
    assert again.to_dict() == before


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("item.json", True),
        ("https://host/a/item.json?token=x", True),
        ("https://host/v1/collections/sentinel-2-l2a/items/S2A_33UWP", True),
        ("https://host/a/scene.tif", False),
        ("collections/a/items/b", False),
        ({"type": "Feature", "assets": {}}, True),
        ({"type": "Feature"}, False),
        (["item.json"], False),
        (np.zeros(3), False),
    ],
)
def test_an_item_is_told_from_other_sources(source, expected):
    assert is_item(source) is expected


@pytest.fixture
def server(tmp_path):
    """Serve tmp_path; the last request of each path is remembered."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_item_behind_an_address_gives_its_assets_their_place(server, tmp_path):
    write_assets(tmp_path, {"b.tif": 5})
    band = [{"name": "B02", "common_name": "blue"}]
    make_item(tmp_path, {"blue": {"href": "./b.tif", "type": COG, "roles": ["data"], "eo:bands": band}})
    _, item = read_item(f"{server}/item.json")
    assert item_bands(item)[0].href == f"{server}/b.tif"


def test_an_address_that_is_refused_is_named_with_its_status(server):
    with pytest.raises(SceneError, match=r"http://127.*missing\.json cannot be fetched: HTTP Error 404"):
        open_scene(f"{server}/missing.json")


def test_items_side_by_side_are_a_mosaic(tmp_path):
    sources = []
    for number, shift in enumerate((0, 6), start=1):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_raster(
            folder / "b.tif", np.full((6, 6), number, np.uint16), transform=PLACE @ Affine.translation(shift, 0)
        )
        band = [{"name": "B02", "common_name": "blue"}]
        sources.append(make_item(folder, {"blue": {"href": "b.tif", "type": COG, "eo:bands": band}}))
    scene = open_mosaic(sources)
    assert scene.bands == ("blue",)
    assert_array_equal(scene.read(Window(5, 0, 2, 1)).pixels.ravel(), [1, 2])


# --- refusals --------------------------------------------------------------------------------------------------------


def test_an_item_without_rasters_is_refused_with_its_assets(tmp_path):
    path = make_item(tmp_path, {"product": {"href": "p.zarr", "type": "application/vnd+zarr"}, "x": {"href": "x.xml"}})
    with pytest.raises(SceneError, match=r"no asset .*product \(application/vnd\+zarr\), x \(no media type\)"):
        open_scene(path)


def test_a_band_that_is_missing_is_refused_with_what_there_is(landsat):
    with pytest.raises(BandMismatchError, match=r"no band or asset called rededge1; it has qa \(st_qa\), red, "):
        open_scene(landsat, bands=["red", "rededge1"])
    with pytest.raises(BandMismatchError, match=r"red of .* was asked for twice"):
        open_scene(landsat, bands=["red", "OLI_B4"])
    with pytest.raises(BandMismatchError, match="pass a list of names"):
        open_scene(landsat, bands="red")


def test_assets_that_cannot_be_told_apart_are_refused_by_name(tmp_path):
    """Planet's scenes come as radiance and as surface reflectance, four bands each."""
    bands = [{"name": name, "common_name": name} for name in ("blue", "green", "red", "nir")]
    assets = {}
    for number, key in enumerate(("ortho_analytic_4b", "ortho_analytic_4b_sr"), start=1):
        write_raster(tmp_path / f"{key}.tif", np.full((4, 3, 3), number, np.uint16))
        assets[key] = {"href": f"{key}.tif", "type": COG, "roles": ["data"], "eo:bands": bands}
    path = make_item(tmp_path, assets)
    with pytest.raises(
        BandMismatchError, match=r"blue in the assets ortho_analytic_4b, ortho_analytic_4b_sr, .*bands="
    ):
        open_scene(path)
    assert corner(open_scene(path, bands=["ortho_analytic_4b_sr"])) == [2, 2, 2, 2]


def test_a_file_with_other_bands_than_the_item_says_is_refused(tmp_path):
    write_raster(tmp_path / "b.tif", np.ones((3, 4, 4), np.uint8))
    write_assets(tmp_path, {"g.tif": 1})
    assets = {k: {"href": f"{k[0]}.tif", "eo:bands": [{"name": k, "common_name": k}]} for k in ("blue", "green")}
    with pytest.raises(BandMismatchError, match=r"tells of 1 band in its asset blue, and .*b\.tif has 3"):
        open_scene(make_item(tmp_path, assets))


def test_a_relative_asset_of_an_item_without_a_place_is_refused(landsat):
    with pytest.raises(SceneError, match=r"the asset qa of the item made-up lies at LC08.*relative.*pass its path"):
        open_item(json.loads(landsat.read_text()))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a STAC item: its type is None"),
        ('{"type": "FeatureCollection", "features": []}', "'FeatureCollection', not 'Feature'. Pass one of its items"),
        ('{"type": "Feature", "id": "x", "assets": {}}', "is not a STAC item that can be understood"),
    ],
)
def test_what_is_no_item_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(SceneError, match=said) as refusal:
        open_scene(path)
    assert str(path) in str(refusal.value)


def test_a_missing_item_is_refused_by_name(tmp_path):
    with pytest.raises(SceneError, match=r"s3://bucket/item\.json: items are read from files and over http"):
        open_scene("s3://bucket/item.json")
    with pytest.raises(SceneError, match=r"nothing\.json does not exist"):
        open_scene(tmp_path / "nothing.json")


# --- items that are not what the specification says -------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path):
    """Content of an item with one band of each version's kind."""
    write_assets(tmp_path, {"a.tif": 1, "b.tif": 2})
    old = {"eo:bands": [{"name": "B04", "common_name": "red"}], "raster:bands": [{"nodata": 0, "offset": 0.0}]}
    assets = {
        "a": {"href": str(tmp_path / "a.tif"), "type": COG, "roles": ["data"], "gsd": 10} | old,
        "b": {"href": str(tmp_path / "b.tif"), "type": COG, "bands": [{"name": "B08", "eo:common_name": "nir"}]},
    }
    item = make_item(tmp_path, assets, collection="sentinel-2", properties={"platform": "sentinel-2a"})
    return json.loads(item.read_text())


def places(content, at=()):
    """Ways to everything in a JSON document."""
    for key in content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield (*at, key)
        yield from places(content[key], (*at, key))


@pytest.mark.parametrize("strange", [None, 5, "x", [], {}, [5]])
def test_whatever_stands_in_an_item_it_opens_or_is_refused(plain, strange):
    assert open_scene(plain).bands == ("red", "nir")
    opened = 0
    for *way, last in places(plain):
        content = inner = copy.deepcopy(plain)
        for key in way:
            inner = inner[key]
        inner[last] = strange
        with suppress(GeoUNetError):
            opened += bool(open_scene(content).bands)
    assert opened


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assets": []}, "assets is a list, not an object"),
        ({"assets": {"a": "a.tif"}}, "the asset a is a text, not an object"),
        ({"assets": {"a": {"href": "a.tif", "type": 5}}}, "type of the asset a is 5, not a text"),
        ({"assets": {"a": {"href": "a.tif", "roles": "data"}}}, "roles of the asset a is a text, not a list"),
        ({"properties": None}, "properties is missing, not an object"),
        ({"stac_version": 2}, "is not a STAC item that can be understood"),
    ],
)
def test_an_item_of_another_shape_is_refused_by_what_is_wrong(plain, change, message):
    with pytest.raises(SceneError, match=message):
        read_item(plain | change)
