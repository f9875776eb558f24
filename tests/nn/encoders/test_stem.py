import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from geounet.core.bands import WAVELENGTHS
from geounet.core.bandtypes import BandType
from geounet.nn.encoders import Share, channel_names, shares
from geounet.nn.encoders.stem import adapted
from geounet.nn.features import Features, encode

REFLECTED = sorted(name for name, light in WAVELENGTHS.items() if light < 3 and name != "cirrus")
S2 = ("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "cirrus", "swir1",
      "swir2")  # fmt: skip
LANDSAT = ("blue", "green", "red", "nir", "swir1", "swir2")


def plan(bands, sources):
    return shares(bands, sources, channels=len(bands), kernels=len(sources))


def names(least=1):
    return st.lists(st.sampled_from(REFLECTED), min_size=least, max_size=6, unique=True)


def test_bands_that_the_weights_know_take_their_kernels_whatever_the_order():
    assert plan(["blue", "red", "green"], ["red", "green", "blue"]) == tuple(
        Share(name, name, 1.0) for name in ("blue", "red", "green")
    )


def test_products_names_are_translated_before_they_are_compared():
    assert plan(["B04", "B08"], ["red", "nir"]) == (Share("red", "red", 1.0), Share("nir", "nir", 1.0))


@pytest.mark.parametrize(
    ("bands", "sources", "expected"),
    [
        pytest.param(
            ["red", "green", "blue", "nir"],
            ["red", "green", "blue"],
            [("red", "red", 0.5), ("green", "green", 1.0), ("blue", "blue", 1.0), ("nir", "red", 0.5)],
            id="beyond the last the last one's, shared: red and nir half each",
        ),
        pytest.param(
            ["yellow"],
            ["green", "red"],
            [("yellow", "green", 2 * 0.55), ("yellow", "red", 2 * 0.45)],
            id="yellow at 0.605 lies 45 % of the way from green at 0.56 to red at 0.66",
        ),
        pytest.param(
            ["green", "yellow", "red"],
            ["green", "red"],
            [("green", "green", 1 / 1.55), ("yellow", "green", 0.55 / 1.55), ("yellow", "red", 0.45 / 1.45),
             ("red", "red", 1 / 1.45)],
            id="shared in proportion, and nothing is lost",
        ),
        pytest.param(
            ["red", "nir"],
            ["red", "nir", "swir1", "swir2"],
            [("red", "red", 2.0), ("nir", "nir", 2.0)],
            id="two kernels of four are left: twice each",
        ),
        pytest.param(
            ["red", "elevation", "red|nir"],
            ["red"],
            [("red", "red", 1.0), ("elevation", None, 0.0), ("red|nir", None, 0.0)],
            id="what is no light starts from zero",
        ),
        pytest.param(
            ["red", "thermal", "cirrus"],
            ["red"],
            [("red", "red", 1.0), ("thermal", None, 0.0), ("cirrus", None, 0.0)],
            id="emitted light and cirrus are no neighbours of red",
        ),
        pytest.param(
            ["thermal2", "red"],
            ["red", "thermal"],
            [("thermal2", "thermal", 1.0), ("red", "red", 1.0)],
            id="emitted light stands in for emitted light",
        ),
        pytest.param(["VV", "VH"], ["VH", "VV"], [("VV", "VV", 1.0), ("VH", "VH", 1.0)], id="radar by its own names"),
        pytest.param(
            ["band_1", "band_2"], ["red", "nir"], [("band_1", "red", 1.0), ("band_2", "nir", 1.0)], id="no names: in order"
        ),
        pytest.param(
            ["band_1", "band_2"],
            ["red"],
            [("band_1", "red", 0.5), ("band_2", "red", 0.5)],
            id="no names, another number: evenly",
        ),
        pytest.param(
            ["slope", "aspect"],
            ["red", "green"],
            [("slope", "red", 0.5), ("slope", "green", 0.5), ("aspect", "red", 0.5), ("aspect", "green", 0.5)],
            id="nothing is related: evenly, and never in order against the names",
        ),
    ],
)  # fmt: skip
def test_kernels_go_where_worked_out_by_hand(bands, sources, expected):
    found = plan(bands, sources)
    assert [share[:2] for share in found] == [row[:2] for row in expected]
    assert [share.weight for share in found] == pytest.approx([row[2] for row in expected])


def test_six_of_sentinel_2s_thirteen_bands_take_their_kernels_alone():
    assert plan(LANDSAT, S2) == tuple(Share(name, name, 13 / 6) for name in LANDSAT)


def test_weights_that_do_not_name_their_bands_are_taken_in_order_if_they_are_as_many():
    assert [share.source for share in shares(["red", "nir"], None, channels=2, kernels=2)] == ["band_1", "band_2"]
    assert {share.weight for share in shares(["red", "nir"], None, channels=2, kernels=3)} == {0.5}


@given(names(), names())
def test_weights_add_up_to_the_number_of_kernels(bands, sources):
    assert sum(share.weight for share in plan(bands, sources)) == pytest.approx(len(sources))


@given(names(), st.data())
def test_where_no_known_band_is_missing_a_grey_image_draws_the_answer_it_drew(sources, data):
    more = data.draw(names(0))
    bands = data.draw(st.permutations(list(dict.fromkeys([*sources, *more, "elevation"]))))
    kernels = torch.randn(5, len(sources), 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = adapted(kernels, plan(bands, sources), bands, sources)
    assert_close(first.sum(1), kernels.sum(1))


@given(names(), names(), st.data())
def test_the_order_of_bands_does_not_matter(bands, sources, data):
    one = plan(bands, sources)
    two = plan(data.draw(st.permutations(bands)), data.draw(st.permutations(sources)))
    assert {s[:2]: pytest.approx(s.weight) for s in one} == {s[:2]: s.weight for s in two}


def test_a_first_layer_is_the_sum_of_its_shares():
    kernels = torch.tensor([[1.0, 10.0], [2.0, 20.0]]).view(2, 2, 1, 1)
    rows = (Share("a", "x", 0.5), Share("a", "y", 0.25), Share("b", None, 0.0), Share("c", "y", 2.0))
    first = adapted(kernels, rows, ("a", "b", "c"), ("x", "y"))
    assert first.view(2, 3).tolist() == [[3.0, 0.0, 20.0], [6.0, 0.0, 40.0]]


@pytest.mark.parametrize("differences", [False, True])
def test_channels_have_names_in_the_order_in_which_the_network_sees_them(differences):
    types = [BandType(), BandType("categorical", codes=(3, 7)), BandType(), BandType("cyclic", period=360.0)]
    features = Features(differences=differences)
    named = channel_names(["red", "cover", "nir", "aspect"], types, features)
    assert len(named) == features.channels(types)
    assert named[:6] == ("red", "cover[0]", "cover[1]", "nir", "aspect[0]", "aspect[1]")
    assert named[6:] == (("red|nir",) if differences else ())
    image = torch.tensor([5.0, 7.0, 6.0, 90.0]).view(1, 4, 1, 1)
    seen = dict(zip(named, encode(image, types).flatten().tolist(), strict=False))
    assert seen == pytest.approx(
        {"red": 5.0, "cover[0]": 0.0, "cover[1]": 1.0, "nir": 6.0, "aspect[0]": 1.0, "aspect[1]": 0.0}, abs=1e-6
    )
