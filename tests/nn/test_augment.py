import numpy as np
import pytest
import torch
from torch.testing import assert_close

from geounet.core.bandtypes import BandType
from geounet.errors import ConfigError
from geounet.nn.augment import Compose, CutMix, FlipsAndTurns, Radiometric

NAN = float("nan")


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(samples=2, bands=3, height=6, width=6, seed=0):
    image = torch.rand(samples, bands, height, width, generator=chance(seed)) + 1
    return image, torch.randint(4, (samples, height, width), generator=chance(seed))


def eight_sides(pixels):
    turns = [np.rot90(pixels, k, axes=(-2, -1)) for k in range(4)]
    return turns + [np.flip(t, axis=-1) for t in turns]


def test_a_sample_is_seen_from_each_of_the_eight_sides_equally_often():
    image = torch.arange(4.0).reshape(1, 1, 2, 2).expand(4000, 1, 2, 2)
    turned, _ = FlipsAndTurns()(image, torch.zeros(4000, 2, 2, dtype=torch.int64), chance())
    sides, counts = np.unique(turned.reshape(4000, 4).numpy(), axis=0, return_counts=True)
    assert {tuple(s) for s in sides} == {tuple(s.ravel()) for s in eight_sides(np.arange(4.0).reshape(2, 2))}
    assert abs(counts - 500).max() < 5 * np.sqrt(500 * 7 / 8)


def test_labels_turn_with_their_image(device):
    labels = torch.arange(16 * 25).reshape(16, 5, 5)
    image = labels.unsqueeze(1).float().repeat(1, 2, 1, 1)
    turned, turned_labels = FlipsAndTurns()(image.to(device), labels.to(device), chance())
    assert turned.device.type == device
    assert_close(turned.cpu(), turned_labels.cpu().unsqueeze(1).float().repeat(1, 2, 1, 1))
    for before, after in zip(labels.numpy(), turned_labels.cpu().numpy(), strict=True):
        assert any(np.array_equal(after, side) for side in eight_sides(before))


def test_an_oblong_chip_keeps_its_shape():
    image, labels = batch(samples=200, height=4, width=7)
    turned, turned_labels = FlipsAndTurns()(image, labels, chance())
    assert turned.shape == image.shape
    sides = [image.numpy(), *(np.flip(image.numpy(), axis) for axis in (-1, -2, (-1, -2)))]
    taken = [[np.array_equal(turned[n], side[n]) for side in sides].index(True) for n in range(200)]
    assert set(taken) == {0, 1, 2, 3}
    assert turned_labels.shape == labels.shape


@pytest.mark.parametrize(
    "augment",
    [FlipsAndTurns(), Radiometric([1.0, 2.0, 3.0], gain=0.2, band_gain=0.1, offset=0.1, noise=0.1), Compose([])],
)
def test_what_has_no_data_before_has_none_after_and_nothing_else(augment):
    image, labels = batch()
    image[0, :, 1, 2] = NAN
    image[1, 2, 3:] = NAN
    before = image.clone()
    changed, _ = augment(image, labels, chance())
    assert_close(image, before, equal_nan=True, rtol=0, atol=0)  # the caller's batch is left alone
    assert changed.isnan().sum(dim=(2, 3)).tolist() == image.isnan().sum(dim=(2, 3)).tolist()
    assert not changed.isinf().any()


@pytest.mark.parametrize("augment", [FlipsAndTurns(), Radiometric([1.0, 2.0, 3.0], gain=0.2, noise=0.1)])
def test_equal_seeds_give_equal_batches_and_others_do_not(augment):
    image, labels = batch(samples=8)
    one, two, three = (augment(image, labels, chance(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_chance_comes_from_the_generator_alone():
    before = torch.random.get_rng_state()
    Compose([FlipsAndTurns(), Radiometric([1.0, 1.0, 1.0], gain=0.1, noise=0.1)])(*batch(), chance())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_asked_for_changes_nothing():
    image, labels = batch()
    changed, same = Radiometric([1.0, 2.0, 3.0])(image, labels, chance())
    assert torch.equal(changed, image)
    assert torch.equal(same, labels)


def test_an_overall_gain_is_one_factor_a_sample():
    image, labels = batch(samples=3000, height=2, width=2)
    factor = Radiometric([1.0] * 3, gain=0.2)(image, labels, chance())[0] / image
    assert_close(factor, factor[:, :1, :1, :1].expand_as(factor))
    logs = factor[:, 0, 0, 0].log()
    assert logs.mean().item() == pytest.approx(0, abs=0.02)
    assert logs.std().item() == pytest.approx(0.2, rel=0.06)


def test_a_band_gain_is_one_factor_a_sample_and_band():
    image, labels = batch(samples=1000, height=2, width=2)
    factor = Radiometric([1.0] * 3, band_gain=0.1)(image, labels, chance())[0] / image
    assert_close(factor, factor[:, :, :1, :1].expand_as(factor))
    logs = factor[:, :, 0, 0].log()
    assert logs.std().item() == pytest.approx(0.1, rel=0.06)
    assert abs(torch.corrcoef(logs.T)[0, 1].item()) < 0.15


def test_an_offset_is_common_to_all_bands_as_haze_is():
    image, labels = batch(samples=2000, height=2, width=2)
    shift = Radiometric([1.0, 10.0, 100.0], offset=0.3)(image, labels, chance())[0] - image
    assert_close(shift, shift[:, :1, :1, :1].expand_as(shift), rtol=1e-3, atol=1e-3)
    assert shift[:, 0, 0, 0].std().item() == pytest.approx(0.3 * 37, rel=0.06)


def test_a_band_offset_is_a_share_of_each_bands_deviation():
    image, labels = batch(samples=2000, height=2, width=2)
    shift = Radiometric([1.0, 10.0, 100.0], band_offset=0.3)(image, labels, chance())[0] - image
    assert_close(shift, shift[:, :, :1, :1].expand_as(shift), rtol=1e-3, atol=1e-4)
    assert_close(shift[:, :, 0, 0].std(dim=0), torch.tensor([0.3, 3.0, 30.0]), rtol=0.06, atol=0)


def test_a_rectangle_comes_with_its_labels_from_another_sample_at_the_same_place():
    samples, side = 32, 16
    place = torch.arange(side * side).view(1, side, side).float()
    who = torch.arange(samples).view(-1, 1, 1).float()
    image = torch.stack([who.expand(samples, side, side), place.expand(samples, side, side)], dim=1)
    mixed, labels = CutMix(1.0)(image, image[:, 0].long(), chance())
    assert torch.equal(mixed[:, 0].long(), labels)  # labels came with their pixels
    assert torch.equal(mixed[:, 1], image[:, 1])  # from the same place
    for sample in range(samples):
        others = set(labels[sample].unique().tolist()) - {sample}
        assert len(others) <= 1
        rows, cols = torch.nonzero(labels[sample] != sample, as_tuple=True)
        if len(rows):
            assert len(rows) == (rows.max() - rows.min() + 1) * (cols.max() - cols.min() + 1)  # one whole rectangle
    assert (labels != who.long()).any()


def test_as_many_samples_are_mixed_as_asked_for():
    image = torch.arange(4000.0).view(-1, 1, 1, 1).expand(4000, 1, 8, 8)
    labels = image[:, 0].long()
    touched = (CutMix(0.3)(image, labels, chance())[1] != labels).flatten(1).any(dim=1).float().mean().item()
    whole = (CutMix(1.0)(image, labels, chance())[1] != labels).flatten(1).any(dim=1).float().mean().item()
    assert touched == pytest.approx(0.3 * whole, rel=0.12)
    assert torch.equal(CutMix(0.0)(image, labels, chance())[1], labels)


def test_noise_is_drawn_for_each_pixel_as_a_share_of_the_bands_deviation():
    image, labels = batch(samples=1, height=64, width=64)
    noise = Radiometric([1.0, 10.0, NAN], noise=0.2)(image, labels, chance())[0] - image
    deviation = noise.std(dim=(0, 2, 3))
    assert_close(deviation, torch.tensor([0.2, 2.0, 0.0]), rtol=0.06, atol=1e-6)


def test_light_leaves_labels_alone_and_follows_the_device(device):
    image, labels = (t.to(device) for t in batch())
    changed, same = Radiometric([1.0] * 3, gain=0.1, noise=0.1)(image, labels, chance())
    assert changed.device == image.device
    assert changed.dtype == torch.float32
    assert torch.equal(same, labels)


def test_steps_are_taken_in_order():
    def double(image, labels, _):
        return 2 * image, labels

    def increase(image, labels, _):
        return image + 1, labels + 1

    image, labels = batch()
    changed, raised = Compose([double, increase])(image, labels, chance())
    assert_close(changed, 2 * image + 1)
    assert torch.equal(raised, labels + 1)


TYPES = [BandType(), BandType("bitmask", bits=(3,)), BandType()]
STRENGTHS = {"gain": 0.2, "band_gain": 0.1, "offset": 0.1, "band_offset": 0.1, "noise": 0.1}


def test_codes_and_flags_keep_every_bit_and_quantities_are_lit_otherwise(device):
    image, labels = (t.to(device) for t in batch())
    image[:, 1] = torch.randint(2**24, image[:, 1].shape, generator=chance()).to(image)
    changed, _ = Radiometric([1.0, 20_000.0, 3.0], types=TYPES, **STRENGTHS)(image, labels, chance())
    assert torch.equal(changed[:, 1], image[:, 1])
    assert (changed[:, [0, 2]] != image[:, [0, 2]]).all()


def test_haze_is_measured_by_quantities_alone():
    image, labels = batch()
    image = image.double()
    shifts = [
        Radiometric([1.0, flags, 3.0], types=TYPES, offset=0.5)(image, labels, chance())[0] - image
        for flags in (0.0, 20_000.0, NAN)
    ]
    assert torch.equal(shifts[0], shifts[1])
    assert torch.equal(shifts[0], shifts[2])
    assert shifts[0][:, 1].abs().max() == 0


def test_a_batch_without_quantities_is_as_it_was():
    image, labels = batch()
    changed, _ = Radiometric([1.0] * 3, types=TYPES[1:2] * 3, **STRENGTHS)(image, labels, chance())
    assert torch.equal(changed, image)


def test_types_are_as_many_as_bands():
    with pytest.raises(ConfigError, match="2 bands have deviations, but 3 have types"):
        Radiometric([1.0, 2.0], types=TYPES)


@pytest.mark.parametrize("name", ["gain", "band_gain", "offset", "band_offset", "noise"])
@pytest.mark.parametrize("value", [-0.1, NAN, float("inf")])
def test_deviations_that_are_none_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} is a deviation"):
        Radiometric([1.0], **{name: value})
