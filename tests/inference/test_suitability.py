"""A scene that cannot be what the model was trained on is refused, and a plausible one is not."""

import re

import numpy as np
import pytest
import torch
from affine import Affine
from numpy.testing import assert_array_equal

from geounet.core.bandtypes import BandType
from geounet.core.legend import Legend
from geounet.errors import BandMismatchError, ModelMismatchError
from geounet.inference import choose_model, predict
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from geounet.raster.scene import open_scene
from tests.making import BANDS, SHARED, OnePixel, needs_shared, reflectance, unet_model, write_raster

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


TYPED = (*BANDS, "landcover", "qa")
KINDS = {"landcover": BandType("categorical", codes=(10, 20, 80)), "qa": BandType("bitmask", bits=(3, 4))}


def typed_model(kinds=KINDS, names=TYPED):
    bands = [
        BandInfo(name, 900.0, 500.0, unit="reflectance × 10000", percentiles=SEEN, type=kinds.get(name, BandType()))
        for name in names
    ]
    network = OnePixel(sum(band.type.channels for band in bands), 2)
    return Segmenter(network, bands, ModelInfo(Legend.of(["land", "water"]), pixel_size=30.0)).eval()


def typed_scene(tmp_path, *, factor=1, codes=(10, 20, 80), words=(21_824, 22_280), bands=TYPED):
    rng = np.random.default_rng(0)
    light = reflectance((64, 64)).astype(np.float32) * factor
    layers = [rng.choice(values, (64, 64)) for values in (codes, words)]
    transform = Affine(30, 0, 5e5, 0, -30, 5.3e6)
    pixels = np.stack([*light, *layers])[-len(bands) :].astype(np.float32)
    return write_raster(tmp_path / "typed.tif", pixels, bands=bands, transform=transform)


def test_codes_and_flags_are_on_no_scale(tmp_path):
    assert predict(typed_scene(tmp_path, words=(0, 1)), typed_model()).doubts == ()
    with pytest.raises(ModelMismatchError, match=r"values from .* to 0\.3\d+ .*the model expects reflectance × 10000"):
        predict(typed_scene(tmp_path, factor=1e-4), typed_model())
    assert predict(typed_scene(tmp_path, bands=TYPED[-2:]), typed_model(names=TYPED[-2:])).doubts == ()


def test_codes_of_another_key_raise_a_doubt(tmp_path):
    (doubt,) = predict(typed_scene(tmp_path, codes=(10, 11, 12, 11)), typed_model()).doubts
    share = float(re.match(r"(\d+)% of the pixels looked at in landcover of .*typed\.tif", doubt)[1])
    assert share == pytest.approx(75, abs=3)  # three in four were drawn
    assert "most of all 11, 12; it knows 10, 20, 80" in doubt
    rare = (10,) * 20 + (11,)
    assert predict(typed_scene(tmp_path, codes=rare), typed_model()).doubts == ()


def test_a_map_of_flags_is_that_bit_of_every_valid_pixel(tmp_path):
    rng = np.random.default_rng(0)
    words = rng.integers(1, 2**16, (40, 56)).astype(np.uint16)
    words[5:9, 30:] = 0
    path = write_raster(tmp_path / "qa.tif", words, bands=["qa"], nodata=0)
    bands = [BandInfo("qa", type=BandType("bitmask", bits=(7, 8)))]
    network = OnePixel(2, 2)
    with torch.no_grad():  # water where bit 7 is set and bit 8 is not
        network.layer.weight.copy_(torch.tensor([[0.0, 0.0], [4.0, -4.0]]).view(2, 2, 1, 1))
        network.layer.bias.copy_(torch.tensor([2.0, 0.0]))
    model = Segmenter(network, bands, ModelInfo(Legend.of({1: "land", 2: "water"}))).eval()
    found = predict(path, model, chip_size=32, overlap=8).to_numpy()
    bit_7, bit_8 = words >> 7 & 1, words >> 8 & 1
    assert_array_equal(found, np.where(words == 0, 255, 1 + (bit_7 & ~bit_8)))
