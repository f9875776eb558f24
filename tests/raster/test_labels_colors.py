"""A mask in colours gives the classes whose colours it shows, exactly, and refuses all others."""

import pickle

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.errors import LabelError, LegendError
from geounet.raster.labels import open_labels
from tests.making import PLACE, SHARED, UTM, needs_shared, write_raster

TREES, WATER, BLACK = (0, 128, 0), (0, 0, 255), (0, 0, 0)
LEGEND = Legend.of({10: "trees", 80: "water"}, {10: TREES, "water": "#0000ff"})
IGNORE = LEGEND.ignore_index
GRID = Grid((12, 16), PLACE, UTM)
IDS = (np.add.outer(np.arange(12), np.arange(16)) % 5 < 2).astype(np.uint8)


def whole(labels):
    return labels.read(labels.grid.window)


def painted(ids, colors=(TREES, WATER)):
    """Picture (3, y, x) of class ids."""
    return np.moveaxis(np.array(colors, np.uint8)[ids], -1, 0)


def write_picture(path, picture, kinds=None, **options):
    write_raster(path, picture, **options)
    if kinds:
        with rasterio.open(path, "r+") as dataset:
            dataset.colorinterp = [ColorInterp[kind] for kind in kinds]
    return path


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=40, unique=True), st.randoms())
def test_any_legend_finds_its_own_colours(tmp_path_factory, colors, random):
    legend = Legend.of([f"class {i}" for i in range(len(colors))], dict(enumerate(colors)))
    ids = np.array([random.randrange(len(colors)) for _ in range(12 * 16)]).reshape(12, 16)
    path = write_picture(tmp_path_factory.mktemp("mask") / "a.tif", painted(ids, colors))
    np.testing.assert_array_equal(whole(open_labels(path, GRID, legend)), ids)


def test_transparent_pixels_have_no_label_whatever_their_colour(tmp_path):
    picture = np.concatenate([painted(IDS), np.full((1, 12, 16), 255, np.uint8)])
    picture[:, :3] = np.array([17, 18, 19, 0])[:, None, None]
    path = write_picture(tmp_path / "a.tif", picture, ["red", "green", "blue", "alpha"])
    wanted = IDS.copy()
    wanted[:3] = IGNORE
    labels = open_labels(path, GRID, LEGEND)
    np.testing.assert_array_equal(whole(labels), wanted)
    assert labels.notes == ()
    part = GRID.crop(Window(-2, 1, 12, 8))  # and where they have to be warped
    found = whole(open_labels(path, part, LEGEND))
    np.testing.assert_array_equal(found[:, 2:], wanted[1:9, :10])
    assert (found[:, :2] == IGNORE).all()


def test_a_fourth_band_that_nothing_describes_is_alpha_with_a_note(tmp_path):
    picture = np.concatenate([painted(IDS), np.where(np.arange(16) < 4, 0, 255) + np.zeros((1, 12, 1))]).astype("u1")
    labels = open_labels(write_raster(tmp_path / "a.tif", picture, photometric="RGB", alpha="NO"), GRID, LEGEND)
    assert labels.notes[0].endswith(
        "has a fourth band that nothing describes; it is taken as alpha, so 0 means no label."
    )
    np.testing.assert_array_equal(whole(labels), np.where(np.arange(16) < 4, IGNORE, IDS))


def test_bands_are_taken_by_the_colours_they_say_they_are(tmp_path):
    path = write_picture(tmp_path / "a.tif", painted(IDS)[::-1], ["blue", "green", "red"])
    np.testing.assert_array_equal(whole(open_labels(path, GRID, LEGEND)), IDS)


@pytest.mark.parametrize("place", [GRID, GRID.crop(Window(0, 0, 15, 12))], ids=["as stored", "warped"])
def test_nodata_is_a_colour_of_which_all_bands_are_nodata(tmp_path, place):
    """Green has red 0 and blue 0; only black is 0 throughout."""
    picture = painted(IDS)
    picture[:, 5] = 0
    path = write_picture(tmp_path / "a.tif", picture, nodata=0)
    wanted = IDS.copy()
    wanted[5] = IGNORE
    np.testing.assert_array_equal(whole(open_labels(path, place, LEGEND)), wanted[:, : place.shape[1]])


def test_alpha_and_nodata_in_one_file_both_count(tmp_path):
    picture = np.concatenate([painted(IDS), np.full((1, 12, 16), 255, np.uint8)])
    picture[3, 0], picture[:3, 1] = 0, 0
    path = write_picture(tmp_path / "a.tif", picture, ["red", "green", "blue", "alpha"], nodata=0)
    wanted = IDS.copy()
    wanted[:2] = IGNORE
    np.testing.assert_array_equal(whole(open_labels(path, GRID, LEGEND)), wanted)


def test_colours_of_the_file_may_differ_from_those_of_the_legend_and_one_may_mean_no_label(tmp_path):
    picture = painted(IDS, [(1, 2, 3), (4, 5, 6)])
    picture[:, 0] = 0
    path = write_picture(tmp_path / "a.tif", picture)
    labels = open_labels(path, GRID, LEGEND, ignore=[0], colors={"trees": (1, 2, 3), 80: "#040506", 0: BLACK})
    wanted = IDS.copy()
    wanted[0] = IGNORE
    np.testing.assert_array_equal(whole(labels), wanted)


def test_other_colours_are_refused_by_name_and_count_or_ignored(tmp_path):
    picture = painted(IDS)
    picture[:, 2, :7], picture[:, 3, :2] = np.array([[9], [8], [7]]), 0
    path = write_picture(tmp_path / "odd.tif", picture)
    with pytest.raises(
        LegendError,
        match=r"odd\.tif shows the colours #090807 in 7 pixels, #000000 in 2 pixels, which are not those of the legend "
        r"\(trees #008000, water #0000ff\)\. Give each class its colour in the file \(colors=",
    ):
        open_labels(path, GRID, LEGEND)
    wanted = IDS.copy()
    wanted[2, :7] = wanted[3, :2] = IGNORE
    np.testing.assert_array_equal(whole(open_labels(path, GRID, LEGEND, unknown="ignore")), wanted)


def test_a_colour_that_the_first_look_misses_is_refused_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("geounet.raster.labels.colors.LOOK", 4)
    picture = painted(IDS)
    picture[:, 1, 1] = 9
    labels = open_labels(write_picture(tmp_path / "a.tif", picture), GRID, LEGEND)
    np.testing.assert_array_equal(labels.read(Window(0, 2, 16, 10)), IDS[2:])
    with pytest.raises(LegendError, match=r"a\.tif shows the colours #090909 in 1 pixels"):
        whole(labels)


def test_a_mask_of_other_colours_throughout_is_noted_when_they_are_ignored(tmp_path):
    path = write_picture(tmp_path / "a.tif", painted(IDS, [(1, 1, 1), (2, 2, 2)]))
    labels = open_labels(path, GRID, LEGEND, unknown="ignore")
    assert labels.notes[0].endswith(
        "shows none of the legend's colours, so nothing is labelled where it shows #010101 in 114 pixels, #020202 in 78 pixels."
    )
    assert (whole(labels) == IGNORE).all()


def test_jpeg_is_blamed_for_colours_that_are_nearly_right(tmp_path):
    path = write_picture(tmp_path / "a.tif", painted(IDS), compress="jpeg", photometric="ycbcr")
    with pytest.raises(LegendError, match=r"compressed by JPEG, which changes colours: make it again without loss"):
        open_labels(path, GRID, LEGEND)


def test_a_colour_of_two_classes_or_of_none_is_refused(tmp_path):
    path = write_picture(tmp_path / "a.tif", painted(IDS))
    with pytest.raises(LegendError, match=r"trees and water have the same colour #0000ff"):
        open_labels(path, GRID, LEGEND, colors={10: "#0000ff"})
    with pytest.raises(LegendError, match=r"water and no label have the same colour #0000ff"):
        open_labels(path, GRID, LEGEND, ignore=[0], colors={0: "#0000ff"})
    with pytest.raises(LegendError, match=r"colors has lava, which is neither a class .* nor listed under ignore"):
        open_labels(path, GRID, LEGEND, colors={"lava": "#ff0000"})


@pytest.mark.parametrize(
    ("bands", "dtype", "said"),
    [
        (
            3,
            "uint16",
            r"has 3 bands of uint16; labels have one band of class codes, or show classes by colours of 8 bits",
        ),
        (5, "uint8", r"has 5 bands; labels have one band of class codes, or show classes by colours in three"),
    ],
)
def test_bands_that_are_no_colours_are_refused(tmp_path, bands, dtype, said):
    path = write_raster(tmp_path / "a.tif", np.zeros((bands, 12, 16), dtype), photometric="minisblack")
    with pytest.raises(LabelError, match=rf"a\.tif {said}"):
        open_labels(path, GRID, LEGEND)


def test_colours_on_another_grid_are_never_mixed(tmp_path):
    """A finer image inside: nearest neighbour repeats colours, where anything smoother makes new ones."""
    path = write_picture(tmp_path / "a.tif", painted(IDS))
    fine = Grid((24, 32), PLACE @ Affine.scale(0.5), UTM)
    labels = open_labels(path, fine, LEGEND)
    np.testing.assert_array_equal(whole(labels), IDS.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(labels))), whole(labels))


def test_a_palette_raster_is_one_of_codes(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.where(IDS == 1, 80, 10).astype(np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {10: (*TREES, 255), 80: (*WATER, 255)})
    np.testing.assert_array_equal(whole(open_labels(path, GRID, LEGEND)), IDS)


@needs_shared
def test_the_shared_mask_in_colours_is_the_shared_mask_in_codes():
    folder = SHARED / "edge-cases"
    with rasterio.open(folder / "label_ok.tif") as dataset:
        grid, wanted = Grid(dataset.shape, dataset.transform, dataset.crs), dataset.read(1)
    legend = Legend.of(["other", "green"], {"other": "#800000", "green": "#008000"})
    np.testing.assert_array_equal(whole(open_labels(folder / "label_rgb_colours.tif", grid, legend)), wanted)
    with pytest.raises(LegendError, match=r"shows the colours #008000 in 14057 pixels, #800000 in 2327 pixels"):
        open_labels(folder / "label_rgb_colours.tif", grid, Legend.of(["other", "green"]))
