import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from geounet.core.bandtypes import BandType
from geounet.core.legend import IGNORE
from geounet.errors import ConfigError
from geounet.nn.augment import BandDropout, Tone

NAN = float("nan")
MEAN, STD, LOW, HIGH = [100.0, -20.0, 0.5], [10.0, 5.0, 0.1], [50.0, -40.0, 0.0], [150.0, 0.0, 1.0]
RANGE = {"low": LOW, "high": HIGH}
STRENGTHS = {"brightness": 0.2, "contrast": 0.2, "gamma": 0.2}
FLAGS = BandType("bitmask", bits=(3,))


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(samples=2, height=6, width=6, seed=0):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    image = torch.randn(samples, 3, height, width, generator=chance(seed)) * std + mean
    return image, torch.randint(4, (samples, height, width), generator=chance(seed))


def test_nothing_asked_for_changes_nothing():
    image, labels = batch()
    changed, same = Tone(MEAN, STD)(image, labels, chance())
    assert torch.equal(changed, image)
    assert torch.equal(same, labels)


def test_brightness_is_one_shift_a_sample_and_band_in_the_bands_deviation():
    image, labels = batch(samples=2000, height=2, width=2)
    shift = Tone(MEAN, STD, brightness=0.3)(image.double(), labels, chance())[0] - image
    assert_close(shift, shift[:, :, :1, :1].expand_as(shift), rtol=0, atol=1e-9)
    expected = 0.3 * torch.tensor(STD, dtype=torch.float64)
    assert_close(shift[:, :, 0, 0].std(dim=0), expected, rtol=5 / math.sqrt(4000), atol=0)
    assert torch.corrcoef(shift[:, :, 0, 0].T).triu(1).abs().max() < 5 / math.sqrt(2000)


def test_contrast_is_a_factor_on_distances_from_the_bands_mean():
    image, labels = batch(samples=2000, height=2, width=2)
    mean = torch.tensor(MEAN, dtype=torch.float64).view(1, 3, 1, 1)
    factor = (Tone(MEAN, STD, contrast=0.2)(image.double(), labels, chance())[0] - mean) / (image - mean)
    assert_close(factor, factor[:, :, :1, :1].expand_as(factor), rtol=1e-6, atol=0)
    logs = factor[:, :, 0, 0].log()
    assert_close(logs.std(dim=0), torch.full((3,), 0.2, dtype=torch.float64), rtol=5 / math.sqrt(4000), atol=0)
    middle = mean.expand(1, 3, 2, 2)
    assert torch.equal(Tone(MEAN, STD, contrast=0.2)(middle, labels[:1], chance())[0], middle)


def test_gamma_leaves_the_ends_of_the_range_and_bends_between_and_beyond():
    """The middle of the range gives the power away: (1/2)^γ. At 1/4 there must then stand (1/4)^γ, at -1 and 2 likewise."""
    low, span = torch.tensor(LOW).view(1, 3, 1), (torch.tensor(HIGH) - torch.tensor(LOW)).view(1, 3, 1)
    parts = torch.tensor([0.0, 1.0, 0.5, 0.25, 2.0, -1.0, -0.25])
    image = (low + span * parts).unsqueeze(2).expand(500, 3, 1, 7)
    changed, _ = Tone(MEAN, STD, gamma=0.3, **RANGE)(image, torch.zeros(500, 1, 7), chance())
    bent = ((changed[:, :, 0] - low) / span).double()
    power = bent[..., 2].log() / math.log(0.5)
    assert_close(bent[..., [0, 1, 5]], torch.tensor([0.0, 1.0, -1.0]).double().expand(500, 3, 3), rtol=0, atol=1e-5)
    assert_close(bent[..., 3], 0.25**power, rtol=1e-4, atol=0)
    assert_close(bent[..., 4], 2**power, rtol=1e-4, atol=0)
    assert_close(bent[..., 6], -bent[..., 3], rtol=1e-4, atol=0)
    logs = power.log()
    assert_close(logs.std(dim=0), torch.full((3,), 0.3).double(), rtol=5 / math.sqrt(1000), atol=0)


@given(st.integers(0, 2**20))
def test_a_tone_keeps_the_order_of_values_and_the_places_without_any(seed):
    image, labels = batch(seed=seed)
    image = image.double()
    image[torch.rand(image.shape, generator=chance(seed)) < 0.2] = NAN
    before = image.clone()
    changed, same = Tone(MEAN, STD, **RANGE, **STRENGTHS)(image, labels, chance(seed))
    assert_close(image, before, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(changed.isnan(), image.isnan())
    order = image.nan_to_num(1e9).flatten(2).argsort(dim=2)
    assert (changed.nan_to_num(1e9).flatten(2).gather(2, order).diff(dim=2) >= 0).all()
    assert torch.equal(same, labels)


def test_codes_and_bands_that_do_not_vary_keep_every_bit(device):
    image, labels = (t.to(device) for t in batch())
    image = image.repeat(1, 2, 1, 1)
    types = [BandType(), FLAGS, BandType(), BandType(), BandType(), BandType()]
    mean, std = [100.0, -20.0, NAN, 100.0, -20.0, 0.5], [10.0, 5.0, NAN, 0.0, 5.0, 0.1]
    tone = Tone(mean, std, low=LOW * 2, high=HIGH * 2, types=types, **STRENGTHS)
    changed, _ = tone(image, labels, chance())
    assert changed.device == image.device
    assert changed.dtype == torch.float32
    assert torch.equal(changed[:, 1:4], image[:, 1:4])
    assert (changed[:, [0, 4, 5]] != image[:, [0, 4, 5]]).any(dim=(2, 3)).all()


@pytest.mark.parametrize("ends", [(0.7, 0.7), (0.7, 0.2), (NAN, 1.0), (0.0, float("inf"))])
def test_a_band_without_a_range_has_no_curve(ends):
    image, labels = batch()
    tone = Tone(MEAN, STD, low=[*LOW[:2], ends[0]], high=[*HIGH[:2], ends[1]], gamma=0.3)
    changed, _ = tone(image, labels, chance())
    assert torch.equal(changed[:, 2], image[:, 2])
    assert (changed[:, :2] != image[:, :2]).any()


@given(st.integers(0, 2**20), st.floats(0, 1), st.integers(1, 4))
def test_dropped_bands_are_wholly_without_data_and_the_others_as_they_were(seed, share, bands):
    image = torch.rand(5, bands, 4, 3, generator=chance(seed))
    labels = torch.randint(4, (5, 4, 3), generator=chance(seed))
    changed, same = BandDropout(share)(image, labels, chance(seed))
    gone = changed.isnan().flatten(2)
    assert torch.equal(gone.any(dim=2), gone.all(dim=2))
    assert (~gone.all(dim=2)).any(dim=1).all()  # never the last
    assert torch.equal(changed.where(changed.isfinite(), image), image)
    assert torch.equal(same, labels)


def test_each_band_is_dropped_as_often_as_asked_for(device):
    image = torch.ones(4000, 8, 1, 1, device=device)
    changed, _ = BandDropout(0.3)(image, torch.zeros(4000, 1, 1, device=device), chance())
    assert changed.device.type == device
    dropped = changed.isnan().float().mean(dim=(0, 2, 3)).cpu()
    assert_close(dropped, torch.full((8,), 0.3), rtol=0, atol=5 * math.sqrt(0.21 / 4000))  # all eight: 1 in 15 000


def test_if_all_are_to_go_one_stays_each_as_often():
    changed, _ = BandDropout(1.0)(torch.ones(4000, 4, 1, 1), torch.zeros(4000, 1, 1), chance())
    kept = changed.isfinite().sum(dim=(0, 2, 3))
    assert kept.sum() == 4000
    assert (kept - 1000).abs().max() < 5 * math.sqrt(4000 * 3 / 16)


def test_the_band_that_stays_is_one_with_data():
    image = torch.ones(200, 3, 2, 2)
    image[:, [0, 2]] = NAN
    changed, _ = BandDropout(1.0)(image, torch.zeros(200, 2, 2), chance())
    assert_close(changed, image, rtol=0, atol=0, equal_nan=True)


def test_a_pixel_left_without_any_band_teaches_nothing_and_one_without_before_stays():
    image, labels = torch.ones(300, 2, 1, 3), torch.tensor([[[1, 2, 3]]]).repeat(300, 1, 1)
    image[:, 0, 0, 1] = NAN  # pixel 1 is seen in band 1 alone, pixel 2 in none
    image[:, :, 0, 2] = NAN
    changed, marks = BandDropout(0.5)(image, labels, chance())
    lost = changed[:, 1, 0, 1].isnan()
    assert 0 < lost.sum() < 300
    assert torch.equal(marks[:, 0, 1] == IGNORE, lost)
    assert torch.equal(marks[:, 0, [0, 2]], labels[:, 0, [0, 2]])


@pytest.mark.parametrize("augment", [Tone(MEAN, STD, **RANGE, **STRENGTHS), BandDropout(0.4)])
def test_equal_seeds_give_equal_batches_and_others_do_not(augment):
    before = torch.random.get_rng_state()
    image, labels = batch(samples=8)
    one, two, three = (augment(image, labels, chance(seed))[0].nan_to_num(-1) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma"])
@pytest.mark.parametrize("value", [-0.1, NAN, float("inf")])
def test_deviations_that_are_none_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} is a deviation"):
        Tone(MEAN, STD, **RANGE, **{name: value})


def test_gamma_needs_a_range():
    with pytest.raises(ConfigError, match="give low and high"):
        Tone(MEAN, STD, low=LOW, gamma=0.1)


def test_each_band_has_one_value_of_each():
    with pytest.raises(ConfigError, match="3 of mean, 3 of std, 2 of low, 3 of high, 3 of types"):
        Tone(MEAN, STD, low=LOW[:2], high=HIGH)


def test_a_tone_is_for_images_of_its_bands():
    with pytest.raises(ConfigError, match="the image has 3 bands, but tones were set for 1"):
        Tone([1.0], [1.0], brightness=0.1)(*batch(), chance())


@pytest.mark.parametrize("share", [-0.1, 1.1, NAN])
def test_a_share_of_bands_is_from_0_to_1(share):
    with pytest.raises(ConfigError, match="the share of bands to drop"):
        BandDropout(share)
