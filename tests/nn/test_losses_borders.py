import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional
from torch.testing import assert_close

from geounet.core.legend import IGNORE
from geounet.nn.losses import border_cross_entropy, border_weights

SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))


def at(distance, w0=10.0, sigma=5.0):
    """Weight where the distances to two objects add up to `distance`."""
    return w0 * np.exp(-(distance**2) / (2 * sigma**2))


def brute_force(labels, w0, sigma, background):
    """Weights (H, W) by a distance transform for each object."""
    height, width = labels.shape
    distances = []
    for k in set(labels.ravel().tolist()) - {IGNORE, background}:
        marks, count = ndimage.label(labels == k)
        for mark in range(1, count + 1):
            border = np.zeros(labels.shape, bool)
            for y, x in np.argwhere(marks == mark):
                beside = [(y + dy, x + dx) for dy, dx in SIDES if 0 <= y + dy < height and 0 <= x + dx < width]
                border[y, x] = any(marks[p] != mark and labels[p] != IGNORE for p in beside)
            if border.any():
                distances.append(ndimage.distance_transform_edt(~border))
    if len(distances) < 2:
        return np.zeros(labels.shape)
    nearest = np.sort(distances, axis=0)[:2].sum(axis=0)
    return np.where(labels == IGNORE, 0, at(nearest, w0, sigma))


def blobs(seed, samples=1, classes=3, shape=(13, 17), ignored=0.05):
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.randn(samples, classes, 5, 6, generator=chance)
    labels = functional.interpolate(coarse, shape, mode="bilinear").argmax(dim=1)
    labels[torch.rand(labels.shape, generator=chance) < ignored] = IGNORE
    return labels


@pytest.mark.parametrize(
    ("labels", "sums"),
    [
        pytest.param([1, 0, 0, 0, 1], [4, 4, 4, 4, 4], id="a gap: the way across it from wherever one stands"),
        pytest.param([0, 1, 0, 1, 0], [4, 2, 2, 2, 4], id="outside"),
        pytest.param([1, 1, 2, 2], [3, 1, 1, 3], id="two classes that touch"),
        pytest.param([1, 0, 0, 2, 0, 0, 0, 1], [3, 3, 3, 3, 4, 4, 4, 4], id="the second nearest, not the third"),
        pytest.param([1, 0, IGNORE, 1], [np.inf] * 4, id="beyond what is ignored there may be more of the same"),
        pytest.param([0, 1, 1, 0], [np.inf] * 4, id="one object"),
        pytest.param([1, 1, 1, 1], [np.inf] * 4, id="no border"),
        pytest.param([IGNORE] * 4, [np.inf] * 4, id="no label"),
    ],
)
def test_the_weight_is_that_of_the_way_to_two_objects(labels, sums):
    found = border_weights(torch.tensor([[labels]]))
    assert_close(found, torch.tensor([[[at(d) for d in sums]]], dtype=torch.float32))


def test_objects_are_distances_apart_in_both_directions():
    labels = torch.zeros(1, 4, 5, dtype=torch.int64)
    labels[0, 0, 0] = labels[0, 3, 4] = 1  # from (0, 1): 1 pixel, and 3 down and 3 across
    assert border_weights(labels)[0, 0, 1].item() == pytest.approx(at(1 + np.sqrt(18)))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    sigma=st.sampled_from([1.0, 2.0, 5.0]),
    background=st.sampled_from([0, None]),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
)
def test_weights_are_those_of_a_distance_transform_for_each_object(seed, sigma, background, shape):
    labels = blobs(seed, samples=2, shape=shape)
    found = border_weights(labels, w0=3.0, sigma=sigma, background=background)
    expected = np.stack([brute_force(sample.numpy(), 3.0, sigma, background) for sample in labels])
    # what lies beyond 6 sigma is left out: 3 · exp(-18)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=5e-8)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), turns=st.integers(0, 3))
def test_weights_turn_with_the_labels(seed, turns):
    labels = blobs(seed)
    turned = border_weights(labels.rot90(turns, (1, 2)).flip(2))
    assert torch.equal(turned, border_weights(labels).rot90(turns, (1, 2)).flip(2))


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_samples_do_not_see_each_other(seed):
    labels = blobs(seed, samples=3)
    alone = torch.cat([border_weights(sample[None]) for sample in labels])
    assert torch.equal(border_weights(labels), alone)


def test_a_long_way_round_is_still_one_object():
    side = 41
    spiral = np.zeros((side, side), np.int64)
    y, x, dy, dx = 0, 0, 0, 1
    spiral[0, 0] = 1
    while True:
        ahead, after = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
        free = all(0 <= v < side for v in ahead) and not spiral[ahead]
        if not (free and (not all(0 <= v < side for v in after) or not spiral[after])):
            dy, dx = dx, -dy
            after = (y + 2 * dy, x + 2 * dx)
            if not all(0 <= v < side for v in after) or spiral[after] or spiral[y + dy, x + dx]:
                break
            continue
        y, x = ahead
        spiral[y, x] = 1
    assert ndimage.label(spiral)[1] == 1
    assert spiral.sum() > side * side / 3
    assert (border_weights(torch.from_numpy(spiral)[None]) == 0).all()
    spiral[20, 0] = 0  # cut once, it is two
    assert border_weights(torch.from_numpy(spiral)[None])[0, 20, 0].item() == pytest.approx(at(2.0))


def test_objects_that_touch_at_a_corner_are_two():
    labels = torch.tensor([[[1, 0], [0, 1]]])
    expected = torch.tensor([[[at(np.sqrt(2)), at(2)], [at(2), at(np.sqrt(2))]]], dtype=torch.float32)
    assert_close(border_weights(labels), expected)


def test_the_entropy_between_objects_counts_more_as_worked_out_by_hand():
    p = torch.tensor([0.9, 0.5, 0.8], dtype=torch.float64)  # of the labels 1, 0, 1
    ones = torch.stack([p[0], 1 - p[1], p[2]])
    logits = torch.stack([1 - ones, ones]).log().reshape(1, 2, 1, 3)
    labels = torch.tensor([[[1, 0, 1]]])
    border = at(2.0)  # one pixel to each side, or none and two
    weights = np.array([2 + border, 1 + border, 2 + border])
    expected = (weights * -np.log(p.numpy())).sum() / weights.sum()
    found = border_cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0]))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    one_channel = (logits[:, 1] - logits[:, 0]).unsqueeze(1)
    assert_close(border_cross_entropy(one_channel, labels, weight=torch.tensor([1.0, 2.0])), found)


def test_the_device_changes_nothing(device):
    labels = blobs(5, samples=2, shape=(40, 40))
    assert_close(border_weights(labels.to(device)).cpu(), border_weights(labels))
