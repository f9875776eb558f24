"""A scene that cannot be what the model was trained on is refused, and a plausible one is not."""

import numpy as np
import pytest
from affine import Affine

from geounet.errors import BandMismatchError, ModelMismatchError
from geounet.inference import choose_model, predict
from geounet.raster.scene import open_scene
from tests.making import BANDS, SHARED, needs_shared, reflectance, unet_model, write_raster

SEEN = {"50": 900.0, "99": 3800.0}


@pytest.fixture
def model():
    return unet_model(pixel_size=30.0, percentiles=SEEN)


def scene(tmp_path, pixels, transform=None, **kwargs):
    transform = transform or Affine(30, 0, 5e5, 0, -30, 5.3e6)
    return write_raster(tmp_path / "scene.tif", pixels, bands=BANDS, transform=transform, **kwargs)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(reflectance((64, 64)) / np.float32(10_000), id="reflectance from 0 to 1"),
        pytest.param((reflectance((64, 64)) // 16).astype(np.uint8), id="8-bit numbers"),
        pytest.param(reflectance((64, 64)).astype(np.float32) * 100, id="a hundred times too bright"),
    ],
)
def test_values_on_another_scale_are_refused(tmp_path, model, pixels):
    path = scene(tmp_path, pixels)
    with pytest.raises(ModelMismatchError, match=r"scene\.tif.*reflectance × 10000.*--force"):
        predict(path, model)
    assert predict(path, model, force=True).to_numpy().shape == (64, 64)


def test_reflectance_is_refused_by_a_model_of_8_bit_pictures(tmp_path):
    model = unet_model(percentiles={"50": 90.0, "99": 255.0}, unit="")
    with pytest.raises(ModelMismatchError, match="values from"):
        predict(scene(tmp_path, reflectance((64, 64))), model)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(reflectance((64, 64)), id="like the training scenes"),
        pytest.param(reflectance((64, 64), low=50, high=500), id="dark water throughout"),
        pytest.param(reflectance((64, 64), low=6000, high=11000), id="snow throughout"),
    ],
)
def test_plausible_values_pass(tmp_path, model, pixels):
    assert predict(scene(tmp_path, pixels), model).doubts == ()


@pytest.mark.parametrize(
    ("size", "verdict"), [(0.3, "refused"), (7, "refused"), (10, "doubt"), (30, "fine"), (130, "refused")]
)
def test_pixel_sizes_beyond_fourfold_are_refused_and_others_said(tmp_path, model, size, verdict):
    path = scene(tmp_path, reflectance((64, 64)), Affine(size, 0, 5e5, 0, -size, 5.3e6))
    if verdict == "refused":
        with pytest.raises(ModelMismatchError, match=f"pixels of {size}.* m; the model was trained on 30 m"):
            predict(path, model)
    else:
        assert len(predict(path, model).doubts) == (verdict == "doubt")


def test_a_missing_band_is_named(tmp_path, model):
    path = write_raster(tmp_path / "four.tif", reflectance((16, 16), 4), bands=("blue", "green", "red", "nir"))
    with pytest.raises(BandMismatchError, match="swir1, swir2"):
        predict(path, model)


@needs_shared
def test_four_unnamed_bands_are_refused_with_the_way_to_name_them():
    found = min((SHARED / "naip-timeseries").glob("*.tif"))
    with pytest.raises(BandMismatchError, match=r"band_1, band_2, band_3, band_4.*swir1.*--bands"):
        choose_model(open_scene(found))


@needs_shared
def test_8_bit_landsat_numbers_are_refused_where_reflectance_is_expected():
    folder = SHARED / "landsat5-tm"
    files = [folder / f"LT52240631988227CUB02_B{number}.TIF" for number in (1, 2, 3, 4, 5, 7)]
    opened = open_scene(files, bands=["blue", "green", "red", "nir", "swir1", "swir2"])
    with pytest.raises(ModelMismatchError, match=r"8-bit.*surface reflectance"):
        predict(opened, "water")
