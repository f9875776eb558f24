import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from geounet.core.bandtypes import BandType
from geounet.core.legend import IGNORE
from geounet.errors import ConfigError
from geounet.nn.augment import Affine, Compose, Elastic, FlipsAndTurns, Warp, resample
from geounet.nn.augment.warping import moved, smooth_noise

NAN, INF = float("nan"), float("inf")
TYPED = [BandType("categorical", codes=(10, 20)), BandType("bitmask", bits=(3,)), BandType("cyclic", period=360)]
EVERYTHING = [Affine(scale=0.5, rotation=180, translation=0.3, shear=20), Elastic(2.0, 4.0)]


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(samples=2, bands=3, height=9, width=9, seed=0):
    image = torch.rand(samples, bands, height, width, generator=chance(seed)) * 5000 - 1000
    return image, torch.randint(4, (samples, height, width), generator=chance(seed))


def still(samples, height, width):
    axes = torch.arange(height).float(), torch.arange(width).float()
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).repeat(samples, 1, 1, 1)


def motion(places, *, factor=1.0, degrees=0.0, down=0.0, right=0.0, slant=0.0):
    factor, degrees, down, right, slant = (
        torch.full((len(places),), float(v), dtype=torch.float64) for v in (factor, degrees, down, right, slant)
    )
    size = (places.shape[2], places.shape[3])
    return moved(places, size, factor=factor, degrees=degrees, shift=torch.stack([down, right], dim=1), slant=slant)


def same(one, two):
    assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def by_hand(image, labels, places, typed):
    """What `resample` promises, pixel by pixel, with nothing beyond the edges."""
    (bands, height, width), out = image.shape, places.shape[1:]
    picture, classes = torch.full((bands, *out), NAN, dtype=torch.float64), torch.full(out, IGNORE)
    for r in range(out[0]):
        for c in range(out[1]):
            row, col = places[:, r, c].tolist()
            near = math.floor(row + 0.5), math.floor(col + 0.5)
            if not (0 <= near[0] < height and 0 <= near[1] < width):
                continue
            classes[r, c] = labels[near]
            for band in range(bands):
                if not math.isfinite(image[band][near]):
                    continue
                total, weight = 0.0, 0.0
                for y in (math.floor(row), math.floor(row) + 1):
                    for x in (math.floor(col), math.floor(col) + 1):
                        if 0 <= y < height and 0 <= x < width and math.isfinite(image[band, y, x]):
                            share = (1 - abs(row - y)) * (1 - abs(col - x))
                            total, weight = total + share * image[band, y, x].item(), weight + share
                picture[band, r, c] = image[band][near] if typed[band] else total / weight
    return picture.float(), classes


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 2**20),
    st.floats(0, 1),
    st.lists(st.booleans(), min_size=2, max_size=2),
)
def test_every_pixel_is_what_the_rule_says(height, width, seed, holes, typed):
    image, labels = batch(samples=1, bands=2, height=height, width=width, seed=seed)
    image[torch.rand(image.shape, generator=chance(seed + 1)) < holes] = NAN
    places = torch.rand(1, 2, 4, 3, generator=chance(seed + 2)) * 8 - 2
    types = [BandType("cyclic", period=360) if one else BandType() for one in typed]
    found, classes = resample(image, labels, places, types=types)
    picture, expected = by_hand(image[0], labels[0], places[0], typed)
    assert_close(found[0], picture, equal_nan=True, rtol=1e-4, atol=0.05)
    assert torch.equal(classes[0], expected)


def test_beyond_a_mirrored_edge_stands_what_torch_says(device):
    image, labels = (t.to(device) for t in batch(height=7, width=5))
    places = torch.rand(2, 2, 20, 20, generator=chance()).to(device) * 30 - 12
    found, _ = resample(image, labels, places, outside="reflect")
    grid = torch.stack([places[:, 1] / 2 - 1, places[:, 0] / 3 - 1], dim=-1)
    oracle = functional.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    assert_close(found, oracle, rtol=1e-4, atol=0.1)


def test_a_mirror_as_deep_as_the_chip_is_torchs_reflection_pad():
    image, labels = batch(height=6, width=4)
    places = still(2, 16, 10) - torch.tensor([5.0, 3.0]).view(1, 2, 1, 1)
    found, classes = resample(image, labels, places, outside="reflect")
    same(found, functional.pad(image, (3, 3, 5, 5), mode="reflect"))
    same(classes.float(), functional.pad(labels.float(), (3, 3, 5, 5), mode="reflect"))


@pytest.mark.parametrize(("outside", "beyond", "mark"), [("nodata", NAN, IGNORE), ("reflect", 7.0, 3)])
def test_a_chip_of_one_pixel_is_that_pixel_alone(outside, beyond, mark):
    places = torch.tensor([[[0.4, 2.0]], [[0.0, 0.0]]]).unsqueeze(0)
    found, classes = resample(torch.full((1, 1, 1, 1), 7.0), torch.full((1, 1, 1), 3), places, outside=outside)
    same(found.flatten(), torch.tensor([7.0, beyond]))
    assert classes.flatten().tolist() == [3, mark]


@pytest.mark.parametrize("turns", range(-4, 5))
@pytest.mark.parametrize("side", [6, 7])
def test_a_turn_by_right_angles_is_torchs_own_to_the_bit(turns, side, device):
    image, labels = (t.to(device) for t in batch(height=side, width=side))
    places = motion(still(2, side, side), degrees=90 * turns).to(device)
    found, classes = resample(image, labels, places)
    assert torch.equal(found, image.rot90(turns, (-2, -1)))
    assert torch.equal(classes, labels.rot90(turns, (-2, -1)))


@pytest.mark.parametrize(("down", "right"), [(2, 0), (0, -3), (-4, 1), (8, 8)])
def test_a_shift_by_whole_pixels_is_a_slice_and_nothing_beside_it(down, right):
    image, labels = batch()
    found, classes = resample(image, labels, motion(still(2, 9, 9), down=down, right=right))
    to = slice(max(down, 0), 9 + min(down, 0)), slice(max(right, 0), 9 + min(right, 0))
    come = slice(max(-down, 0), 9 - max(down, 0)), slice(max(-right, 0), 9 - max(right, 0))
    expected, marks = torch.full_like(image, NAN), torch.full_like(labels, IGNORE)
    expected[..., to[0], to[1]] = image[..., come[0], come[1]]
    marks[..., to[0], to[1]] = labels[..., come[0], come[1]]
    same(found, expected)
    assert torch.equal(classes, marks)


def test_twice_as_large_is_each_pixel_and_the_means_between():
    image = torch.tensor([[0.0, 8.0, 4.0]]).expand(1, 1, 3, 3)
    found, classes = resample(image, image[:, 0].long(), motion(still(1, 3, 3), factor=2))
    same(found[0, 0], torch.tensor([[4.0, 8.0, 6.0]]).expand(3, 3))  # at columns ½, 1, 1½
    assert classes[0, 0].tolist() == [8, 8, 4]


def test_slanted_columns_go_right_below_the_centre_and_left_above():
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2] = 1
    found, _ = resample(image, image[:, 0].long(), motion(still(1, 5, 5), slant=1))
    assert torch.nonzero(found[0, 0] == 1).tolist() == [[n, n] for n in range(5)]


def test_a_marker_comes_to_the_place_that_trigonometry_says():
    image, labels = torch.zeros(1, 1, 41, 41), torch.zeros(1, 41, 41, dtype=torch.int64)
    labels[0, 19:22, 29:32] = 1  # 10 pixels right of the centre
    image[0, 0] = labels[0]
    places = motion(still(1, 41, 41), factor=1.5, degrees=30, down=4, right=-5)
    found, classes = resample(image, labels, places, outside="reflect")
    where = torch.nonzero(classes[0] == 1).float().mean(dim=0)
    light = (found[0] * still(1, 41, 41)[0]).sum(dim=(1, 2)) / found.sum()
    expected = torch.tensor([20 + 4 - 15 * math.sin(math.pi / 6), 20 - 5 + 15 * math.cos(math.pi / 6)])
    assert_close(where, expected, rtol=0, atol=0.1)
    assert_close(light, expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("outside", ["nodata", "reflect"])
@pytest.mark.parametrize(
    "motions",
    [[], [Affine()], [Elastic(0.0, 3.0)], [Affine(), Elastic(0.0, 3.0)]],
    ids=["none", "affine", "elastic", "both"],
)
def test_what_stands_still_is_as_it_was_to_the_bit(motions, outside, device):
    image, labels = (t.to(device) for t in batch())
    image[0, :, 2, 3], image[1, 1, 4:] = NAN, NAN
    found, classes = Warp(motions, outside=outside)(image, labels, chance())
    same(found, image)
    assert torch.equal(classes, labels)


@pytest.mark.parametrize("outside", ["nodata", "reflect"])
def test_labels_move_with_their_pixels_and_classes_stay_a_set(outside, device):
    image, labels = batch(samples=6, height=20, width=14)
    labels[0, :3] = IGNORE
    image[:, 1] = labels.float()  # a band of codes, which has to go where the labels go
    types = [BandType(), TYPED[0], BandType()]
    before = image.clone(), labels.clone()
    warp = Warp(EVERYTHING, types=types, outside=outside)
    found, classes = warp(image.to(device), labels.to(device), chance())
    assert torch.equal(image, before[0])
    assert torch.equal(labels, before[1])
    assert found.device.type == classes.device.type == device
    seen = found[:, 1].isfinite()
    assert torch.equal(found[:, 1][seen].long(), classes[seen])
    assert (classes[~seen] == IGNORE).all()
    assert bool(seen.all()) == (outside == "reflect")
    assert set(classes.unique().tolist()) <= {0, 1, 2, 3, IGNORE}
    assert (classes.cpu() != labels).any(dim=(1, 2)).all()


def test_codes_flags_and_angles_keep_their_values_and_quantities_their_range(device):
    image, labels = batch(samples=4, bands=4, height=16, width=16)
    image[:, 0] = torch.tensor([10.0, 20.0])[torch.randint(2, image[:, 0].shape, generator=chance())]
    image[:, 1] = torch.randint(2**24, image[:, 1].shape, generator=chance()).float()
    image[:, 2] = torch.tensor([0.0, 359.0])[torch.randint(2, image[:, 2].shape, generator=chance())]
    found, _ = Warp(EVERYTHING, types=[*TYPED, BandType()])(image.to(device), labels.to(device), chance())
    for band in range(3):
        values = found[:, band][found[:, band].isfinite()]
        assert torch.isin(values.cpu(), image[:, band].unique()).all()
        assert len(values) > 500
    quantity = found[:, 3][found[:, 3].isfinite()]
    assert image[:, 3].min() - 0.01 <= quantity.min()
    assert quantity.max() <= image[:, 3].max() + 0.01
    assert not torch.isin(quantity.cpu(), image[:, 3].unique()).any()  # it was interpolated


@pytest.mark.parametrize("hole", [NAN, INF, -INF])
def test_no_data_goes_with_the_nearest_pixel_and_spreads_nowhere(hole):
    image, labels = torch.full((1, 2, 12, 12), 500.0), torch.ones(1, 12, 12, dtype=torch.int64)
    image[0, 0, 3:8, 4:9] = hole
    labels[0, 3:8, 4:9] = IGNORE
    found, classes = Warp(EVERYTHING, outside="reflect")(image, labels, chance(3))
    assert torch.equal(found[:, 0].isnan(), classes == IGNORE)
    assert 0 < found[:, 0].isnan().sum() < 144
    assert_close(found[:, 0][classes != IGNORE], torch.tensor(500.0).expand(int((classes != IGNORE).sum())))
    assert_close(found[:, 1], image[:, 1])  # the other band knows nothing of it


@given(st.integers(0, 2**20), st.floats(-1e4, 1e4, width=32, allow_subnormal=False))
def test_a_constant_stays_constant_however_it_is_bent(seed, value):
    image, labels = torch.full((2, 1, 10, 8), value), torch.zeros(2, 10, 8, dtype=torch.int64)
    image[torch.rand(image.shape, generator=chance(seed)) < 0.2] = NAN
    found, _ = Warp(EVERYTHING)(image, labels, chance(seed))
    seen = found[found.isfinite()]
    assert_close(seen, torch.full_like(seen, value), rtol=1e-6, atol=0)


def test_equal_seeds_bend_alike_and_the_global_chance_is_left_alone():
    before = torch.random.get_rng_state()
    image, labels = batch(samples=4)
    one, two, three = (Warp(EVERYTHING)(image, labels, chance(seed)) for seed in (1, 1, 2))
    same(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], three[1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_sample_moves_on_its_own():
    image, labels = (t.expand(5, *t.shape[1:]) for t in batch(samples=1))
    found, _ = Warp(EVERYTHING, outside="reflect")(image, labels, chance())
    assert len({tuple(sample.flatten().tolist()) for sample in found}) == 5


def test_as_many_samples_are_warped_as_asked_for_and_the_rest_stay_sharp():
    image, labels = (t.expand(2000, *t.shape[1:]) for t in batch(samples=1, bands=1, height=4, width=4))
    found, _ = Warp([Affine(rotation=40)], share=0.3, outside="reflect")(image, labels, chance())
    warped = (found != image).flatten(1).any(dim=1).float().mean().item()
    assert warped == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 2000))
    same(Warp(EVERYTHING, share=0.0)(image, labels, chance())[0], image)


def test_motions_move_the_picture_in_the_order_given():
    def right_by_one(places, *_):
        return motion(places, right=1)

    def quarter_turn(places, *_):
        return motion(places, degrees=90)

    image, labels = batch(samples=1, height=5, width=5)
    found, classes = Warp([right_by_one, quarter_turn], outside="nodata")(image, labels, chance())
    shifted = torch.cat([torch.full((1, 3, 5, 1), NAN), image[..., :-1]], dim=-1)
    same(found, shifted.rot90(1, (-2, -1)))
    assert (classes[0, -1] == IGNORE).all()


@pytest.mark.parametrize(
    ("options", "measure", "low", "high"),
    [
        pytest.param({"scale": 0.5}, lambda m: m.det().sqrt(), 2 / 3, 3 / 2, id="lengths, from 1/1.5 to 1.5"),
        pytest.param(
            {"rotation": 30}, lambda m: torch.rad2deg(torch.atan2(m[:, 1, 0], m[:, 0, 0])), -30, 30, id="turn"
        ),
        pytest.param({"shear": 45}, lambda m: torch.rad2deg(torch.atan(m[:, 1, 0])), -45, 45, id="slant"),
    ],
)
def test_strengths_are_the_ends_of_what_is_drawn(options, measure, low, high):
    """The linear part is read off three pixels: the origin, one row further, one column further."""
    corner = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]).view(1, 2, 2, 2).expand(4000, 2, 2, 2)
    places = Affine(**options)(corner, (2, 2), chance())
    back = torch.stack([places[:, :, 1, 0] - places[:, :, 0, 0], places[:, :, 0, 1] - places[:, :, 0, 0]], dim=2)
    found = measure(torch.linalg.inv(back))
    assert low - 1e-3 <= found.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < found.max() <= high + 1e-3


def test_a_shift_is_a_share_of_each_side():
    places = Affine(translation=0.25)(still(4000, 4, 8), (4, 8), chance())
    shift = (still(1, 4, 8) - places)[:, :, 0, 0]
    assert_close(shift.amax(dim=0), torch.tensor([1.0, 2.0]), rtol=0, atol=0.02)
    assert_close(shift.amin(dim=0), torch.tensor([-1.0, -2.0]), rtol=0, atol=0.02)
    assert_close(shift.mean(dim=0), torch.zeros(2), rtol=0, atol=5 * 2 / math.sqrt(3 * 4000))


@pytest.mark.parametrize(("sigma", "apart"), [(1.0, 1), (3.0, 5), (12.0, 12)])
def test_displacements_have_the_deviation_and_the_reach_asked_for(sigma, apart):
    field = smooth_noise(4000, 1, (24, 5), sigma, chance())[:, 0].double()
    deviation = field.square().mean(dim=0).sqrt()
    assert_close(deviation, torch.ones_like(deviation), rtol=0, atol=5 / math.sqrt(2 * 4000))
    assert field.mean(dim=0).abs().max() < 5 / math.sqrt(4000)
    together = (field[:, 0] * field[:, apart]).mean(dim=0)[0].item()
    assert together == pytest.approx(math.exp(-(apart**2) / (4 * sigma**2)), abs=5 * math.sqrt(2 / 4000))


def test_a_sheet_is_bent_along_both_axes_apart_by_alpha_pixels():
    bent = Elastic(3.0, 2.0)(still(3000, 4, 4), (4, 4), chance()) - still(1, 4, 4)
    first = bent[:, :, 0, 0]
    assert_close(first.std(dim=0), torch.tensor([3.0, 3.0]), rtol=5 / math.sqrt(6000), atol=0)
    assert abs(torch.corrcoef(first.T)[0, 1].item()) < 5 / math.sqrt(3000)


def test_under_autocast_displacements_are_as_fine_as_without():
    plain = Elastic(3.0, 4.0)(still(2, 16, 16), (16, 16), chance())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = Elastic(3.0, 4.0)(still(2, 16, 16), (16, 16), chance())
    assert torch.equal(mixed, plain)


def test_a_warp_stands_in_a_chain_with_the_others():
    image, labels = batch(samples=3)
    found, classes = Compose([FlipsAndTurns(), Warp(EVERYTHING)])(image, labels, chance())
    assert found.shape == image.shape
    assert torch.equal(found.isnan().all(dim=1), classes == IGNORE)


def test_another_ignored_label_marks_what_comes_from_outside():
    image, labels = batch()
    _, classes = Warp([Affine(translation=1.0)], ignore_index=-100)(image, labels, chance())
    assert (classes == -100).any()
    assert not (classes == IGNORE).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(scale=-0.1), "scale of an affine motion"),
        (lambda: Affine(scale=INF), "scale of an affine motion"),
        (lambda: Affine(rotation=NAN), "rotation of an affine motion"),
        (lambda: Affine(translation=1.5), "translation is a share"),
        (lambda: Affine(translation=-0.1), "translation is a share"),
        (lambda: Affine(shear=90), "shear is in degrees"),
        (lambda: Elastic(-1.0, 4.0), "alpha of an elastic motion"),
        (lambda: Elastic(INF, 4.0), "alpha of an elastic motion"),
        (lambda: Elastic(1.0, 0.5), "sigma of an elastic motion"),
        (lambda: Elastic(1.0, NAN), "sigma of an elastic motion"),
        (lambda: Warp([], share=1.1), "the share of samples to warp"),
        (lambda: Warp([], outside="zeros"), "nodata or reflect, not 'zeros'"),
    ],
)
def test_strengths_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_types_are_as_many_as_the_images_bands():
    with pytest.raises(ConfigError, match="the image has 3 bands, but 2 have types"):
        Warp([Affine()], types=TYPED[:2])(*batch(), chance())
