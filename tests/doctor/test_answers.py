"""The best rule on one band is the best of all there are, tried one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geounet.doctor.answers import Rule, _best, facts, told


def iou(said, true):
    return np.count_nonzero(said & true) / max(np.count_nonzero(said | true), 1)


@given(arrays(np.float32, 30, elements=st.integers(-3, 3).map(float)), arrays(bool, 30).filter(np.any))
def test_best_rule_of_an_amount_is_that_of_brute_force(values, true):
    values[:2] = -3, 3  # so that there is something to part
    low, high = values.min(), values.max()
    cuts = [cut for cut in np.arange(-2.5, 3) if low < cut < high]
    said = [values < cut for cut in cuts] + [values > cut for cut in cuts] + [values == one for one in range(-3, 4)]
    found = _best("water", "nir", values, true, continuous=True)
    assert found.iou == pytest.approx(max(iou(one, true) for one in said))
    assert found.guess == true.mean()


def test_best_bit_of_a_word_is_found_whatever_the_other_bits():
    rng = np.random.default_rng(0)
    true = rng.random(1000) < 0.3
    word = (rng.integers(0, 8, 1000) + 16 * ~true).astype(np.float32)
    found = _best("water", "qa", word, true, continuous=False)
    assert (found.rule, found.iou) == ("qa bit 4 = 0", 1.0)


@pytest.mark.parametrize(
    ("iou", "guess", "sure"),
    [
        pytest.param(0.97, 0.2, True, id="(0.97 - 0.2) / 0.8 = 0.96"),
        pytest.param(0.95, 0.2, False, id="(0.95 - 0.2) / 0.8 = 0.94"),
        pytest.param(0.98, 0.98, False, id="a class on nearly all pixels"),
    ],
)
def test_a_rule_is_told_when_it_goes_most_of_the_way_from_a_guess(iou, guess, sure):
    rule = Rule("water", "nir", "nir < 5", iou, guess)
    assert bool(list(told([rule]))) == sure


def test_facts_hold_the_best_band_of_each_class():
    rules = [Rule("water", "red", "red < 1", 0.5, 0.2), Rule("water", "nir", "nir < 5", 0.7, 0.2)]
    assert facts(rules) == {"water": {"rule": "nir < 5", "iou": 0.7, "guess": 0.2}}
