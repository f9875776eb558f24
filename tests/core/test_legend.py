"""Codes, ids, names and colours of classes."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from geounet.core.legend import IGNORE, Legend, hex_color, parse_color
from geounet.errors import LegendError
from tests.strategies import legends


@given(legends(), st.data())
def test_codes_become_ids_and_ids_codes_again(legend, data):
    ids = data.draw(st.lists(st.sampled_from([*range(len(legend)), legend.ignore_index]), min_size=1, max_size=30))
    ids = np.array(ids, legend.id_dtype)
    codes = legend.decode(ids)
    assert codes.dtype == legend.dtype
    assert (codes[ids == legend.ignore_index] == legend.nodata).all()
    assert_array_equal(legend.encode(codes, ignore=[legend.nodata]), ids)


@given(legends())
def test_nodata_is_no_class_and_the_type_holds_it(legend):
    assert legend.nodata not in legend.codes
    info = np.iinfo(legend.dtype)
    assert all(info.min <= code <= info.max for code in (*legend.codes, legend.nodata))


@pytest.mark.parametrize(
    ("codes", "dtype", "nodata"),
    [
        ([0, 1], "uint8", 255),
        ([0, 254], "uint8", 255),
        ([0, 255], "uint16", 65535),
        ([11, 65534], "uint16", 65535),
        ([-1, 3], "int16", -32768),
        ([0, 65535], "int32", -(2**31)),
        ([-40000, 7], "int32", -(2**31)),
    ],
)
def test_masks_have_the_smallest_type_with_a_code_to_spare(codes, dtype, nodata):
    legend = Legend.of({code: str(code) for code in codes})
    assert (legend.dtype, legend.nodata) == (np.dtype(dtype), nodata)


@pytest.mark.parametrize(
    ("classes", "dtype", "ignore"), [(2, "uint8", 255), (255, "uint8", 255), (256, "uint16", 65535)]
)
def test_ids_are_bytes_until_there_are_too_many_classes(classes, dtype, ignore):
    legend = Legend.of([f"class {i}" for i in range(classes)])
    assert (legend.id_dtype, legend.ignore_index) == (np.dtype(dtype), ignore)
    every = np.arange(classes)
    assert_array_equal(legend.encode(every), every)


def test_ids_follow_the_order_given():
    legend = Legend.of({80: "water", 10: "trees"})
    assert legend.names == ("water", "trees")
    assert legend.encode(np.array([[10, 80], [80, 10]])).tolist() == [[1, 0], [0, 1]]


def test_floats_that_hold_codes_are_codes_and_nan_is_no_class():
    legend = Legend.of(["land", "water"])
    assert legend.encode(np.array([0.0, 1.0, np.nan, np.nan])).tolist() == [0, 1, IGNORE, IGNORE]
    with pytest.raises(LegendError, match=r"class code 0\.5"):
        legend.encode(np.array([0.5]))


def test_an_unknown_code_is_named_with_its_source_or_left_out():
    legend = Legend.of({10: "trees", 80: "water"})
    with pytest.raises(LegendError, match=r"a\.tif has the class code 7, 9, which .* \(10 trees, 80 water\)"):
        legend.encode(np.array([10, 9, 7, 80]), source="a.tif")
    assert legend.encode(np.array([10, 7]), unknown="ignore").tolist() == [0, IGNORE]
    assert legend.encode(np.array([10, 7]), ignore=[7]).tolist() == [0, IGNORE]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({}, "from 1 to 65534 classes, not 0"),
        ({0: "a", 1: "a"}, "class name a is given more than once"),
        ({0.5: "half"}, r"0\.5 \(half\) is not a whole number"),
        ({True: "yes"}, "is not a whole number"),
    ],
)
def test_legends_that_make_no_sense_are_refused(names, said):
    with pytest.raises(LegendError, match=said):
        Legend.of(names)


def test_codes_beyond_32_bits_are_refused_when_a_mask_is_to_hold_them():
    with pytest.raises(LegendError, match=r"do not fit a 32-bit integer"):
        _ = Legend.of({2**40: "far"}).dtype


@given(legends(most=20))
def test_a_legend_survives_json(legend):
    assert Legend.from_dicts(json.loads(json.dumps(legend.to_dicts()))) == legend


@pytest.mark.parametrize("rows", [[{"code": 1}], [{"id": 0, "code": "x", "name": "a", "color": [0, 0, 0]}], [None]])
def test_damaged_classes_are_refused(rows):
    with pytest.raises(LegendError, match=r"classes need id, code, name and color"):
        Legend.from_dicts(rows)


@pytest.mark.parametrize("ids", [(1, 0), (1, 2), (0, 0), (0, 2), ("0", "1")])
def test_classes_whose_ids_do_not_count_from_0_in_order_are_refused(ids):
    rows = [row | {"id": i} for row, i in zip(Legend.of(["land", "water"]).to_dicts(), ids, strict=True)]
    with pytest.raises(LegendError, match=rf"count from 0 in order; found {ids[0]}, {ids[1]}\."):
        Legend.from_dicts(rows)


def test_a_legend_of_very_many_classes_is_made_in_well_under_a_second():
    names = [f"class {i}" for i in range(65_000)]
    began = time.perf_counter()
    assert len(Legend.of(names)) == 65_000
    with pytest.raises(LegendError, match=r"class name class 7 is given more than once"):
        Legend.of([*names, "class 7"])
    assert time.perf_counter() - began < 5  # two legends; pair by pair it took a minute


@pytest.mark.parametrize("code", [1_234_567, -7_654_321, 2**31])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_an_unknown_code_is_shown_to_its_last_digit(code, dtype):
    with pytest.raises(LegendError, match=rf"labels has the class code {code}, which"):
        Legend.of(["land"]).encode(np.array([code], dtype))


def test_the_refusal_of_an_unknown_code_is_short_whatever_the_legend():
    with pytest.raises(LegendError) as refused:
        Legend.of([f"class {i}" for i in range(1000)]).encode(np.arange(1000, 1100))
    assert len(str(refused.value)) < 500


def test_colours_are_given_by_code_or_name_known_or_spread():
    legend = Legend.of({1: "Water", 5: "left", 6: "right", 7: "odd"}, {5: "#ff8000", "right": (1, 2, 3)})
    colors = [info.color for info in legend.classes]
    assert colors[:3] == [(38, 115, 178), (255, 128, 0), (1, 2, 3)]
    assert all(0 <= value <= 255 for value in colors[3])
    many = Legend.of([f"class {i}" for i in range(40)])
    assert len({info.color for info in many.classes}) == 40


@pytest.mark.parametrize("colour", ["#ff80", "orange", (1, 2), (1, 2, 300), 5])
def test_a_colour_that_is_none_is_refused(colour):
    with pytest.raises(LegendError, match=r"colour .* is not"):
        Legend.of(["a"], {0: colour})


@given(legends(most=12, low=-100, high=100), st.sampled_from(["int8", "int16", "uint8", "uint16"]), st.data())
def test_small_types_are_encoded_as_large_ones_are(legend, dtype, data):
    low = 0 if dtype.startswith("u") else -100
    codes = data.draw(arrays(dtype, st.tuples(st.integers(0, 6), st.integers(1, 6)), elements=st.integers(low, 100)))
    found = legend.encode(codes, unknown="ignore")
    assert_array_equal(found, legend.encode(codes.astype(np.int64), unknown="ignore"))
    assert found.dtype == legend.id_dtype
    assert found.shape == codes.shape


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_colour_is_written_and_read_back(color):
    assert parse_color(hex_color(color)) == parse_color(color) == color
