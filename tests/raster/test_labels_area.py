"""Beyond the area of interest a pixel was never looked at: it has no label, and no background either."""

import pickle

import geopandas
import numpy as np
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.windows import Window

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.errors import LabelError
from geounet.raster.labels import open_labels
from tests.making import PLACE, UTM, write_raster
from tests.strategies import ORIENTATIONS, grid

LEGEND = Legend.of({0: "ground", 1: "roof"})
IGNORE = LEGEND.ignore_index
GRID = Grid((20, 24), PLACE, UTM)


def whole(labels):
    return labels.read(labels.grid.window)


def ground(place, *corners):
    """Polygon on Earth with the corners given in columns and rows."""
    return shapely.Polygon([place.transform @ corner for corner in corners])


def box(place, left, top, right, bottom):
    return ground(place, (left, top), (right, top), (right, bottom), (left, bottom))


def write_vector(path, geometries, crs=UTM, layer=None):
    frame = geopandas.GeoDataFrame(geometry=list(geometries), crs=crs and crs.to_wkt())
    frame.to_file(path, **({"layer": layer} if layer else {}))
    return path


def test_background_reaches_to_the_edge_of_the_area_and_no_further(tmp_path):
    roofs = write_vector(tmp_path / "roofs.gpkg", [box(GRID, 4, 4, 8, 8), box(GRID, 20, 2, 23, 6)])
    area = write_vector(tmp_path / "area.gpkg", [box(GRID, 2, 2, 12, 15)])
    wanted = np.full(GRID.shape, IGNORE)
    wanted[2:15, 2:12] = 0
    wanted[4:8, 4:8] = 1  # and the other roof lies outside
    labels = open_labels(roofs, GRID, LEGEND, background=0, aoi=area)
    np.testing.assert_array_equal(whole(labels), wanted)
    assert labels.notes == ()
    assert labels.paths == (str(roofs), str(area))
    padded = np.pad(wanted, 9, constant_values=IGNORE)
    for row, col in [(-5, -5), (0, 0), (7, 9), (15, 20)]:
        np.testing.assert_array_equal(labels.read(Window(col, row, 9, 9)), padded[row + 9 :, col + 9 :][:9, :9])


def test_a_raster_s_labels_count_inside_the_area_alone(tmp_path):
    codes = (np.indices(GRID.shape).sum(axis=0) % 2).astype(np.uint8)
    area = write_vector(tmp_path / "area.gpkg", [box(GRID, 3, 1, 9, 5), box(GRID, 15, 10, 18, 19)])
    wanted = np.full(GRID.shape, IGNORE)
    wanted[1:5, 3:9], wanted[10:19, 15:18] = codes[1:5, 3:9], codes[10:19, 15:18]
    labels = open_labels(write_raster(tmp_path / "a.tif", codes), GRID, LEGEND, aoi=area)
    np.testing.assert_array_equal(whole(labels), wanted)
    np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(labels))), wanted)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_area_in_another_crs_holds_the_pixels_whose_centres_it_holds(tmp_path, orientation):
    image = grid("Web Mercator at 60° N", orientation, (40, 40))
    corners = ground(image, (3.3, 5.2), (33.1, 2.7), (38.4, 30.9), (10.6, 37.2))
    degrees = geopandas.GeoSeries([corners], crs=3857).to_crs(4326)
    area = write_vector(tmp_path / "area.geojson", degrees, CRS.from_epsg(4326))
    path = write_raster(tmp_path / "a.tif", np.ones((40, 40), np.uint8), crs=image.crs, transform=image.transform)
    rows, cols = np.indices((40, 40)) + 0.5
    t = image.transform
    centres = shapely.points(t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f)
    found = whole(open_labels(path, image, LEGEND, aoi=area))
    np.testing.assert_array_equal(found, np.where(shapely.contains(corners, centres), 1, IGNORE))


def test_an_area_elsewhere_leaves_no_label_and_says_so(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((20, 24), np.uint8))
    area = write_vector(tmp_path / "area.gpkg", [box(GRID, 2000, 2000, 2010, 2010)])
    labels = open_labels(path, GRID, LEGEND, aoi=area)
    assert (whole(labels) == IGNORE).all()
    assert labels.notes[0].endswith(
        "has no polygon on the image: no pixel is in the area of interest, so none has a label."
    )


def test_of_several_layers_the_area_s_must_be_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((20, 24), np.uint8))
    area = tmp_path / "area.gpkg"
    write_vector(area, [box(GRID, 0, 0, 5, 5)], layer="seen")
    write_vector(area, [box(GRID, 5, 5, 9, 9)], layer="unseen")
    with pytest.raises(LabelError, match=r"has the layers seen, unseen; say which one to read \(aoi_layer=…\)"):
        open_labels(path, GRID, LEGEND, aoi=area)
    assert (whole(open_labels(path, GRID, LEGEND, aoi=area, aoi_layer="seen")) == 1).sum() == 25
    with pytest.raises(LabelError, match=r"aoi_layer='seen' says a layer of the area of interest; say its file too"):
        open_labels(path, GRID, LEGEND, aoi_layer="seen")


def test_an_area_that_is_no_polygons_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((20, 24), np.uint8))
    with pytest.raises(LabelError, match=r"nothing\.gpkg cannot be opened .*Give polygons in a vector file"):
        open_labels(path, GRID, LEGEND, aoi=tmp_path / "nothing.gpkg")
    line = write_vector(tmp_path / "line.gpkg", [shapely.LineString([PLACE @ (1, 1), PLACE @ (5, 5)])])
    with pytest.raises(LabelError, match=r"line\.gpkg has 1 geometries that are no polygons \(linestring\)"):
        open_labels(path, GRID, LEGEND, aoi=line)
    bare = Grid(GRID.shape, PLACE, None)
    with pytest.raises(LabelError, match=r"line\.gpkg has polygons, but the image has no CRS"):
        open_labels(path, bare, LEGEND, aoi=line)
