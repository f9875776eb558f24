"""What the numbers of a band mean: codes, flags, angles or quantities."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geounet.core.bandtypes import MOST_CODES, BandType
from geounet.errors import ConfigError

CODES = st.lists(st.integers(-(2**24) + 1, 2**24 - 1), unique=True, max_size=12).map(tuple)
BITS = st.lists(st.integers(0, 23), unique=True).map(tuple)
TYPES = st.one_of(
    st.just(BandType()),
    CODES.map(lambda codes: BandType("categorical", codes=codes)),
    BITS.map(lambda bits: BandType("bitmask", bits=bits)),
    st.floats(1e-6, 1e6).map(lambda period: BandType("cyclic", period=period)),
)


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        (BandType(), 1),
        (BandType("categorical", codes=(10, 20, 80)), 3),
        (BandType("bitmask", bits=(3, 4)), 2),
        (BandType("cyclic", period=360), 2),
        (BandType("categorical"), 0),
        (BandType("bitmask"), 0),
    ],
)
def test_each_kind_has_its_channels(kind, channels):
    assert kind.channels == channels
    assert kind.complete == (channels > 0)


@given(TYPES)
def test_a_type_comes_back_from_json(kind):
    assert BandType.of(json.loads(json.dumps(kind.to_dict()))) == kind
    assert BandType.of(kind) is kind


def test_a_kind_alone_is_a_type():
    assert BandType.of("categorical") == BandType("categorical")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "ordinal"}, "one of continuous, categorical, bitmask, cyclic, not 'ordinal'"),
        ({"kind": ["cyclic"]}, r"not \['cyclic'\]"),
        ({"codes": [1]}, "a band with codes is categorical, but the kind given is continuous"),
        ({"kind": "categorical", "bits": [1]}, "a band with bits is bitmask"),
        ({"kind": "bitmask", "codes": [1]}, "a band with codes is categorical"),
        ({"kind": "categorical", "period": 3.0}, "a band with period is cyclic"),
        ({"kind": "cyclic"}, "a period above 0.*found None"),
        ({"kind": "cyclic", "period": 0}, "found 0"),
        ({"kind": "cyclic", "period": float("nan")}, "found nan"),
        ({"kind": "cyclic", "period": True}, "found True"),
        ({"kind": "cyclic", "period": "360"}, "found '360'"),
        ({"kind": "categorical", "codes": [1, 2, 1]}, "code 1 is given more than once"),
        ({"kind": "categorical", "codes": [1.5]}, r"codes are a list of whole numbers, not \[1.5\]"),
        ({"kind": "categorical", "codes": [True]}, "whole numbers"),
        ({"kind": "categorical", "codes": 7}, "whole numbers, not 7"),
        ({"kind": "categorical", "codes": "12"}, "whole numbers, not '12'"),
        ({"kind": "categorical", "codes": [2**24]}, "16777216 is not within -16777215 to 16777215.*float32"),
        ({"kind": "categorical", "codes": [-(2**24)]}, "float32"),
        ({"kind": "bitmask", "bits": [24]}, "bit 24 is not within 0 to 23.*float32"),
        ({"kind": "bitmask", "bits": [-1]}, "bit -1"),
        ({"kind": "bitmask", "bits": [3, 3]}, "bit 3 is given more than once"),
        ({"kind": "bitmask", "flags": [3]}, "kind, codes, bits and period, but not flags"),
        (3, "a kind or a mapping with one, not 3"),
    ],
)
def test_what_is_no_type_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        BandType.of(given)


@given(st.sets(st.integers(-(2**24) + 1, 2**24 - 1), min_size=1, max_size=MOST_CODES))
def test_the_codes_are_those_seen_in_ascending_order(values):
    assert BandType("categorical").with_codes(values).codes == tuple(sorted(values))
    assert BandType("categorical").with_codes(np.array(list(values), np.float32)).codes == tuple(sorted(values))


@given(st.sets(st.integers(0, 2**24 - 1), min_size=2, max_size=20))
def test_the_bits_are_those_that_are_set_in_some_values_and_not_in_all(values):
    expected = [bit for bit in range(24) if len({value >> bit & 1 for value in values}) == 2]
    assert BandType("bitmask").with_codes(values).bits == tuple(expected)


@given(st.sets(st.integers(0, 2**16 - 1), min_size=2, max_size=20))
@example({0, 49152})
def test_flags_in_a_signed_type_have_the_bits_they_have_in_an_unsigned_one(words):
    unsigned = np.array([*words, 2**15], np.uint16)  # the sign alone: -32768
    found = [BandType("bitmask").with_codes(values).bits for values in (unsigned, unsigned.view(np.int16))]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["categorical", "bitmask"])
def test_what_is_given_is_not_changed_by_what_is_seen(kind):
    given = BandType(kind, **({"codes": (7, 3)} if kind == "categorical" else {"bits": (7, 3)}))
    assert given.with_codes([1, 2, 3]) is given
    assert given.with_codes([]) is given


@pytest.mark.parametrize("kind", [BandType(), BandType("cyclic", period=360)])
def test_quantities_and_angles_have_no_codes(kind):
    assert kind.with_codes([0.5, 1.5]) is kind


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("categorical", [], "qa has no valid pixel"),
        ("bitmask", [], "qa has no valid pixel"),
        ("categorical", [1, 0.5], "qa holds 0.5.*its type is continuous"),
        ("categorical", [1, float("nan")], "qa holds nan"),
        ("bitmask", [1, float("inf")], "qa holds inf"),
        ("categorical", range(65), "qa has 65 different values .0, 1, 2, 3, 4, 5, ….*the 64.*Name the codes"),
        ("categorical", [1, 2**24], "qa holds 16777216.*float32"),
        ("bitmask", [1, 2**31], "qa holds 2147483648.*float32"),
        ("bitmask", [21824], "qa has the value 21824 throughout training"),
    ],
)
def test_values_that_cannot_be_codes_are_refused(kind, values, said):
    with pytest.raises(ConfigError, match=said):
        BandType(kind).with_codes(values, "qa")


def test_given_bits_do_not_save_values_that_float32_has_rounded():
    with pytest.raises(ConfigError, match="qa holds 2147483648"):
        BandType("bitmask", bits=(0, 1)).with_codes([2**31], "qa")


def test_a_type_says_in_words_what_it_is():
    kinds = [
        BandType(), BandType("categorical", codes=(10, 20)), BandType("bitmask", bits=(3, 4)),
        BandType("cyclic", period=365.25), BandType("categorical"),
    ]  # fmt: skip
    assert [str(kind) for kind in kinds] == [
        "continuous", "categorical, codes 10, 20", "bitmask, bits 3, 4", "cyclic, period 365.25",
        "categorical, codes not known yet",
    ]  # fmt: skip
