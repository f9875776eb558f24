"""Normalised differences do not see light that all bands share."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.testing import assert_close

from geounet.nn.features import GAIN, Features
from geounet.nn.runtime import compile
from geounet.nn.segmenter import Segmenter
from tests.making import unet_model

MEAN, STD = torch.tensor([100.0, 200.0, 400.0]), torch.tensor([10.0, 20.0, 40.0])


def image(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def test_without_differences_bands_are_standardised():
    assert_close(Features()(image(110, 180, 400), MEAN, STD), image(1, -1, 0))


def test_differences_are_those_worked_out_by_hand():
    found = Features(differences=True)(image(100, 300, 100), MEAN, STD)
    assert found.shape == (1, 6, 1, 1)
    assert_close(found[:, 3:] / GAIN, image(-0.5, 0, 0.5))  # (100-300)/400, (100-100)/200, (300-100)/400


@given(st.floats(0.05, 20))
def test_a_common_factor_cancels_out(factor):
    features, pixel = Features(differences=True), image(80, 300, 1200)
    assert_close(features(pixel * factor, MEAN, STD)[:, 3:], features(pixel, MEAN, STD)[:, 3:])


def test_below_the_floor_a_difference_fades_out_and_stays_finite():
    features = Features(differences=True, floor=100.0)
    assert_close(features(image(1, 0, 0), MEAN, STD)[:, 3:] / GAIN, image(1 / 101, 1 / 101, 0))
    assert torch.isfinite(features(image(-50, 0, -3), MEAN, STD)).all()


@pytest.mark.parametrize("bands", [1, 2, 6])
def test_channels_are_counted_as_they_are_made(bands):
    features = Features(differences=True)
    made = features(torch.rand(2, bands, 3, 4), torch.zeros(bands), torch.ones(bands))
    assert made.shape == (2, features.channels(bands), 3, 4)


def test_a_pixel_without_data_is_seen_as_the_mean_in_training_and_prediction():
    model = unet_model(names=("a", "b"), mean=700.0, features=Features(differences=True, floor=10.0))
    gap = torch.full((1, 2, 16, 16), 900.0)
    gap[:, :, :8] = torch.nan
    filled = torch.where(torch.isnan(gap), torch.tensor(700.0), gap)
    assert_close(model(gap), model(filled))


def test_openvino_and_torch_see_the_same():
    model = unet_model(names=("a", "b", "c"), mean=500.0, features=Features(differences=True, floor=10.0))
    pixels = np.random.default_rng(0).uniform(-20, 1000, (1, 3, 32, 48)).astype(np.float32)
    scores = [compile(model, (32, 48), backend=name, precision="fp32")(pixels) for name in ("openvino", "torch")]
    assert_allclose(*scores, atol=1e-5)


def test_features_travel_in_the_model_file(tmp_path):
    features = Features(differences=True, floor=12.5)
    model = unet_model(names=("a", "b", "c"), features=features)
    again = Segmenter.load(model.save(tmp_path / "model.safetensors"))
    assert again.features == features
    pixels = torch.rand(1, 3, 16, 16) * 1000
    assert_close(again(pixels), model(pixels))
