import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from geounet.demo import scenery
from geounet.demo.scenery import BANDS, LEGEND, NODATA, Conditions, beyond_swath, blur, land, noise, reflectance, stored

SHAPE = (224, 256)


@pytest.fixture(scope="module")
def ground():
    return land(SHAPE, np.random.default_rng(3))


@pytest.fixture(scope="module")
def image(ground):
    return reflectance(ground, np.random.default_rng(4), Conditions())


def test_equal_seeds_make_equal_scenes_and_others_do_not(ground, image):
    again = land(SHAPE, np.random.default_rng(3))
    assert_array_equal(again.ids, ground.ids)
    assert_array_equal(reflectance(again, np.random.default_rng(4), Conditions()), image)
    assert (land(SHAPE, np.random.default_rng(5)).ids != ground.ids).mean() > 0.3


@pytest.mark.parametrize("seed", [0, 7, 11])
def test_land_has_all_five_classes(seed):
    ids = land(SHAPE, np.random.default_rng(seed)).ids
    share = np.bincount(ids.ravel(), minlength=5) / ids.size
    assert len(share) == len(LEGEND) == 5
    assert (share > 0.01).all()
    assert share[[scenery.FOREST, scenery.CROP]].min() > 0.15


def test_classes_look_as_they_do_from_space(ground, image):
    middle = {k: np.median(image[:, ground.ids == k], axis=1) for k in range(5)}
    red, nir, swir1 = (BANDS.index(name) for name in ("red", "nir", "swir1"))
    ndvi = {k: (m[nir] - m[red]) / (m[nir] + m[red]) for k, m in middle.items()}
    assert middle[scenery.WATER][nir] < 0.1
    assert middle[scenery.WATER][swir1] < 0.06
    assert ndvi[scenery.FOREST] > 0.6
    assert ndvi[scenery.BARE] < 0.35
    assert ndvi[scenery.BUILT] < 0.45
    assert middle[scenery.FOREST][red] < middle[scenery.CROP][red]
    assert 0 < image.mean() < 0.4


def test_haze_brightens_blue_most(ground):
    clear, hazy = (reflectance(ground, np.random.default_rng(4), Conditions(haze=h)) for h in (0.0, 0.04))
    gain = (hazy - clear).mean(axis=(1, 2))
    assert gain[0] > 0.005
    assert (np.diff(gain) < 0).all()  # the longer the wave, the less is scattered


def test_crops_ripen_with_the_season(ground):
    red, nir = BANDS.index("red"), BANDS.index("nir")
    crop = ground.ids == scenery.CROP
    spring, summer = (
        reflectance(ground, np.random.default_rng(4), Conditions(season=s))[:, crop].mean(axis=1) for s in (0.0, 1.0)
    )
    assert summer[red] > 1.1 * spring[red]
    assert summer[nir] < spring[nir]


def test_parcels_are_whole_numbers_from_0_without_gaps(ground):
    assert_array_equal(np.unique(ground.parcels), np.arange(ground.parcels.max() + 1))
    assert np.median(np.bincount(ground.parcels.ravel())) > 50


@given(st.floats(0.5, 3.5), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_noise_has_mean_0_and_deviation_1(beta, seed):
    field = noise((40, 56), np.random.default_rng(seed), beta=beta)
    assert field.shape == (40, 56)
    assert field.dtype == np.float32
    assert_allclose([field.mean(), field.std()], [0, 1], atol=1e-4)


def test_noise_with_a_steeper_spectrum_is_smoother():
    def step(beta):
        return np.abs(np.diff(noise((128, 128), np.random.default_rng(1), beta=beta))).mean()

    assert step(3.0) < step(2.0) < step(1.0) < step(0.0)


@given(st.floats(0.8, 3.0))  # below, a pixel grid no longer holds a Gaussian
@settings(max_examples=15, deadline=None)
def test_blur_spreads_a_point_into_a_gaussian(sigma):
    point = np.zeros((41, 41))
    point[20, 20] = 1
    away = np.arange(41) - 20
    profile = np.exp(-0.5 * (away / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    assert_allclose(blur(point, sigma), np.outer(profile, profile), atol=0.01)


def test_blur_leaves_a_constant_as_it_is_up_to_the_border():
    assert_allclose(blur(np.full((2, 9, 12), 3.0), 2.0), 3.0, atol=1e-5)


def test_stored_pixels_are_ten_thousandths_and_nodata_marks_what_is_outside_the_swath():
    image = np.array([[[0.12345, -0.01, 0.2]], [[0.5, 3.0, 0.3]]], np.float32)
    counts = stored(image, np.array([[False, False, True]]))
    assert counts.dtype == np.int16
    assert counts.tolist() == [[[1234, 1, NODATA]], [[5000, 16000, NODATA]]]


def test_the_swath_ends_in_a_stair_that_leans():
    west = beyond_swath((100, 50), 0.5, east=False)
    assert_array_equal(beyond_swath((100, 50), 0.5, east=True), west[:, ::-1])
    width = west.sum(axis=1)
    assert width[0] == 25  # half of 50
    assert width[47] == width[24] == 20  # 24 rows lower, tan 13° · 24 = 5.54 pixels less: 19.46, of which 20 begin
    assert_array_equal(west, np.arange(50) < width[:, None])
