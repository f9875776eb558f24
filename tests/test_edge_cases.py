"""Every awkward raster of the shared collection goes through ``geounet predict``: a right map, or one clear refusal."""

import csv
import re
import warnings

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal
from pyproj import Geod
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from geounet.cli import main
from geounet.core.grid import apply
from geounet.errors import BandMismatchError, GeoUNetError
from geounet.nn.segmenter import load
from geounet.raster.geotiff import read_legend
from geounet.raster.scene import open_scene
from geounet.report import composite
from tests.making import SHARED, needs_shared, unet_model

FOLDER = SHARED / "edge-cases"

REFUSED = {
    "real_corrupt_blocks.tif": r"real_corrupt_blocks\.tif cannot be read at rows \d+ to \d+, columns \d+ to \d+",
    "real_sar_complex64.tif": r"complex numbers \(complex64\).*amplitude",
    "real_two_subdatasets.h5": r"subdatasets(.|\n)*real_two_subdatasets\.h5://data\n(.|\n)*data2",
    "missing_source.vrt": r"missing_source\.vrt.*this_file_is_not_there\.tif",
    "zero_length.tif": r"zero_length\.tif is empty",
    "truncated_header.tif": r"truncated_header\.tif cannot be opened as a raster",
    "truncated_half.tif": r"truncated_half\.tif cannot be read at rows",
    "not_a_raster.tif": r"not_a_raster\.tif is a web page",
}
"""What must stand in the message."""

NOTED = {
    "no_crs.tif": "no CRS",
    "no_georef.tif": "no CRS",
    "gcp_only.tif": "ground control points",
    "rpc_only.tif": "RPCs",
    "real_palette_landcover.tif": "palette",
    "nir_tagged_as_alpha.tif": r"alpha.*--bands",
    "multi_page.tif": "2 pages",
    "scale_offset_int16.tif": "not applied",
    "nodata_undeclared_-9999.tif": "holds -9999 and declares no nodata",
}
"""What a person is told beside the map."""


def rows():
    """First file of each row of the collection's table."""
    if not FOLDER.is_dir():
        return []
    with (FOLDER / "table.csv").open(encoding="utf-8", newline="") as file:
        return [row["file"].split(" (")[0].split(" + ")[0] for row in csv.DictReader(file)]


def is_scene(file):
    return not file.startswith("label_") and not file.endswith((".gpkg", ".geojson", ".shp"))


SCENES = [name for name in rows() if is_scene(name)]
MAPPED = [name for name in SCENES if name not in REFUSED]


@pytest.fixture(scope="module")
def model_for(tmp_path_factory):
    """A tiny model that reads the bands at hand."""
    folder = tmp_path_factory.mktemp("models")
    made = {}

    def make(bands):
        if bands not in made:
            model = unet_model(bands, depth=1, width=2, mean=100.0, std=50.0)
            made[bands] = model.save(folder / f"{len(made)}.safetensors")
        return made[bands]

    return make


def map_it(path, model, out, *options):
    command = ["predict", str(path), "-m", str(model), "-o", str(out), "--backend", "torch", "--precision", "fp32"]
    return CliRunner().invoke(main, [*command, *options])


def opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


def valid_by_gdal(path):
    """Where GDAL's masks let all image bands through, and the numbers are numbers."""
    with opened(path) as dataset:
        image = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind != ColorInterp.alpha]
        valid = (dataset.read_masks(image) > 0).all(axis=0)
        values = np.stack([dataset.read(i).astype(float) for i in image])
        return valid & np.isfinite(values).all(axis=0)


@needs_shared
@pytest.mark.parametrize("name", MAPPED)
def test_a_right_map_comes_out(name, model_for, tmp_path):
    path, out = FOLDER / name, tmp_path / "mask.tif"
    result = map_it(path, model_for(open_scene(path).bands), out)
    assert result.exit_code == 0, result.output
    assert re.search(f"note: .*{NOTED.get(name, '')}" if name in NOTED else "", result.output), result.output
    with opened(path) as scene, opened(out) as mask:
        assert mask.shape == scene.shape
        assert mask.transform == scene.transform
        assert mask.crs == scene.crs
        assert [p.asdict() for p in mask.gcps[0]] == [p.asdict() for p in scene.gcps[0]]
        assert mask.gcps[1] == scene.gcps[1]
        assert (mask.rpcs is None) == (scene.rpcs is None)
        assert mask.tags().get("AREA_OR_POINT", "Area") == scene.tags().get("AREA_OR_POINT", "Area")
        codes = mask.read(1)
    assert_array_equal(codes != 255, valid_by_gdal(path))
    assert set(np.unique(codes)) <= {0, 1, 255}


@needs_shared
@pytest.mark.parametrize("name", MAPPED)
def test_pixels_are_those_of_the_file_at_full_resolution_as_float32(name):
    scene = open_scene(FOLDER / name)
    chip = scene.read(scene.grid.window)
    with opened(FOLDER / name) as dataset:
        wanted = np.stack([dataset.read(i).astype(np.float32) for i in range(1, len(scene.bands) + 1)])
    assert_array_equal(chip.pixels[:, chip.valid], wanted[:, chip.valid])


@needs_shared
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("real_pan_uint16.tif", 54, 6615),
        ("int8.tif", -115, 127),
        ("uint32.tif", 13e6, 255e6),
    ],
)
def test_the_range_of_wide_and_signed_types_is_kept(name, low, high):
    scene = open_scene(FOLDER / name)
    chip = scene.read(scene.grid.window)
    assert (chip.pixels[:, chip.valid].min(), chip.pixels[:, chip.valid].max()) == (low, high)


@needs_shared
@pytest.mark.parametrize(
    ("name", "invalid"),
    [
        pytest.param("real_all_nodata_narrow.tif", 71 * 2475, id="all"),
        pytest.param("real_float_nodata_rounding.tif", 518, id="nodata that is not equal in double"),
        pytest.param("float32_nan_declared.tif", 30 * 50, id="NaN"),
        pytest.param("float32_nan_inf_undeclared.tif", 30 * 50 + 10 * 10 + 5 * 5, id="NaN and infinities"),
        pytest.param("nodata_in_one_band.tif", 20 * 128 + 10 * 10, id="in one band is in all"),
        pytest.param("nodata_tag_not_in_data.tif", 0, id="a tag without pixels"),
        pytest.param("nodata_out_of_range.vrt", 0, id="beyond the type"),
        pytest.param(
            "nodata_differs_per_band.vrt", (10 + 10) * 128 + 2, id="a band's own; two pixels between are 255 too"
        ),
        pytest.param("sparse.tif", 512 * 512 - 128 * 128, id="missing blocks"),
        pytest.param("external_mask_missing.tif", 0, id="no mask"),
    ],
)
def test_as_many_pixels_are_nodata_as_the_table_says(name, invalid):
    scene = open_scene(FOLDER / name)
    assert (~scene.read(scene.grid.window).valid).sum() == invalid


@needs_shared
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refusal_names_the_file_and_the_reason_and_leaves_nothing(name, model_for, tmp_path):
    try:
        bands = open_scene(FOLDER / name).bands  # some open, and fail at a window
    except GeoUNetError:
        bands = ("band_1",)
    result = map_it(FOLDER / name, model_for(bands), tmp_path / "mask.tif")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert re.search(REFUSED[name], result.output), result.output
    assert list(tmp_path.iterdir()) == []


@needs_shared
def test_nodata_stated_by_the_user_is_nodata(model_for, tmp_path):
    path = FOLDER / "nodata_undeclared_-9999.tif"
    result = map_it(path, model_for(open_scene(path).bands), tmp_path / "mask.tif", "--nodata", "-9999")
    assert result.exit_code == 0, result.output
    with opened(tmp_path / "mask.tif") as mask:
        assert_array_equal(mask.read(1) == 255, ~valid_by_gdal(FOLDER / "nodata_in_one_band.tif"))


@needs_shared
def test_a_band_marked_alpha_is_an_image_band_when_it_is_named(model_for, tmp_path):
    names = ("red", "green", "blue", "nir")
    path, out = FOLDER / "nir_tagged_as_alpha.tif", tmp_path / "mask.tif"
    result = map_it(path, model_for(names), out, "--bands", ",".join(names))
    assert result.exit_code == 0, result.output
    with opened(out) as mask:
        assert (mask.read(1) != 255).all()


@needs_shared
def test_bands_are_met_by_name_whatever_their_order(model_for, tmp_path):
    bands = open_scene(FOLDER / "bands_in_reverse_order.tif").bands[::-1]
    for name in ("bands_in_reverse_order.tif", "bigtiff.tif"):
        result = map_it(FOLDER / name, model_for(bands), tmp_path / name)
        assert result.exit_code == 0, result.output
    with opened(tmp_path / "bands_in_reverse_order.tif") as one, opened(tmp_path / "bigtiff.tif") as two:
        assert_array_equal(one.read(1), two.read(1))


@needs_shared
def test_missing_bands_are_named(model_for, tmp_path):
    bands = open_scene(FOLDER / "bigtiff.tif").bands
    result = map_it(FOLDER / "fewer_bands.tif", model_for(bands), tmp_path / "mask.tif")
    assert result.exit_code == 1
    assert "fewer_bands.tif has the bands blue, green, red, nir" in result.output
    assert "swir1, swir2 is missing" in result.output


@needs_shared
def test_a_subdataset_given_by_its_path_is_mapped(model_for, tmp_path):
    path = f"HDF5:{FOLDER / 'real_two_subdatasets.h5'}://data"
    result = map_it(path, model_for(open_scene(path).bands), tmp_path / "mask.tif")
    assert result.exit_code == 0, result.output


@needs_shared
def test_seven_single_band_files_give_the_mask_that_the_stacked_file_gives(model_for, tmp_path):
    files = sorted((SHARED / "landsat5-tm").glob("LT5*_B?.TIF"))
    names = ["blue", "green", "red", "nir", "swir1", "thermal", "swir2"]
    with rasterio.open(files[0]) as first:
        profile = first.profile | {"count": 7}
    with rasterio.open(tmp_path / "stack.tif", "w", **profile) as stack:
        for index, (file, name) in enumerate(zip(files, names, strict=True), start=1):
            with rasterio.open(file) as band:
                stack.write(band.read(1), index)
            stack.set_band_description(index, name)
    model = model_for(tuple(names))
    singles = CliRunner().invoke(
        main,
        ["predict", *map(str, files), "--bands", ",".join(names), "-m", str(model), "-o", str(tmp_path / "single.tif")],
    )
    assert singles.exit_code == 0, singles.output
    stacked = CliRunner().invoke(
        main, ["predict", str(tmp_path / "stack.tif"), "-m", str(model), "-o", str(tmp_path / "stacked.tif")]
    )
    assert stacked.exit_code == 0, stacked.output
    with rasterio.open(tmp_path / "single.tif") as one, rasterio.open(tmp_path / "stacked.tif") as two:
        assert_array_equal(one.read(1), two.read(1))
        assert one.crs == two.crs == rasterio.CRS.from_epsg(32622)


@needs_shared
def test_bands_that_are_not_there_are_refused_by_name():
    scene = open_scene(FOLDER / "real_s2_8band_uint16.tif")
    assert len(scene.bands) == 8
    with pytest.raises(BandMismatchError, match=r"real_s2_8band_uint16\.tif .*nir"):
        scene.select(["nir"])


@needs_shared
@pytest.mark.parametrize("name", ["real_rgba_jpeg_alpha.tif", "real_rgba_uint16_bgr_order.tif"])
def test_alpha_is_no_band_of_the_image(name):
    scene = open_scene(FOLDER / name)
    assert len(scene.bands) == 3
    assert "marks band 4 as alpha" in scene.notes[0]


@needs_shared
def test_a_quick_look_is_red_where_the_band_marked_red_is_bright_wherever_it_stands(tmp_path):
    """The collection's own file of this kind is of one value throughout."""
    with opened(FOLDER / "real_rgba_uint16_bgr_order.tif") as dataset:
        profile, marks = dataset.profile | {"width": 64, "height": 64}, dataset.colorinterp
    assert [mark.name for mark in marks] == ["blue", "green", "red", "alpha"]
    values = np.random.default_rng(1).permutation(4 * 64 * 64).reshape(4, 64, 64).astype(np.uint16)
    with rasterio.open(tmp_path / "bgr.tif", "w", **profile) as dataset:
        dataset.colorinterp = marks
        dataset.write(np.concatenate([values[:3], np.full((1, 64, 64), 65535, np.uint16)]))
    picture = composite(open_scene(tmp_path / "bgr.tif"))
    for channel, band in enumerate([2, 1, 0]):
        shown = picture[..., channel].ravel()[np.argsort(values[band].ravel())]
        assert (np.diff(shown.astype(int)) >= 0).all()
        assert (shown[0], shown[-1]) == (0, 255)


@needs_shared
def test_areas_in_degrees_are_square_metres_on_the_ellipsoid():
    grid = open_scene(FOLDER / "real_landsat_epsg4326.tif").grid
    height, width = grid.shape
    west, south, east, north = grid.bounds
    lon, lat = np.linspace(west, east, 50), np.linspace(south, north, 50)
    ring = [np.r_[lon, lon[-1:].repeat(50), lon[::-1], lon[:1].repeat(50)]]
    ring.append(np.r_[lat[:1].repeat(50), lat, lat[-1:].repeat(50), lat[::-1]])
    wanted, _ = Geod(ellps="WGS84").polygon_area_perimeter(*ring)
    assert_allclose(np.broadcast_to(grid.pixel_areas(), (height, width)).sum(), wanted, rtol=1e-5)
    assert 85 < grid.pixel_size_m < 95  # 0.00081 degrees are some 90 m


@needs_shared
def test_pixels_that_are_not_square_have_the_area_of_both_sides():
    grid = open_scene(FOLDER / "nonsquare_pixels.tif").grid
    assert_allclose(grid.pixel_areas(), 28.5 * 57, rtol=1e-9)


@needs_shared
def test_polygons_at_the_antimeridian_stay_small(model_for, tmp_path):
    path = FOLDER / "antimeridian_epsg4326.tif"
    out = tmp_path / "map.gpkg"
    result = map_it(path, model_for(open_scene(path).bands), tmp_path / "mask.tif", "--polygons", str(out))
    assert result.exit_code == 0, result.output
    west, _, east, _ = geopandas.read_file(out).total_bounds
    assert 0 < east - west < 0.0641


@needs_shared
def test_the_palette_of_labels_goes_through_a_model_to_the_map(tmp_path):
    path = FOLDER / "real_palette_landcover.tif"
    legend = read_legend(path)
    with opened(path) as dataset:
        codes, palette = dataset.read(1), dataset.colormap(1)
    assert set(np.unique(codes)) <= set(legend.codes)
    assert_array_equal(legend.decode(legend.encode(codes)), codes)
    scene = open_scene(path)
    model = unet_model(scene.bands, classes=legend).save(tmp_path / "model.safetensors")
    assert map_it(path, model, tmp_path / "mask.tif").exit_code == 0
    assert load(model).legend == legend
    with opened(tmp_path / "mask.tif") as mask:
        painted = mask.colormap(1)
    assert {code: painted[code][:3] for code in legend.codes} == {code: palette[code][:3] for code in legend.codes}


@needs_shared
def test_a_crs_that_the_user_states_in_a_vrt_is_the_map_s(model_for, tmp_path):
    path, view = FOLDER / "worldfile.png", tmp_path / "worldfile.vrt"
    with opened(path) as dataset:
        assert dataset.crs is None
        rasterio.shutil.copy(dataset, view, driver="VRT")
    with rasterio.open(view, "r+") as dataset:
        dataset.crs = rasterio.CRS.from_epsg(3857)
    result = map_it(view, model_for(open_scene(view).bands), tmp_path / "mask.tif")
    assert result.exit_code == 0, result.output
    with opened(path) as scene, opened(tmp_path / "mask.tif") as mask:
        assert mask.transform == scene.transform
        assert mask.crs == rasterio.CRS.from_epsg(3857)


@needs_shared
@pytest.mark.parametrize("name", ["real_rotated_utm.tif", "sheared_30deg.tif", "south_up.tif", "pixel_is_point.tif"])
def test_polygons_of_a_map_lie_on_its_pixels_through_the_full_affine(name, model_for, tmp_path):
    path, out = FOLDER / name, tmp_path / "map.gpkg"
    result = map_it(path, model_for(open_scene(path).bands), tmp_path / "mask.tif", "--polygons", str(out))
    assert result.exit_code == 0, result.output
    polygons = geopandas.read_file(out)
    with opened(tmp_path / "mask.tif") as mask:
        rows, cols = np.indices(mask.shape).reshape(2, -1) + 0.5
        x, y = apply(mask.transform, cols, rows)
        codes = mask.read(1).ravel()
    centres = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(x, y), crs=polygons.crs)
    found = geopandas.sjoin(centres, polygons, predicate="within")
    assert len(found) == (codes != 255).sum()
    assert_array_equal(found["class"].to_numpy(), codes[found.index])
