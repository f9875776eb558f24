"""Learning rates are torch's own, or those of the papers, step by step."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.optim.lr_scheduler import OneCycleLR, PolynomialLR, ReduceLROnPlateau

from geounet.errors import ConfigError
from geounet.training import Fitting
from geounet.training.epochs.schedules import one_cycle, rate, schedulers
from geounet.training.options import checked

DECAYING = ("cosine", "poly")
KNOWN = (*DECAYING, "one-cycle", "constant")


def optimizer(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.AdamW(groups)


def rates(adam, schedule, count):
    """Learning rate of each group at each of so many steps."""
    found = [[group["lr"] for group in adam.param_groups]]
    for _ in range(count - 1):
        adam.step()
        schedule.step()
        found.append([group["lr"] for group in adam.param_groups])
    return np.array(found)


@given(steps=st.integers(2, 60), part=st.floats(0.05, 0.95))
def test_one_cycle_is_torchs(steps, part):
    assume(part * steps != 1)  # torch would divide by zero
    adam = optimizer(0.02)
    theirs = rates(adam, OneCycleLR(adam, 0.02, total_steps=steps, pct_start=part, cycle_momentum=False), steps)
    assert_allclose([[0.02 * one_cycle(step, part, steps)] for step in range(steps)], theirs, rtol=1e-9)


def test_one_cycle_is_torchs_own_if_nothing_else_is_said():
    ours, theirs = optimizer(0.1, 0.01), optimizer(0.1, 0.01)
    (one,) = schedulers(ours, Fitting(schedule="one-cycle"), 50)
    other = OneCycleLR(theirs, [0.1, 0.01], total_steps=50, cycle_momentum=False)
    assert one["interval"] == "step"
    assert_allclose(rates(ours, one["scheduler"], 50), rates(theirs, other, 50), rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", KNOWN)
def test_the_shortest_trainings_have_a_rate(schedule, part, steps):
    found = [rate(schedule, step, part, steps) for step in range(steps + 2)]
    assert all(0 <= one <= 1 for one in found)
    assert found[0] > 0


def test_poly_without_a_climb_is_torchs():
    adam = optimizer(0.02)
    theirs = rates(adam, PolynomialLR(adam, total_iters=29, power=0.9), 30)[:, 0]
    ours = [0.02 * rate("poly", step, 0, 30) for step in range(1, 31)]
    assert_allclose(ours, theirs, rtol=1e-9, atol=1e-18)


@given(st.sampled_from(KNOWN), st.integers(1, 200), st.floats(0, 1))
def test_a_rate_climbs_to_the_full_one_and_never_again(schedule, steps, part):
    found = np.array([rate(schedule, step, part, steps) for step in range(steps + 1)])
    top = int(found.argmax())
    assert (np.diff(found[: top + 1]) > 0).all()
    assert (np.diff(found[top:]) <= 0).all()
    assert found.max() <= 1
    if schedule != "one-cycle":
        assert found.max() == 1
        assert top == max(1, round(part * steps)) - 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        pytest.param("cosine", [1 / 3, 2 / 3, 1, 1, 0.75, 0.25, 0], id="cos 60° = 1/2"),
        pytest.param("poly", [1 / 3, 2 / 3, 1, 1, (2 / 3) ** 0.9, (1 / 3) ** 0.9, 0], id="thirds to the 0.9"),
        pytest.param("constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1], id="the full rate"),
    ],
)
def test_half_a_training_of_six_steps_climbs_and_half_decays(schedule, expected):
    assert_allclose([rate(schedule, step, 0.5, 6) for step in range(7)], expected, atol=1e-15)


def test_parts_of_a_network_keep_their_own_full_rates():
    adam = optimizer(1e-3, 1e-4)
    (schedule,) = schedulers(adam, Fitting(schedule="poly"), 40)
    found = rates(adam, schedule["scheduler"], 40)
    assert_allclose(found[:, 0], 10 * found[:, 1])
    assert found[3, 0] == 1e-3
    assert schedule["interval"] == "step"


def plateaus(scores, **options):
    """Learning rate in each epoch of ten steps, of 1 at most."""
    adam = optimizer(1.0)
    climb, fall = schedulers(adam, Fitting(schedule="plateau", warmup=0.2, **options), 10 * len(scores))
    assert (climb["interval"], fall["interval"], fall["monitor"]) == ("step", "epoch", "val_miou")
    found = []
    for score in scores:
        found.append(rates(adam, climb["scheduler"], 10)[:, 0])
        climb["scheduler"].step()
        fall["scheduler"].step(score)
    return np.array(found)


def test_a_plateau_is_left_after_as_many_epochs_as_it_says():
    scores = [0.2, 0.3, 0.3, 0.3, 0.4, 0.3, 0.3, 0.3, 0.3, 0.5]
    found = plateaus(scores, plateau_patience=2, plateau_factor=0.5)
    assert_allclose(found[:2].ravel(), np.arange(1, 21) / 20)  # a fifth of 100 steps climbs
    assert_allclose(found[2:, 0], [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125])
    assert (found[2:] == found[2:, :1]).all()


def test_a_plateau_while_the_rate_climbs_lowers_all_that_follows():
    found = plateaus([0.3, 0.2, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], plateau_patience=1, plateau_factor=0.5)
    assert_allclose(found[1], np.arange(11, 21) / 20)
    assert_allclose(found[2], 0.5)
    assert_allclose(found[3:], 0.25)


def test_the_factor_and_patience_are_those_of_torch_but_for_one_epoch():
    scores = np.random.default_rng(3).random(40).round(1).tolist()
    adam = optimizer(1.0)
    theirs = ReduceLROnPlateau(adam, "max", factor=0.3, patience=4, threshold=0)
    expected = []
    for score in scores:
        expected.append(adam.param_groups[0]["lr"])
        theirs.step(score)
    assert_allclose(plateaus(scores)[8:, 0], expected[8:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plateau_factor": 0.5}, "plateau_factor would do nothing with the schedule cosine; leave them out"),
        ({"schedule": "plateau", "plateau_factor": 1.0}, r"training\.plateau_factor: .*not 1\.0"),
        ({"schedule": "step"}, r"training\.schedule: .*'cosine', 'one-cycle', 'poly', 'plateau' or 'constant'"),
        ({"accumulate": 0}, r"training\.accumulate: .*not 0"),
        ({"clip": -1.0}, r"training\.clip: .*not -1\.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        checked(Fitting, options, "training.")
