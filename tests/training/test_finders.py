"""A range test finds the edge of stability where it is known; a search for a batch size stops where memory does."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from geounet.training.plan.finders import (
    NEAR_BEST,
    SAFETY,
    find_batch_size,
    find_learning_rate,
    rates_between,
    sizes_up_to,
    smooth,
)

FACTOR = rates_between()[1] / rates_between()[0]
"""Of neighbouring rates."""


def descent(curvature, start=1.0):
    """Gradient descent on ½ L x²: a step multiplies x by 1 - rate · L, so that it diverges where the rate is above 2 / L."""
    weight = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=1.0)

    def step(rate):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = (0.5 * curvature * weight**2).sum()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


@pytest.mark.parametrize("curvature", [20.0, 300.0, 5e3])
def test_of_a_quadratic_a_tenth_of_the_rate_is_found_at_which_it_begins_to_diverge(curvature):
    search = find_learning_rate(descent(curvature), rates_between())
    assert search.chosen == pytest.approx(2 / curvature / SAFETY, rel=FACTOR**4 - 1)  # half the smoothing, and a step
    assert search.rates[-1] < 2 / curvature * FACTOR**30  # and the test is over soon after


def test_the_loss_of_a_quadratic_is_lowest_at_the_last_step_that_is_stable():
    search = find_learning_rate(descent(300.0), rates_between())
    lowest = search.rates[int(np.argmin(search.losses))]  # before the first step that makes it worse
    assert 2 / 300 <= lowest < 2 / 300 * FACTOR


def test_of_a_linear_model_learnt_by_the_batch_the_rate_is_stable_and_not_far_from_the_edge():
    """Least squares of features ±1 and ±9 with noise: L = 2 · 9² for the larger one, and noise keeps it from resting."""
    rng = np.random.default_rng(0)
    curvature = 2 * 9.0**2
    weights = torch.nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weights], lr=1.0)

    def step(rate):
        data = torch.tensor(rng.choice([-1.0, 1.0], (16, 2)) * [1.0, 9.0])
        target = data.sum(dim=1, keepdim=True) + torch.tensor(rng.normal(0, 0.5, (16, 1)))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(data @ weights, target)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    search = find_learning_rate(step, rates_between(1e-5, 1.0))
    assert 2 / curvature / 100 < search.chosen <= 2 / curvature / SAFETY
    assert search.rates[-1] < 2 / curvature * 3  # the test is over soon after the edge


def test_a_loss_that_never_falls_leaves_the_rate_that_is_taken_without_a_test():
    search = find_learning_rate(lambda rate: 1 + rate, rates_between(), default=2e-3)
    assert search.chosen == 2e-3
    assert "did not fall" in search.why


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_ends_the_test_and_is_no_part_of_it(bad):
    losses = iter([3.0, 2.9, 2.8, 2.0, 1.0, 1.1, bad])
    search = find_learning_rate(lambda _: next(losses), rates_between())
    assert search.losses == (3.0, 2.9, 2.8, 2.0, 1.0, 1.1)
    assert len(search.rates) == len(search.smoothed) == 6


def test_without_a_single_loss_there_is_still_an_answer():
    assert find_learning_rate(lambda _: math.nan, rates_between()).chosen == 1e-3


def test_smoothing_does_not_move_the_lowest_place():
    place = np.abs(np.arange(41) - 23.0)
    assert int(np.argmin(smooth(place.tolist()))) == 23
    assert_allclose(smooth([4.0] * 12), 4.0)


def device(overhead, each, most):
    """Seconds of a step of a machine that starts up, works sample by sample, and holds so many."""

    def seconds(size):
        if size > most:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {size} samples")
        return overhead + each * size

    return seconds


@pytest.mark.parametrize(("most", "largest", "fails"), [(64, 64, None), (40, 32, 64), (5, 4, 8), (1, 1, 2)])
def test_sizes_are_doubled_until_memory_is_full(most, largest, fails):
    search = find_batch_size(device(100.0, 1.0, most), sizes_up_to(64))  # so slow to start that larger is always faster
    assert (search.sizes[-1], search.too_large, search.chosen) == (largest, fails, largest)
    assert (f"{fails} do not fit" in search.why) == (fails is not None)


def test_the_smallest_size_is_taken_that_is_about_as_fast_as_any():
    """n / (1 + n) samples a second: 16 / 17 = 0.941 is within a tenth of 64 / 65 = 0.985, 8 / 9 = 0.889 as well, 4 / 5 not."""
    search = find_batch_size(device(1.0, 1.0, 64), sizes_up_to(64))
    assert_allclose(search.speeds, [n / (1 + n) for n in (1, 2, 4, 8, 16, 32, 64)])
    assert search.chosen == 8
    assert 4 / 5 < NEAR_BEST * 64 / 65 <= 8 / 9


def test_a_network_that_runs_out_of_memory_above_six_samples_gets_four():
    class Hungry(torch.nn.Module):
        def forward(self, image):
            if len(image) > 6:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return image.mean()

    network, clock = Hungry(), iter(range(1, 100))

    def seconds(size):
        network(torch.zeros(size, 1, 4, 4))
        return 1 / next(clock)

    search = find_batch_size(seconds, sizes_up_to(32))
    assert (search.sizes, search.too_large, search.chosen) == ((1, 2, 4), 8, 4)


def test_torchs_own_refusal_on_a_cpu_is_memory_as_well():
    def seconds(size):
        torch.empty(size * 2**58 if size > 2 else size, dtype=torch.uint8)  # 2^60 bytes and more, of any machine
        return 1.0

    search = find_batch_size(seconds, sizes_up_to(8))
    assert (search.too_large, search.chosen) == (4, 2)


def test_other_errors_are_not_taken_for_memory_and_neither_is_a_first_sample_that_does_not_fit():
    def broken(size):
        if size > 2:
            raise RuntimeError("sizes of tensors must match")
        return 1.0

    with pytest.raises(RuntimeError, match="must match"):
        find_batch_size(broken, sizes_up_to(8))
    with pytest.raises(torch.OutOfMemoryError):
        find_batch_size(device(1.0, 1.0, 0), sizes_up_to(8))
