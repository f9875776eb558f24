import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.windows import Window

from geounet.report import composite, composites


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (("blue", "green", "red", "nir"), (2, 1, 0)),
        (("nir", "red", "green", "swir1"), (0, 1, 2)),
        (("green", "red", "nir08", "swir1"), (2, 1, 0)),
        (("band a", "band b", "band c", "band d"), (0, 1, 2)),
        (("band a", "band b"), (0, 0, 0)),
        (("pan",), (0, 0, 0)),
    ],
)
def test_bands_are_shown_by_name_and_else_in_order(scene_of, bands, shown):
    pixels = np.random.default_rng(0).integers(0, 4000, (len(bands), 12, 9)).astype(np.int16)
    picture = composite(scene_of(pixels, bands))
    alone = [composite(scene_of(pixels[[band]], ("pan",), f"{band}.tif"))[..., 0] for band in range(len(bands))]
    assert picture.shape == (12, 9, 4)
    for channel, band in enumerate(shown):
        assert_array_equal(picture[..., channel], alone[band])


def test_the_stretch_goes_from_the_2nd_to_the_98th_percentile_of_valid_pixels(scene_of):
    values = np.arange(-1, 101, dtype=np.float32)[None, None]  # -1 is nodata; 0 … 100 are left
    picture = composite(scene_of(values, ("pan",)))[0]
    assert picture[0].tolist() == [255, 255, 255, 0]  # clear, over white
    grey = picture[1:, 0].astype(float)
    assert_array_equal(grey[:3], 0)  # up to the 2nd percentile, which is 2
    assert_array_equal(grey[98:], 255)
    assert grey[50] == round(255 * 0.5**0.75)
    assert (np.diff(grey) >= 0).all()
    assert (picture[1:, 3] == 255).all()


def test_a_scene_of_one_value_is_grey_and_an_empty_one_is_clear(scene_of):
    assert (composite(scene_of(np.full((1, 4, 5), 7, np.int16), ("pan",)))[..., :3] == 128).all()
    nothing = composite(scene_of(np.full((1, 4, 5), -1, np.int16), ("pan",), "nothing.tif"))
    assert (nothing[..., 3] == 0).all()
    assert (nothing[..., :3] == 255).all()


@pytest.mark.parametrize("strip", [1, 500, 2**24])
def test_a_large_scene_is_averaged_to_size_over_its_valid_pixels(scene_of, monkeypatch, strip):
    monkeypatch.setattr(composites, "STRIP", strip)
    rng = np.random.default_rng(1)
    small = rng.integers(0, 1000, (3, 6, 8)).astype(np.int16)
    small[:, 1, 2] = -1
    large = np.kron(small, np.ones((1, 4, 4), np.int16))
    ripple = np.tile([[1, -1], [-1, 1]], (12, 16)).astype(np.int16)  # which averages out in squares of 4
    large = np.where(large == -1, -1, 2 + large + ripple).astype(np.int16)
    large[0, 8, 8] = large[0, 8, 9] = -1  # a plus and a minus: the mean of the rest stays
    bands = ("red", "green", "blue")
    assert_array_equal(
        composite(scene_of(large, bands), size=8),
        composite(scene_of(np.where(small == -1, -1, small + 2).astype(np.int16), bands, "small.tif")),
    )


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_a_picture_is_never_larger_than_asked_and_keeps_its_shape(height, width, size):
    pixels, valid = np.ones((1, height, width)), np.ones((height, width), bool)
    step = max(1, -(-max(height, width) // size))
    rows, cols = composites.average(pixels, valid, step).shape[1:]
    assert max(rows, cols) <= size
    assert (rows, cols) == (-(-height // step), -(-width // step))


def test_a_window_shows_its_part(scene_of):
    pixels = np.random.default_rng(2).integers(0, 999, (1, 20, 30)).astype(np.int16)
    part = composite(scene_of(pixels, ("pan",)), Window(5, 7, 12, 10))
    assert_array_equal(part, composite(scene_of(pixels[:, 7:17, 5:17], ("pan",), "part.tif")))
