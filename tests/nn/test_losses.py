import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from geounet.core.legend import IGNORE
from geounet.errors import ConfigError
from geounet.nn.losses import DiceCrossEntropy, cross_entropy, dice_loss

LOSSES = [
    pytest.param(dice_loss, id="dice"),
    pytest.param(cross_entropy, id="cross-entropy"),
    pytest.param(DiceCrossEntropy(), id="both"),
    pytest.param(DiceCrossEntropy(class_weights=[3.0, 1.0, 0.5]), id="weighted"),
    pytest.param(DiceCrossEntropy(label_smoothing=0.1), id="smoothed"),
]


def two_classes(probability):
    """Logits (1, 2, 1, n) whose softmax gives class 1 the probabilities."""
    p = torch.tensor(probability, dtype=torch.float64)
    return torch.stack([1 - p, p]).log().reshape(1, 2, 1, -1)


def batch(seed=0, samples=2, classes=3, side=5, ignored=0.3, dtype=torch.float32):
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, side, side, generator=chance, dtype=dtype)
    labels = torch.randint(classes, (samples, side, side), generator=chance)
    labels[torch.rand(labels.shape, generator=chance) < ignored] = IGNORE
    return logits, labels


@pytest.mark.parametrize(
    ("probability", "labels", "expected"),
    [
        pytest.param([0.75, 0.25], [1, 0], 1 / 4, id="each class: 2·¾ / (1 + 1) = ¾"),
        pytest.param([0.75, 0.25], [1, IGNORE], 1 / 7, id="class 1 alone: 2·¾ / (¾ + 1) = 6/7"),
        pytest.param([0.5, 0.5], [0, 0], 1 / 3, id="class 0 alone: 2·1 / (1 + 2) = 2/3"),
        pytest.param([0.5, 0.5], [IGNORE, IGNORE], 0, id="nothing to compare"),
    ],
)
def test_dice_loss_is_the_value_worked_out_by_hand(probability, labels, expected):
    loss = dice_loss(two_classes(probability), torch.tensor(labels).reshape(1, 1, 2))
    assert_close(loss, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"smooth": 1.0}, 1 / 6, id="(2·¾ + 1) / (1 + 1 + 1) = 5/6, both classes"),
        pytest.param({"weight": torch.tensor([0.0, 2.0])}, 1 / 4, id="class 1 alone"),
        pytest.param({"weight": torch.tensor([0.0, 0.0])}, 0, id="no class at all"),
    ],
)
def test_smoothing_and_weights_enter_dice_as_worked_out_by_hand(options, expected):
    loss = dice_loss(two_classes([0.75, 0.25]), torch.tensor([1, 0]).reshape(1, 1, 2), **options)
    assert_close(loss, torch.tensor(expected, dtype=torch.float64))


def test_dice_weights_average_the_classes():
    dice_0 = 2 * (0.5 + 0.5) / (0.5 + 0.5 + 0.25 + 2)
    dice_1 = 2 * 0.75 / (0.5 + 0.5 + 0.75 + 1)
    loss = dice_loss(
        two_classes([0.5, 0.5, 0.75]), torch.tensor([0, 0, 1]).reshape(1, 1, 3), weight=torch.tensor([3.0, 1.0])
    )
    assert loss.item() == pytest.approx(1 - (3 * dice_0 + dice_1) / 4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), ignored=st.sampled_from([0.0, 0.5, 0.95]))
def test_dice_is_that_of_a_plain_loop_over_classes_and_pixels(seed, classes, ignored):
    logits, labels = batch(seed, classes=classes, ignored=ignored, dtype=torch.float64)
    probs = logits.softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, classes).numpy()
    flat = labels.reshape(-1).numpy()
    scores = []
    for k in set(flat.tolist()) - {IGNORE}:
        overlap = sum(p[k] for p, y in zip(probs, flat, strict=True) if y == k)
        both = sum(p[k] + (y == k) for p, y in zip(probs, flat, strict=True) if y != IGNORE)
        scores.append(2 * overlap / both)
    expected = 1 - np.mean(scores) if scores else 0.0
    assert dice_loss(logits, labels).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, torch.tensor([2.0, 0.5, 1.0])])
def test_cross_entropy_is_torchs_own_where_there_are_labels(weight, smoothing):
    logits, labels = batch()
    ours = cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing)
    theirs = functional.cross_entropy(logits, labels, weight, ignore_index=IGNORE, label_smoothing=smoothing)
    assert_close(ours, theirs)


def test_the_sum_weighs_its_terms():
    logits, labels = batch()
    loss = DiceCrossEntropy(dice=2.0, cross_entropy=0.5)(logits, labels)
    assert_close(loss, 2 * dice_loss(logits, labels) + 0.5 * cross_entropy(logits, labels))


def test_class_weights_weigh_the_pixels_of_the_entropy():
    logits, labels = batch()
    weight = [4.0, 1.0, 0.0]
    loss = DiceCrossEntropy(class_weights=weight)(logits, labels)
    assert_close(loss, dice_loss(logits, labels) + cross_entropy(logits, labels, weight=torch.tensor(weight)))


@pytest.mark.parametrize("loss", [dice_loss, cross_entropy, DiceCrossEntropy()])
def test_being_right_and_sure_costs_nothing(loss):
    _, labels = batch(ignored=0.0)
    logits = 100.0 * functional.one_hot(labels, 3).permute(0, 3, 1, 2)
    assert loss(logits, labels).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("garbage", [0.0, -1e30, 1e38, float("inf"), float("nan")])
def test_ignored_pixels_cost_nothing_and_pull_nowhere(loss, garbage, device):
    logits, labels = (t.to(device) for t in batch())
    loss = loss.to(device) if isinstance(loss, torch.nn.Module) else loss
    expected = loss(logits, labels)
    ignored = (labels == IGNORE).unsqueeze(1).expand_as(logits)
    dirty = logits.masked_fill(ignored, garbage).requires_grad_()
    found = loss(dirty, labels)
    found.backward()
    assert torch.equal(found, expected)
    assert (dirty.grad[ignored] == 0).all()
    assert torch.isfinite(dirty.grad).all()
    assert (dirty.grad[~ignored] != 0).any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("garbage", [1.0, float("nan")])
def test_a_batch_without_labels_costs_exactly_nothing(loss, garbage, device):
    logits = torch.full((2, 3, 4, 4), garbage, device=device, requires_grad=True)
    loss = loss.to(device) if isinstance(loss, torch.nn.Module) else loss
    found = loss(logits, torch.full((2, 4, 4), IGNORE, device=device))
    found.backward()
    assert found.item() == 0.0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", [dice_loss, cross_entropy])
def test_another_ignore_index_is_another_label(loss):
    logits, labels = batch()
    moved = torch.where(labels == IGNORE, -1, labels)
    assert torch.equal(loss(logits, moved, ignore_index=-1), loss(logits, labels))


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_full(loss, device):
    logits, labels = (t.to(device) for t in batch())
    loss = loss.to(device) if isinstance(loss, torch.nn.Module) else loss
    half = logits.bfloat16()
    expected = loss(half.float(), labels)
    with torch.autocast(device, torch.bfloat16):
        found = loss(half, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("loss", LOSSES[:3])
def test_gradients_are_those_of_finite_differences(loss):
    logits, labels = batch(side=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())


def test_the_classes_order_changes_nothing():
    logits, labels = batch()
    order = torch.tensor([2, 0, 1])
    renamed = torch.where(labels == IGNORE, IGNORE, order.argsort()[labels.clamp(max=2)])
    assert_close(dice_loss(logits[:, order], renamed), dice_loss(logits, labels))
    assert_close(cross_entropy(logits[:, order], renamed), cross_entropy(logits, labels))


def test_weights_travel_with_the_loss_but_not_with_the_model():
    loss = DiceCrossEntropy(class_weights=[1.0, 2.0])
    assert loss.to("meta").class_weights.device.type == "meta"
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    "arguments",
    [
        {"dice": 0.0, "cross_entropy": 0.0},
        {"dice": -1.0},
        {"cross_entropy": float("nan")},
        {"class_weights": [1.0, -1.0]},
        {"class_weights": [0.0, 0.0]},
        {"class_weights": [1.0, float("inf")]},
        {"label_smoothing": 1.5},
    ],
)
def test_weights_that_are_none_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"weights from 0|share from 0 to 1"):
        DiceCrossEntropy(**arguments)
