"""Every awkward raster of the shared collection goes through ``geounet predict``: a right map, or one clear refusal."""

import csv
import re
import warnings

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from geounet.cli import main
from geounet.errors import GeoUNetError
from geounet.raster.scene import open_scene
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
}
"""What a person is told beside the map."""


def is_scene(file):
    return not file.startswith("label_") and not file.endswith((".gpkg", ".geojson", ".shp", ".csv"))


def scenes():
    if not FOLDER.is_dir():
        return []
    with (FOLDER / "table.csv").open(encoding="utf-8", newline="") as file:
        names = [row["file"].split(" (")[0].split(" + ")[0] for row in csv.DictReader(file)]
    return [name for name in names if is_scene(name)]


@pytest.fixture(scope="module")
def model_for(tmp_path_factory):
    """A tiny model that reads the bands at hand."""
    folder = tmp_path_factory.mktemp("models")
    made = {}

    def make(bands):
        if bands not in made:
            model = unet_model(bands, mean=100.0, std=50.0)
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
@pytest.mark.parametrize("name", [name for name in scenes() if name not in REFUSED])
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
