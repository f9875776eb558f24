"""Polygons cover the pixels of each class: no more, no less, wherever on Earth and however the grid lies."""

import json
from contextlib import nullcontext

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from shapely.geometry import shape as to_shape

from geounet.core.grid import Ground
from geounet.core.legend import Legend
from geounet.errors import LegendError, OutputError, OutputExistsError, SceneError, UnsupportedRasterError
from geounet.raster.vector import polygonize
from geounet.raster.vector.files import DRIVERS
from tests.making import PLACE, write_raster
from tests.strategies import ORIENTATIONS, PLACES, class_rasters, grid

LEGEND = Legend.of(["land", "water", "ice"])
RING = np.array(
    [
        [1, 1, 1, 1, 255],
        [1, 0, 0, 1, 255],
        [1, 0, 2, 1, 0],
        [1, 1, 1, 1, 0],
    ],
    np.uint8,
)
"""Water around land around ice, land apart, and two pixels of nodata."""


def traced(codes, place=None, **options):
    """Polygons of an array of codes."""
    where = {"crs": place.crs, "transform": place.transform} if place else {"crs": "EPSG:32633", "transform": PLACE}
    height, width = codes.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=height, width=width, count=1, dtype=codes.dtype, nodata=255, **where
        ) as dataset:
            dataset.write(codes, 1)
        return polygonize(memory.name, legend=LEGEND, **options)


@pytest.fixture
def mask(tmp_path):
    return write_raster(tmp_path / "mask.tif", RING, nodata=255)


def test_polygons_are_those_drawn_by_hand(mask):
    frame = polygonize(mask, legend=LEGEND).frame
    found = frame.sort_values(["class", "area_m2"]).drop(columns="geometry").to_dict("list")
    assert found["class"] == [0, 0, 1, 2]
    assert found["name"] == ["land", "land", "water", "ice"]
    assert found["area_m2"] == [2 * 900, 3 * 900, 12 * 900, 900]  # water: 16 pixels round a hole of 4
    assert found["perimeter_m"] == [6 * 30, 8 * 30, (16 + 8) * 30, 4 * 30]
    assert sorted(found["id"]) == [1, 2, 3, 4]
    water = frame.geometry[frame["name"] == "water"].item()
    assert len(water.interiors) == 1
    assert shapely.Polygon(water.interiors[0]).area == 4 * 900


@given(class_rasters(), st.sampled_from([4, 8]))
def test_polygons_are_valid_cover_each_class_and_fit_together(codes, connectivity):
    frame = traced(codes, connectivity=connectivity).frame
    geometries = frame.geometry.to_numpy()
    assert shapely.is_valid(geometries).all()
    assert shapely.coverage_is_valid(geometries)
    exteriors = [part.exterior for whole in geometries for part in shapely.get_parts(whole)]
    assert all(ring.is_ccw for ring in exteriors)
    for code in (0, 1, 2):
        assert frame.geometry[frame["class"] == code].area.sum() == pytest.approx((codes == code).sum() * 900)
        assert frame["area_m2"][frame["class"] == code].sum() == pytest.approx((codes == code).sum() * 900, abs=1e-6)


@given(class_rasters(), st.sampled_from([4, 8]))
def test_each_pixel_lies_in_the_polygon_of_its_class(codes, connectivity):
    frame = traced(codes, connectivity=connectivity).frame
    rows, cols = np.indices(codes.shape) + 0.5
    centres = shapely.points(PLACE.a * cols + PLACE.c, PLACE.e * rows + PLACE.f)
    found = np.full(codes.shape, 255)
    for code, geometry in zip(frame["class"], frame.geometry, strict=True):
        found[shapely.contains(geometry, centres)] = code
    np.testing.assert_array_equal(found, codes)


@given(class_rasters(codes=(0, 1)), st.sampled_from([4, 8]))
def test_there_is_a_polygon_for_each_region_that_hangs_together(codes, connectivity):
    assert len(traced(codes, connectivity=connectivity)) == regions(codes, connectivity)


def regions(codes, connectivity):
    """Number of regions, by flooding."""
    left = set(np.ndindex(codes.shape))
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if abs(y) + abs(x) == 1 or connectivity == 8]
    count = 0
    while left:
        count += 1
        front = [left.pop()]
        while front:
            row, col = front.pop()
            for y, x in steps:
                there = row + y, col + x
                if there in left and codes[there] == codes[row, col]:
                    left.remove(there)
                    front.append(there)
    return count


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("place", PLACES)
def test_areas_add_up_to_those_of_the_pixels(place, orientation):
    rng = np.random.default_rng(3)
    codes = rng.choice(np.array([0, 1, 2, 255], np.uint8), (23, 31), p=[0.5, 0.3, 0.1, 0.1])
    where = grid(place, orientation, codes.shape)
    frame = traced(codes, where).frame
    pixels = np.broadcast_to(where.pixel_areas(), codes.shape)
    for code in (0, 1, 2):
        area = frame["area_m2"][frame["class"] == code].sum()
        assert area == pytest.approx(pixels[codes == code].sum(), rel=1e-9)
    assert all(ring.is_ccw for ring in frame.geometry.exterior)


@pytest.mark.parametrize("orientation", ["north-up", "rotated"])
@pytest.mark.parametrize("place", ["degrees", "Web Mercator at 60° N"])
def test_areas_and_perimeters_are_those_on_the_ellipsoid(place, orientation):
    codes = np.ones((8, 9), np.uint8)
    codes[3:5, 4:6] = 0
    where = grid(place, orientation, codes.shape)
    frame = traced(codes, where).frame
    ground = Ground.of(where)
    geod = pyproj.Geod(ellps="WGS84")
    for row in frame.itertuples():
        steps = row.geometry.segmentize(abs(where.transform.a) / 8)
        round_earth = shapely.transform(steps, lambda xy: np.column_stack(ground.lonlat(*xy.T)))
        assert row.area_m2 == pytest.approx(abs(geod.geometry_area_perimeter(round_earth)[0]), rel=1e-6)
        assert row.perimeter_m == pytest.approx(geod.geometry_length(round_earth.boundary), rel=1e-6)


def test_a_square_kilometre_in_feet_has_a_square_kilometre(tmp_path):
    feet = 1000 / 0.3048006096012192  # US survey feet in a kilometre
    transform = Affine(feet / 4, 0, 1_000_000, 0, -feet / 4, 200_000)
    path = write_raster(tmp_path / "feet.tif", np.ones((4, 4), np.uint8), crs=CRS.from_epsg(2263), transform=transform)
    frame = polygonize(path, legend=LEGEND).frame
    assert frame["area_m2"].item() == pytest.approx(1e6)
    assert frame["perimeter_m"].item() == pytest.approx(4000)


@pytest.mark.parametrize("transform", [PLACE, Affine.identity()], ids=["transform", "nothing"])
def test_without_a_crs_shapes_are_kept_and_metres_are_unknown(tmp_path, transform):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning) if transform.is_identity else nullcontext():
        path = write_raster(tmp_path / "bare.tif", RING, nodata=255, crs=None, transform=transform)
    frame = polygonize(path, legend=LEGEND).frame
    assert frame.crs is None
    assert frame[["area_m2", "perimeter_m"]].isna().all(axis=None)
    water = frame.geometry[frame["name"] == "water"].item()
    assert water.area == 12 * abs(transform.determinant)
    assert water.exterior.is_ccw


def test_off_the_edge_of_the_earth_metres_are_unknown(tmp_path):
    crs = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84 +units=m")
    transform = Affine(500_000, 0, -5_500_000, 0, -500_000, 5_500_000)
    codes = np.zeros((22, 22), np.uint8)
    codes[9:11, 9:11] = 1  # straight below the satellite
    frame = polygonize(
        write_raster(tmp_path / "disc.tif", codes, crs=crs, transform=transform), legend=LEGEND
    ).frame.set_index("name")
    assert np.isnan(frame.loc["land", "area_m2"])  # its corners see space
    assert frame.loc["water", "area_m2"] == pytest.approx(4 * 500_000**2, rel=0.02)


@pytest.mark.parametrize("kept", [["water"], [1], ["water", 1]])
def test_only_the_classes_asked_for_are_kept(mask, kept):
    frame = polygonize(mask, legend=LEGEND, classes=kept).frame
    assert frame[["id", "class", "name"]].to_numpy().tolist() == [[1, 1, "water"]]


def test_an_unknown_class_is_refused_with_the_known_ones(mask):
    with pytest.raises(LegendError, match=r"no class lava; the legend has 0 land, 1 water, 2 ice"):
        polygonize(mask, legend=LEGEND, classes=["lava"])


def test_a_code_that_the_legend_does_not_know_is_refused(mask):
    with pytest.raises(LegendError, match=r"mask\.tif has the class code 2, which the legend does not know"):
        polygonize(mask, legend=Legend.of(["land", "water"]))


def test_names_come_from_the_file_by_default(mask):
    assert sorted(set(polygonize(mask).frame["name"])) == ["class_0", "class_1", "class_2"]


def test_a_mask_of_nodata_has_no_polygons_but_all_columns(tmp_path):
    path = write_raster(tmp_path / "empty.tif", np.full((3, 3), 255, np.uint8), nodata=255)
    polygons = polygonize(path, legend=LEGEND)
    assert len(polygons) == 0
    assert list(polygons.frame.columns) == ["id", "class", "name", "area_m2", "perimeter_m", "geometry"]
    assert len(geopandas.read_file(polygons.to_file(tmp_path / "empty.gpkg"))) == 0


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64", "int8"])
def test_every_type_that_holds_whole_numbers_gives_the_same_polygons(tmp_path, mask, dtype):
    codes = np.where(RING == 255, 99, RING).astype(dtype)
    frame = polygonize(write_raster(tmp_path / "other.tif", codes, nodata=99), legend=LEGEND).frame
    wanted = polygonize(mask, legend=LEGEND).frame
    assert sorted(zip(frame["class"], frame.geometry.normalize().to_wkt(), strict=True)) == sorted(
        zip(wanted["class"], wanted.geometry.normalize().to_wkt(), strict=True)
    )


def test_nan_an_internal_mask_and_alpha_are_no_polygon(tmp_path, mask):
    wanted = polygonize(mask, legend=LEGEND).frame["area_m2"].sum()
    gaps = RING == 255
    nan = write_raster(tmp_path / "nan.tif", np.where(gaps, np.nan, RING).astype("float32"))
    assert polygonize(nan, legend=LEGEND).frame["area_m2"].sum() == wanted
    alpha = write_raster(tmp_path / "alpha.tif", np.stack([RING, np.where(gaps, 0, 255).astype(np.uint8)]), alpha="yes")
    assert polygonize(alpha, legend=LEGEND).frame["area_m2"].sum() == wanted
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        masked = write_raster(tmp_path / "masked.tif", np.where(gaps, 0, RING).astype(np.uint8))
        with rasterio.open(masked, "r+") as dataset:
            dataset.write_mask(~gaps)
    assert polygonize(masked, legend=LEGEND).frame["area_m2"].sum() == wanted


def test_fractions_and_several_bands_are_refused(tmp_path):
    half = write_raster(tmp_path / "half.tif", np.full((2, 2), 0.5, np.float32))
    with pytest.raises(UnsupportedRasterError, match=r"half\.tif has values such as 0\.5"):
        polygonize(half, legend=LEGEND)
    image = write_raster(tmp_path / "image.tif", np.ones((3, 2, 2), np.uint8))
    with pytest.raises(UnsupportedRasterError, match=r"image\.tif has 3 bands; a class raster has one"):
        polygonize(image, legend=LEGEND)


def test_a_missing_or_damaged_mask_is_refused_and_never_traced_in_part(tmp_path):
    with pytest.raises(SceneError, match=r"cannot open .*nothing\.tif"):
        polygonize(tmp_path / "nothing.tif", legend=LEGEND)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (256, 256)).astype(np.uint8)
    whole = write_raster(tmp_path / "whole.tif", codes, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(whole.read_bytes()[:8000])
    with pytest.raises(SceneError, match=r"damaged\.tif cannot be read to its end"):
        polygonize(damaged, legend=LEGEND)


@pytest.mark.parametrize("suffix", DRIVERS)
def test_every_format_gives_back_what_was_written(tmp_path, mask, suffix):
    polygons = polygonize(mask, legend=LEGEND)
    path = polygons.to_file(tmp_path / f"polygons{suffix}")
    found = geopandas.read_parquet(path) if suffix == ".parquet" else geopandas.read_file(path)
    found = found.rename(columns={"perim_m": "perimeter_m"}).sort_values("id", ignore_index=True)
    for column in ("id", "class", "name", "area_m2", "perimeter_m"):
        assert found[column].tolist() == polygons.frame[column].tolist()
    back = found.to_crs(polygons.frame.crs).geometry
    overlap = back.intersection(polygons.frame.geometry).area
    assert overlap.to_numpy() == pytest.approx(polygons.frame.geometry.area.to_numpy(), rel=1e-3)
    assert found.crs == ("EPSG:4326" if suffix == ".geojson" else "EPSG:32633")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_the_layer_is_called_as_the_file_or_as_asked(tmp_path, mask):
    polygons = polygonize(mask, legend=LEGEND)
    assert pyogrio.list_layers(polygons.to_file(tmp_path / "lakes.gpkg"))[0, 0] == "lakes"
    assert pyogrio.list_layers(polygons.to_file(tmp_path / "b.gpkg", layer="ponds"))[0, 0] == "ponds"


def test_parquet_says_where_each_row_lies(tmp_path, mask):
    path = polygonize(mask, legend=LEGEND).to_file(tmp_path / "p.parquet")
    geo = json.loads(pyarrow.parquet.read_metadata(path).metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert "bbox" in geo["columns"]["geometry"]["covering"]


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_what_is_there_stays_unless_it_may_be_replaced(tmp_path, mask, suffix):
    polygons = polygonize(mask, legend=LEGEND)
    path = polygons.to_file(tmp_path / f"a{suffix}")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"exists already"):
        polygonize(mask, legend=LEGEND, classes=["ice"]).to_file(path)
    assert path.read_bytes() == before
    polygonize(mask, legend=LEGEND, classes=["ice"]).to_file(path, overwrite=True)
    assert geopandas.read_file(path)["name"].tolist() == ["ice"]


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path, mask):
    with pytest.raises(OutputError, match=r"\.kmz is no vector format .* \.gpkg, \.fgb, \.parquet, \.geojson, \.shp"):
        polygonize(mask, legend=LEGEND).to_file(tmp_path / "a.kmz")


def test_geojson_is_longitude_and_latitude_without_a_crs_member(tmp_path, mask):
    path = polygonize(mask, legend=LEGEND).to_file(tmp_path / "a.geojson")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert "crs" not in written
    for feature in written["features"]:
        geometry = to_shape(feature["geometry"])
        assert geometry.is_valid
        assert geometry.exterior.is_ccw
        west, south, east, north = geometry.bounds
        assert 14.99 < west < east < 15.01
        assert 47.8 < south < north < 47.9
        assert all(value == round(value, 7) for value in geometry.exterior.coords[0])


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        pytest.param(CRS.from_epsg(4326), Affine(0.01, 0, 179.98, 0, -0.01, 10), id="degrees that run past 180"),
        pytest.param(CRS.from_epsg(32601), Affine(1000, 0, 169_000, 0, -1000, 1_000_000), id="UTM zone 1"),
        pytest.param(CRS.from_epsg(3832), Affine(1000, 0, 3_337_500, 0, -1000, 1_000_000), id="Pacific Mercator"),
    ],
)
def test_geojson_is_cut_where_it_crosses_the_antimeridian(tmp_path, crs, transform):
    codes = np.ones((4, 4), np.uint8)
    codes[1:3, 1:3] = 0
    path = write_raster(tmp_path / "date_line.tif", codes, crs=crs, transform=transform)
    polygons = polygonize(path, legend=LEGEND)
    written = json.loads(polygons.to_file(tmp_path / "a.geojson").read_text(encoding="utf-8"))
    geod = pyproj.Geod(ellps="WGS84")
    for feature, row in zip(written["features"], polygons.frame.itertuples(), strict=True):
        geometry = to_shape(feature["geometry"])
        assert geometry.geom_type == "MultiPolygon"
        assert geometry.is_valid
        for part in geometry.geoms:
            assert -180 <= part.bounds[0] < part.bounds[2] <= 180
            assert part.bounds[2] - part.bounds[0] < 1
            assert part.exterior.is_ccw
        assert {180.0, -180.0} <= {x for part in geometry.geoms for x, _ in part.exterior.coords}
        area = sum(geod.geometry_area_perimeter(part)[0] for part in geometry.geoms)
        assert area == pytest.approx(row.area_m2, rel=2e-3)  # UTM at its zone's edge keeps areas to 0.2 %


def test_geojson_has_no_form_for_a_polygon_round_a_pole(tmp_path):
    transform = Affine(100_000, 0, -200_000, 0, -100_000, 200_000)
    path = write_raster(tmp_path / "pole.tif", np.ones((4, 4), np.uint8), crs=CRS.from_epsg(3413), transform=transform)
    polygons = polygonize(path, legend=LEGEND)
    with pytest.raises(OutputError, match=r"goes round a pole"):
        polygons.to_file(tmp_path / "pole.geojson")
    assert geopandas.read_file(polygons.to_file(tmp_path / "pole.gpkg")).geometry.area.item() == 400_000**2


def test_geojson_of_a_mask_without_a_crs_keeps_its_coordinates_and_null_metres(tmp_path):
    path = write_raster(tmp_path / "bare.tif", RING, nodata=255, crs=None)
    written = json.loads(polygonize(path, legend=LEGEND).to_file(tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert written["features"][0]["properties"]["area_m2"] is None
    x, y = written["features"][0]["geometry"]["coordinates"][0][0]
    assert PLACE.c <= x <= PLACE.c + 5 * 30
    assert PLACE.f - 4 * 30 <= y <= PLACE.f
