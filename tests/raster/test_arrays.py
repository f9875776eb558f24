"""Arrays and datasets, as xarray, rioxarray, odc-stac and stackstac lay them out, are scenes in the right place."""

import pickle

import dask.array
import numpy as np
import pytest
import rioxarray
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.windows import Window

from geounet.errors import BandMismatchError, GridError, SceneError, UnsupportedRasterError
from geounet.raster.scene import ArrayScene, open_scene
from tests.making import PLACE, UTM, write_raster

X = np.arange(6) * 30 + 500_015.0
Y = 5_299_985.0 - np.arange(4) * 30
CORNER = Window(0, 0, 1, 1)


def variable(values, *, dims=("y", "x"), **attrs):
    return xr.DataArray(values, dims=dims, coords={"y": Y, "x": X}, attrs=attrs)


def dataset(**variables):
    """Variables of 4 x 6 pixels in UTM, with the grid mapping of rioxarray and odc-geo."""
    place = xr.DataArray(0, attrs={"crs_wkt": UTM.to_wkt()})
    return xr.Dataset(variables).assign_coords(spatial_ref=place)


def whole(scene):
    return scene.read(scene.grid.window)


# --- a variable a band -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["numpy", "dask"])
def mixed(request):
    """Variables of several types, each with a nodata of its own: the marked pixel, another in each."""
    values = np.arange(24).reshape(4, 6)
    ds = dataset(
        B04=variable((values + 100).astype(np.int16), _FillValue=101),
        B08=variable(values.astype(np.float32), nodata=2.0),
        scl=variable(values.astype(np.uint8), nodata=3),
        slope=variable(np.where(values == 4, np.nan, values.astype(np.float64))),
        snow=variable(values > 5),
    )
    return ds.chunk(y=2, x=3) if request.param == "dask" else ds


def test_each_variable_of_a_dataset_is_a_band_with_its_own_nodata(mixed):
    scene = open_scene(mixed)
    assert isinstance(scene, ArrayScene)
    assert scene.bands == ("red", "nir", "scl", "slope", "snow")
    assert scene.grid.transform == PLACE
    assert scene.grid.crs == UTM
    chip = whole(scene)
    values = np.arange(24).reshape(4, 6)
    assert_array_equal(chip.valid, ~np.isin(values, [1, 2, 3, 4]))
    assert_array_equal(chip.pixels[[0, 1, 2, 4]], [values + 100, values, values, values > 5])
    for place, name in enumerate(["B04", "B08", "scl", "slope"], start=1):
        assert_array_equal(whole(scene.select([name])).valid, values != place)


@given(
    st.tuples(st.integers(-3, 6), st.integers(-3, 8), st.integers(1, 7), st.integers(1, 9)),
    st.permutations(["red", "nir", "scl", "slope"]).flatmap(lambda names: st.integers(1, 4).map(lambda n: names[:n])),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_window_of_any_variables_is_that_part_of_the_whole(place, names, lazy):
    values = np.random.default_rng(5).integers(0, 9, (4, 4, 6))
    ds = dataset(
        B04=variable(values[0].astype(np.int16), nodata=4), B08=variable(values[1] / 2, nodata=2.0),
        scl=variable(values[2].astype(np.uint8)), slope=variable(values[3].astype(np.float32), _FillValue=1.0),
    )  # fmt: skip
    scene = open_scene(ds.chunk(y=3, x=2) if lazy else ds).select(names)
    stored = dict(zip(("red", "nir", "scl", "slope"), (values[0], values[1] / 2, values[2], values[3]), strict=True))
    holes = {"red": 4, "nir": 2, "scl": -1, "slope": 1}
    pixels = np.pad(np.stack([stored[name] for name in names]), ((0, 0), (9, 9), (9, 9)))
    valid = np.pad(np.all([stored[name] != holes[name] for name in names], axis=0), 9)
    top, left, height, width = place
    rows, cols = slice(top + 9, top + 9 + height), slice(left + 9, left + 9 + width)
    chip = scene.read(Window(left, top, width, height))
    assert_array_equal(chip.pixels, pixels[:, rows, cols])
    assert_array_equal(chip.valid, valid[rows, cols])


def test_a_dataset_and_its_stacked_array_are_one_scene():
    values = np.random.default_rng(0).integers(0, 9, (2, 4, 6)).astype(np.int16)
    ds = dataset(B02=variable(values[0]), B03=variable(values[1]))
    one, other = open_scene(ds), open_scene(ds.to_array("band"))
    assert one.bands == other.bands == ("blue", "green")
    assert one.grid == other.grid
    assert_array_equal(whole(one).pixels, whole(other).pixels)


def test_what_has_no_y_and_x_is_no_band():
    ds = dataset(B04=variable(np.ones((4, 6))), when=xr.DataArray(3), profile=xr.DataArray(np.zeros(6), dims="x"))
    assert open_scene(ds).bands == ("red",)
    with pytest.raises(UnsupportedRasterError, match=r"no variable with the axes y and x; it has profile \(x\)"):
        open_scene(ds[["profile"]])


def test_the_variables_of_a_window_are_computed_together_and_only_there():
    """Variables that share work, such as bands of one cloud-masked stack, must not repeat it."""
    computed = []

    def note(block, block_info=None):
        computed.append(block_info[0]["chunk-location"])
        return block

    base = dask.array.zeros((40, 60), chunks=(10, 10)).map_blocks(note, dtype=float, meta=np.zeros((0, 0)))
    ds = xr.Dataset({"red": (("y", "x"), base), "nir": (("y", "x"), base + 1)})
    scene = open_scene(ds)
    assert scene.block_shape == (10, 10)
    assert not computed
    assert scene.read(Window(12, 0, 5, 5)).pixels[:, 0, 0].tolist() == [0, 1]
    assert computed == [(0, 1)]


def test_an_array_still_in_its_file_is_read_window_by_window(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(4, 6)
    dataset(B04=variable(values), B08=variable(-values)).to_netcdf(tmp_path / "s.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "s.nc", engine="scipy") as ds:
        scene = open_scene(ds)
        assert scene.grid.crs == UTM
        assert scene.read(Window(1, 2, 1, 1)).pixels.ravel().tolist() == [13, -13]
        assert not ds["B04"].variable._in_memory


def test_a_scene_of_arrays_goes_to_another_process(mixed):
    scene = pickle.loads(pickle.dumps(open_scene(mixed)))
    assert scene.bands == ("red", "nir", "scl", "slope", "snow")
    assert_array_equal(whole(scene).pixels, whole(open_scene(mixed)).pixels)


# --- rioxarray, odc-stac, stackstac ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray multiplies transforms by *
@pytest.mark.parametrize("chunks", [None, {"x": 7, "y": 5}])
@pytest.mark.parametrize("masked", [False, True])
def test_a_dataset_of_rioxarray_is_the_files_scene(tmp_path, chunks, masked):
    pixels = np.random.default_rng(0).integers(0, 9, (2, 20, 30)).astype(np.int16)
    path = write_raster(tmp_path / "s.tif", pixels, bands=["B02", "B03"], nodata=3)
    with rioxarray.open_rasterio(path, chunks=chunks, masked=masked, band_as_variable=True) as ds:
        scene, file = open_scene(ds), open_scene(path)
        assert scene.grid == file.grid
        assert scene.bands == file.bands == ("blue", "green")
        mine, its = scene.read(Window(-3, 4, 20, 30)), file.read(Window(-3, 4, 20, 30))
        assert_array_equal(mine.valid, its.valid)
        assert_array_equal(mine.filled([0, 0]), its.filled([0, 0]))


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray multiplies transforms by *
def test_a_dataset_of_one_variable_with_bands_is_that_array(tmp_path):
    path = write_raster(tmp_path / "s.tif", np.ones((3, 4, 5), np.uint8), bands=["red", "green", "blue"])
    with xr.open_dataset(path, engine="rasterio") as ds:
        scene = open_scene(ds)
        assert scene.bands == ("red", "green", "blue")
        assert scene.grid == open_scene(path).grid


def test_a_single_date_of_odc_stac_is_a_scene_and_several_are_refused():
    values = np.ones((1, 4, 6), np.uint16)
    dims = ("time", "y", "x")
    ds = dataset(
        red=variable(values, dims=dims, nodata=0, grid_mapping="spatial_ref"), nir08=variable(values, dims=dims)
    ).assign_coords(time=np.array(["2023-06-01"], "datetime64[ns]"))
    assert open_scene(ds).bands == ("red", "nir08")
    assert whole(open_scene(ds["red"])).valid.all()
    two = xr.concat([ds, ds.assign_coords(time=np.array(["2023-06-06"], "datetime64[ns]"))], dim="time")
    with pytest.raises(
        UnsupportedRasterError, match=r"variable red of the dataset has .*\(time, y, x\).*ds\.isel\(time=0"
    ):
        open_scene(two)
    assert open_scene(two.isel(time=0)).bands == ("red", "nir08")


def stack(values, *, corners=True, **coords):
    """As stackstac has it: a time axis, its own attributes, and corners for coordinates unless asked otherwise."""
    shift = 15.0 if corners else 0.0
    return xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={"x": X - shift, "y": Y + shift, "epsg": 32633, "time": [0]}
        | {name: ("band", texts) for name, texts in coords.items()},
        attrs={"crs": "epsg:32633", "transform": PLACE, "resolution": 30, "spec": object()},
        name="stackstac-0f",
    )


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("crop", [(slice(None), slice(None)), (slice(1, 3), slice(2, 6)), (slice(2, 3), slice(3, 4))])
def test_a_stack_of_stackstac_lies_where_its_transform_says_cropped_or_not(corners, crop):
    rows, cols = crop
    array = stack(np.zeros((1, 1, 4, 6)), corners=corners, band=["red"])[..., rows, cols]
    scene = open_scene(array)
    assert scene.grid.transform == PLACE @ Affine.translation(cols.start or 0, rows.start or 0)
    assert scene.grid.crs == UTM


def test_a_coarsened_array_lies_by_its_coordinates_not_by_a_stale_transform():
    array = stack(np.zeros((1, 1, 4, 6)), corners=False, band=["red"]).coarsen(x=2, y=2).mean(keep_attrs=True)
    assert open_scene(array).grid.transform == PLACE @ Affine.scale(2)


def test_the_crs_survives_arithmetic_that_drops_attributes():
    array = stack(np.ones((1, 1, 4, 6)), corners=False, band=["red"]).drop_attrs()
    scene = open_scene(array)
    assert scene.grid.crs == UTM
    assert scene.grid.transform == PLACE


@pytest.mark.parametrize(
    ("coords", "expected"),
    [
        pytest.param({"band": ["B04", "B08"]}, ("red", "nir"), id="codes"),
        pytest.param(
            {"band": ["B05", "B06"], "common_name": ["nir08", "swir16"]},
            ("nir08", "swir1"),
            id="codes of two satellites",
        ),
        pytest.param(
            {"band": ["B05", "B06"], "common_name": ["rededge", "rededge"]}, ("B05", "B06"), id="nothing that tells"
        ),
        pytest.param({"band": [1, 2], "common_name": ["red", "nir"]}, ("red", "nir"), id="numbers with common names"),
        pytest.param({"band": [1, 2], "title": ["Red", "Slope"]}, ("red", "Slope"), id="numbers with titles"),
        pytest.param({"band": ["vv", "vh"], "title": ["a", "b"]}, ("vv", "vh"), id="names before titles"),
        pytest.param({"band": [1, 2]}, ("band_1", "band_2"), id="numbers"),
    ],
)
def test_names_come_from_the_coordinates_along_the_bands(coords, expected):
    assert open_scene(stack(np.zeros((1, 2, 4, 6)), **coords)).bands == expected


def test_a_long_name_that_tells_nothing_of_light_does_not_hide_the_bands_names():
    array = stack(np.zeros((1, 1, 4, 6)), band=["B04"]).assign_attrs(long_name="surface reflectance")
    assert open_scene(array).bands == ("red",)


def test_a_grid_mapping_of_cf_parameters_alone_is_understood():
    ds = dataset(B04=variable(np.ones((4, 6)))).drop_vars("spatial_ref")
    cf = {
        "grid_mapping_name": "lambert_azimuthal_equal_area", "latitude_of_projection_origin": 52.0,
        "longitude_of_projection_origin": 10.0, "false_easting": 4321000.0, "false_northing": 3210000.0,
        "semi_major_axis": 6378137.0, "inverse_flattening": 298.257222101,
    }  # fmt: skip
    ds["laea"] = xr.DataArray(0, attrs=cf)
    ds["B04"].attrs["grid_mapping"] = "laea"
    found = open_scene(ds).grid.crs.to_dict()
    assert (found["proj"], found["lat_0"], found["lon_0"], found["x_0"]) == ("laea", 52, 10, 4321000)
    with pytest.raises(GridError, match="grid mapping of the dataset cannot be understood: nothing_known"):
        open_scene(ds.assign(laea=xr.DataArray(0, attrs={"grid_mapping_name": "nothing_known"})))


def test_a_crs_among_the_datasets_own_attributes_counts():
    ds = dataset(B04=variable(np.ones((4, 6)))).drop_vars("spatial_ref").assign_attrs(crs="EPSG:32633")
    assert open_scene(ds).grid.crs == CRS.from_epsg(32633)


# --- what the user says, and refusals --------------------------------------------------------------------------------


def test_the_users_nodata_is_each_bands_own(mixed):
    scene = open_scene(mixed[["B04", "B08"]], nodata={"B08": 7.0})
    values = np.arange(24).reshape(4, 6)
    assert_array_equal(whole(scene).valid, (values != 1) & (values != 7))
    assert_array_equal(whole(open_scene(mixed[["scl"]], nodata=9)).valid, values != 9)


def test_nodata_that_does_not_fit_is_refused(mixed):
    with pytest.raises(BandMismatchError, match=r"nodata was given for blue, which .* its bands are red, nir"):
        open_scene(mixed, nodata={"B02": 0})
    with pytest.raises(SceneError, match=r"nodata -9999 .* band scl \(uint8\) cannot hold it.*nodata=\{'scl'"):
        open_scene(mixed[["scl"]], nodata=-9999)


def test_the_user_names_variables_by_order_or_by_number(mixed):
    assert open_scene(mixed[["B04", "slope"]], bands=["nir", "red"]).bands == ("nir", "red")
    assert whole(open_scene(mixed, bands={"blue": 1})).pixels[0, 0, 0] == 100


def test_a_complex_variable_is_refused_by_name():
    ds = dataset(B04=variable(np.ones((4, 6))), slc=variable(np.ones((4, 6), complex)))
    with pytest.raises(UnsupportedRasterError, match="the variable slc of the dataset holds complex numbers"):
        open_scene(ds)


def test_variables_on_two_grids_are_refused_by_name():
    other = xr.DataArray(np.ones((2, 3)), dims=("lat", "lon"), coords={"lat": [1.0, 0.0], "lon": [0.0, 1.0, 2.0]})
    with pytest.raises(
        GridError, match="the variable fine of the dataset does not lie on the grid of the variable B04"
    ):
        open_scene(dataset(B04=variable(np.ones((4, 6))), fine=other))


def test_an_offset_that_xarray_did_not_apply_is_noted():
    ds = dataset(B04=variable(np.ones((4, 6)), scale_factor=0.0001, add_offset=-0.1))
    assert open_scene(ds).notes == (
        "the dataset declares an offset (B04 = stored × 0.0001 + -0.1), which is not applied: pixels are read as stored.",
    )


# --- what attributes say ---------------------------------------------------------------------------------------------


def test_a_value_that_xarray_has_scaled_is_not_compared_with_the_fill_of_the_file(tmp_path):
    stored = np.array([[0, 5], [10, 15]], np.int16)  # 0 is the fill; 10 is 0.0 as it is decoded
    encoding = {"dtype": "int16", "scale_factor": 0.1, "add_offset": -1.0, "_FillValue": 0}
    place = {"y": [15.0, -15.0], "x": [15.0, 45.0]}
    decoded = xr.DataArray(np.where(stored == 0, np.nan, stored * 0.1 - 1), place, ("y", "x"), name="ndvi")
    decoded.to_dataset().to_netcdf(tmp_path / "scaled.nc", encoding={"ndvi": encoding})
    with xr.open_dataset(tmp_path / "scaled.nc") as ds:
        assert ds.ndvi.encoding["_FillValue"] == 0
        chip = whole(open_scene(ds.ndvi.load()))
    np.testing.assert_allclose(chip.pixels[0, 0, 1], -0.5)
    np.testing.assert_allclose(chip.pixels[0, 1, 0], 0, atol=1e-7)
    assert_array_equal(chip.valid, [[False, True], [True, True]])


@pytest.mark.parametrize(
    ("attrs", "error", "message"),
    [
        ({"_FillValue": "x"}, UnsupportedRasterError, "declares _FillValue='x', which is no number"),
        ({"nodatavals": ("x",)}, UnsupportedRasterError, "declares nodatavals='x', which is no number"),
        ({"add_offset": "much"}, UnsupportedRasterError, "declares add_offset='much', which is no number"),
        ({"transform": "a b c d e f"}, GridError, "the transform of .* is 'a b c d e f', which is not six numbers"),
        ({"transform": "1 2 3 4 5"}, GridError, "the transform of .* is '1 2 3 4 5', which is not six numbers"),
    ],
)
def test_attributes_that_cannot_be_understood_are_named(attrs, error, message):
    array = xr.DataArray(np.ones((1, 4, 6), np.float32), dims=("band", "y", "x"), attrs=attrs)
    with pytest.raises(error, match=message):
        open_scene(array)


def test_an_offset_written_as_text_is_a_number_all_the_same():
    array = variable(np.ones((4, 6)), add_offset="-1000", scale_factor="0.5")
    assert any("stored × 0.5 + -1000" in note for note in open_scene(array).notes)


@pytest.mark.parametrize("shape", [(0, 4, 6), (2, 0, 6), (2, 4, 0)])
def test_an_array_without_values_is_refused(shape):
    with pytest.raises(UnsupportedRasterError, match="has no values"):
        open_scene(xr.DataArray(np.ones(shape, np.float32), dims=("band", "y", "x")))
