"""Codes, flags and angles have channels of their own; normalised differences do not see light that all bands share."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.testing import assert_close

from geounet.core.bandtypes import ABSENT, BandType
from geounet.core.legend import Legend
from geounet.nn.features import GAIN, Features, encode
from geounet.nn.runtime import compile, openvino, to_openvino
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from geounet.nn.unet import UNet
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


def line(values):
    """One band, a row of pixels, (1, 1, 1, W)."""
    return torch.from_numpy(np.asarray(values).astype(np.float32)).view(1, 1, 1, -1)


@given(arrays(np.int32, 20, elements=st.integers(-(2**24) + 1, 2**24 - 1)), st.data())
def test_a_code_is_1_in_its_own_channel_and_a_code_that_is_not_known_in_none(values, data):
    nearby = st.sampled_from(values.tolist()).flatmap(
        lambda v: st.integers(max(v - 2, 1 - 2**24), min(v + 2, 2**24 - 1))
    )
    codes = data.draw(st.lists(nearby, min_size=1, max_size=8, unique=True))
    found = encode(line(values), [BandType("categorical", codes=tuple(codes))])
    assert_array_equal(found[0, :, 0], values[None] == np.array(codes)[:, None])


@given(
    st.one_of(
        arrays(np.uint16, 20), arrays(np.int16, 20), arrays(np.uint8, 20),
        arrays(np.uint32, 20, elements=st.integers(0, 2**24 - 1)),
    ),
    st.lists(st.integers(0, 23), min_size=1, max_size=24, unique=True),
)  # fmt: skip
def test_a_flag_is_the_bit_of_the_word_as_stored(words, bits):
    bits = [bit for bit in bits if bit < 8 * words.itemsize] or [0]
    found = encode(line(words), [BandType("bitmask", bits=tuple(bits))])
    assert_array_equal(found[0, :, 0], words[None] >> np.array(bits, words.dtype)[:, None] & 1)


@pytest.mark.parametrize(
    ("angle", "sine", "cosine"),
    [(0, 0, 1), (90, 1, 0), (180, 0, -1), (270, -1, 0), (360, 0, 1), (-90, -1, 0), (45, 0.5**0.5, 0.5**0.5)],
)
def test_an_angle_is_its_sine_and_cosine(angle, sine, cosine):
    assert_close(encode(image(angle), [BandType("cyclic", period=360)]), image(sine, cosine), atol=2e-7, rtol=0)


@given(st.integers(0, 364), st.integers(0, 60))
def test_a_day_of_any_year_is_that_day(day, year):
    kind = [BandType("cyclic", period=365)]
    assert_close(encode(image(day + 365 * year), kind), encode(image(day), kind), atol=2e-5, rtol=0)


EVERY_KIND = (
    BandType("categorical", codes=(9998, 9999, 10_000, 10_001, 2**24 - 2, 2**24 - 1, 0)),
    BandType(),
    BandType("bitmask", bits=(0, 3, 7, 8, 15)),
    BandType("cyclic", period=365.25),
    BandType(),
)
"""16 channels."""


def test_channels_follow_the_order_of_the_bands():
    found = encode(image(10_000, 5.5, 0b1000_0000_0000_1000, 0, -3), EVERY_KIND)
    assert_array_equal(found.flatten(), [0, 0, 1, 0, 0, 0, 0, 5.5, 0, 1, 0, 0, 1, 0, 1, -3])
    assert sum(kind.channels for kind in EVERY_KIND) == 16


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if kind.typed], ids=str)
def test_no_data_is_zeros(kind):
    assert not encode(image(ABSENT), [kind]).any()


def test_differences_are_those_of_quantities_alone():
    types = [BandType("bitmask", bits=(0, 1)), BandType(), BandType("categorical", codes=(300,)), BandType()]
    model = seeing_itself(types, Features(differences=True))
    assert model.features.channels(types) == 6
    found = model.prepare(image(2, 100, 300, 300))
    assert_close(found, image(0, 1, 100, 1, 300, -0.5 * GAIN))


@pytest.mark.parametrize("types", [EVERY_KIND, EVERY_KIND[:1], EVERY_KIND[2:4], (BandType(),)], ids=len)
@pytest.mark.parametrize("differences", [False, True])
def test_channels_of_types_are_counted_as_they_are_made(types, differences):
    model = seeing_itself(types, Features(differences=differences))
    made = model.prepare(torch.rand(2, len(types), 3, 4))
    assert made.shape == (2, model.features.channels(types), 3, 4)


class Through(nn.Module):
    """A convolution that gives back what it gets."""

    stride = 1

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.eye_(self.layer.weight.data.view(channels, channels))

    def forward(self, features):
        return self.layer(features)


def seeing_itself(types, features=None):
    """Segmenter whose scores are the channels that its network sees."""
    channels = (features or Features()).channels(types)
    bands = [BandInfo(f"band {place}", type=kind) for place, kind in enumerate(types)]
    legend = Legend.of([f"channel {place}" for place in range(channels)])
    return Segmenter(Through(channels), bands, ModelInfo(legend), features).eval()


def words(side=32):
    """Chips of `EVERY_KIND`, and which of their 16 channels are 0 or 1."""
    rng = np.random.default_rng(0)
    codes = np.array([*EVERY_KIND[0].codes, 9997, 10_002, 1])
    chips = [
        np.stack(
            [
                rng.choice(codes, (side, side)), rng.uniform(0, 1, (side, side)), rng.integers(0, 2**16, (side, side)),
                rng.integers(0, 20_000, (side, side)), rng.uniform(0, 1, (side, side)),
            ]
        )
        for _ in range(2)
    ]  # fmt: skip
    batch = np.stack(chips).astype(np.float32)
    batch[:, :, :2, :3] = seeing_itself(EVERY_KIND).mean.numpy()[:, None, None]  # as no data is filled in
    return batch, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("backend", ["openvino", "torch"])
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_codes_and_flags_are_the_same_in_any_backend_and_precision(backend, precision, device):
    if device == "cuda" and backend == "openvino":
        device = "cpu"
    batch, exact = words()
    model = seeing_itself(EVERY_KIND)
    expected = model(torch.from_numpy(batch)).detach().numpy()
    forward = compile(model, (32, 32), device=device, backend=backend, precision=precision, probabilities=False)
    found = torch.as_tensor(forward(batch)).cpu().numpy()
    assert_array_equal(found[:, exact], expected[:, exact])
    assert_array_equal(np.unique(found[:, exact]), [0, 1])
    assert not found[:, exact, :2, :3].any()
    assert_allclose(found, expected, atol=2**-8)  # quantities and angles to the 8 bits of bf16


def test_a_whole_network_of_codes_and_differences_gives_the_same_scores_in_openvino_and_torch():
    batch, _ = words()
    batch.flags.writeable = False
    features = Features(differences=True, floor=0.1)
    bands = [BandInfo(f"band {place}", 0.5, 0.3, type=kind) for place, kind in enumerate(EVERY_KIND)]
    torch.manual_seed(0)
    network = UNet(features.channels(EVERY_KIND), 2, depth=2, width=8)
    model = Segmenter(network, bands, ModelInfo(Legend.of(["a", "b"])), features).eval()
    expected = model(torch.tensor(batch)).softmax(dim=1).detach().numpy()
    fp32, own = (
        compile(model, (32, 32), device="cpu", backend="openvino", precision=precision)(batch)
        for precision in ("fp32", "auto")
    )
    assert_allclose(fp32, expected, atol=2e-5)
    assert_allclose(own, expected, atol=0.05)


def test_openvinos_own_model_takes_raw_bands():
    batch, _ = words()
    model = seeing_itself(EVERY_KIND)
    core = openvino().Core()
    compiled = core.compile_model(to_openvino(model, probabilities=False), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_allclose(compiled(batch)[0], model(torch.from_numpy(batch)).detach().numpy(), atol=1e-5)
