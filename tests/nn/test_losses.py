import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from geounet.core.legend import IGNORE
from geounet.errors import ConfigError
from geounet.nn.losses import (
    DiceCrossEntropy,
    WeightedSum,
    border_cross_entropy,
    cross_entropy,
    dice_loss,
    focal_loss,
    generalised_dice_loss,
    lovasz_softmax,
    tversky_loss,
)
from geounet.nn.losses.sums import LOSSES as BY_NAME

FUNCTIONS = [pytest.param(loss, id=name) for name, loss in BY_NAME.items()]
PIXELS = [cross_entropy, focal_loss, border_cross_entropy]
REGIONS = [dice_loss, generalised_dice_loss, tversky_loss, lovasz_softmax]
LOSSES = [
    pytest.param(dice_loss, id="dice"),
    pytest.param(cross_entropy, id="cross-entropy"),
    pytest.param(DiceCrossEntropy(), id="both"),
    pytest.param(DiceCrossEntropy(class_weights=[3.0, 1.0, 0.5]), id="weighted"),
    pytest.param(DiceCrossEntropy(label_smoothing=0.1), id="smoothed"),
    pytest.param(generalised_dice_loss, id="generalised-dice"),
    pytest.param(tversky_loss, id="tversky"),
    pytest.param(lovasz_softmax, id="lovasz"),
    pytest.param(focal_loss, id="focal"),
    pytest.param(WeightedSum({"focal": 1.0}, gamma=0.5, class_weights=[3.0, 1.0, 0.5]), id="focal-below-one"),
    pytest.param(WeightedSum({"border": 1.0}, class_weights=[3.0, 1.0, 0.5]), id="border"),
    pytest.param(WeightedSum(dict.fromkeys(BY_NAME, 1.0), per="sample", smooth=1.0), id="all-per-sample"),
]


def two_classes(probability):
    """Logits (1, 2, 1, n) whose softmax gives class 1 the probabilities."""
    p = torch.tensor(probability, dtype=torch.float64)
    return torch.stack([1 - p, p]).log().reshape(1, 2, 1, -1)


def batch(seed=0, samples=2, classes=3, side=5, ignored=0.3, dtype=torch.float32):
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, side, side, generator=chance, dtype=dtype)
    labels = torch.randint(max(classes, 2), (samples, side, side), generator=chance)
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


@pytest.mark.parametrize("loss", [*FUNCTIONS, DiceCrossEntropy()])
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


@pytest.mark.parametrize("loss", FUNCTIONS)
def test_another_ignore_index_is_another_label(loss):
    logits, labels = batch()
    moved = torch.where(labels == IGNORE, -1, labels)
    assert torch.equal(loss(logits, moved, ignore_index=-1), loss(logits, labels))


@pytest.mark.parametrize("loss", FUNCTIONS)
def test_a_class_can_be_ignored_by_its_id(loss):
    logits, labels = batch()
    without = torch.where(labels == 1, IGNORE, labels)
    assert torch.equal(loss(logits, without.where(without != IGNORE, 1), ignore_index=1), loss(logits, without))


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


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    logits, labels = batch(side=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss, *REGIONS])
def test_the_classes_order_changes_nothing(loss):
    logits, labels = batch()
    order = torch.tensor([2, 0, 1])
    renamed = torch.where(labels == IGNORE, IGNORE, order.argsort()[labels.clamp(max=2)])
    assert_close(loss(logits[:, order], renamed), loss(logits, labels))


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


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss, *REGIONS])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), classes=st.integers(1, 4), ignored=st.sampled_from([0.0, 0.5]))
def test_where_pixels_lie_changes_nothing(loss, seed, classes, ignored):
    logits, labels = batch(seed, classes=classes, ignored=ignored, dtype=torch.float64)
    order = torch.randperm(labels[0].numel(), generator=torch.Generator().manual_seed(seed))
    moved = logits.flatten(2)[..., order].view_as(logits), labels.flatten(1)[:, order].view_as(labels)
    assert_close(loss(*moved), loss(logits, labels))


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("loss", REGIONS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), classes=st.integers(1, 4), sure=st.sampled_from([0.1, 1.0, 1e3]))
def test_losses_of_regions_lie_between_all_right_and_all_wrong(loss, per, seed, classes, sure):
    logits, labels = batch(seed, classes=classes)
    eps = 1e-6  # of float32 sums of fifty pixels
    assert -eps <= loss(sure * logits, labels, per=per).item() <= 1 + eps
    others = labels.where(labels != IGNORE, 0) + 1
    wrong = functional.one_hot(others % max(classes, 2), max(classes, 2)).permute(0, 3, 1, 2)[:, -classes:] * 200.0
    wrong = wrong - 100.0
    assert loss(wrong, labels, per=per).item() == pytest.approx(1.0 if (labels != IGNORE).any() else 0.0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_being_wrong_and_sure_has_a_finite_cost_and_slope(loss, scale):
    logits, labels = batch()
    logits = (scale * logits).requires_grad_()
    found = loss(logits, labels)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", FUNCTIONS)
@pytest.mark.parametrize("garbage", [1e38, float("nan")])
def test_one_channel_leaves_out_what_is_ignored(loss, garbage, device):
    logits, labels = (t.to(device) for t in batch(classes=1))
    ignored = (labels == IGNORE).unsqueeze(1)
    dirty = logits.masked_fill(ignored, garbage).requires_grad_()
    found = loss(dirty, labels)
    found.backward()
    assert torch.equal(found, loss(logits, labels))
    assert (dirty.grad[ignored] == 0).all()
    assert (dirty.grad[~ignored] != 0).any()


@pytest.mark.parametrize("loss", [*PIXELS, generalised_dice_loss])
def test_one_channel_is_two_classes_of_which_one_has_logit_zero(loss):
    logits, labels = batch(classes=1)
    assert_close(loss(logits, labels), loss(torch.cat([torch.zeros_like(logits), logits], dim=1), labels))


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("loss", [dice_loss, tversky_loss, lovasz_softmax])
def test_one_channel_overlaps_with_class_one_alone(loss, per):
    logits, labels = batch(classes=1)
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    assert_close(loss(logits, labels, per=per), loss(both, labels, weight=torch.tensor([0.0, 1.0]), per=per))


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 3.0])])
def test_cross_entropy_of_one_channel_is_torchs_own_binary_one(weight):
    logits, labels = batch(classes=1)
    valid = labels != IGNORE
    share = None if weight is None else weight[labels[valid]]
    theirs = functional.binary_cross_entropy_with_logits(
        logits.squeeze(1)[valid], labels[valid].float(), share, reduction="sum"
    )
    total = valid.sum() if share is None else share.sum()
    assert_close(cross_entropy(logits, labels, weight=weight), theirs / total)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, (0.25**2 * np.log(4 / 3) + 0.5**2 * np.log(2)) / 2, id="each (1 - p)² ln 1/p"),
        pytest.param({"gamma": 1.0}, (0.25 * np.log(4 / 3) + 0.5 * np.log(2)) / 2, id="gamma"),
        pytest.param(
            {"weight": torch.tensor([1.0, 3.0])},
            (3 * 0.25**2 * np.log(4 / 3) + 0.5**2 * np.log(2)) / 4,
            id="a weighted mean",
        ),
    ],
)
def test_focal_loss_is_the_value_worked_out_by_hand(options, expected):
    loss = focal_loss(two_classes([0.75, 0.5]), torch.tensor([[[1, 0]]]), **options)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("classes", [1, 3])
def test_focus_on_nothing_and_borders_of_no_weight_are_the_cross_entropy(classes):
    logits, labels = batch(classes=classes)
    weight = torch.tensor([2.0, 0.5, 1.0])[: max(classes, 2)]
    expected = cross_entropy(logits, labels, weight=weight)
    assert_close(focal_loss(logits, labels, gamma=0.0, weight=weight), expected)
    assert_close(border_cross_entropy(logits, labels, w0=0.0, weight=weight), expected)


def test_a_weighted_sum_hands_each_loss_its_options():
    logits, labels = batch()
    weights = torch.tensor([1.0, 2.0, 3.0])
    options = {
        "label_smoothing": 0.1, "gamma": 1.0, "alpha": 0.2, "beta": 0.9, "smooth": 2.0, "per": "sample", "w0": 3.0,
        "sigma": 2.0, "background": None,
    }  # fmt: skip
    terms = {name: 0.5 + i for i, name in enumerate(BY_NAME)}
    values = {
        "cross_entropy": cross_entropy(logits, labels, weight=weights, label_smoothing=0.1),
        "focal": focal_loss(logits, labels, weight=weights, gamma=1.0),
        "border": border_cross_entropy(logits, labels, weight=weights, w0=3.0, sigma=2.0, background=None),
        "dice": dice_loss(logits, labels, smooth=2.0, per="sample"),
        "generalised_dice": generalised_dice_loss(logits, labels, per="sample"),
        "tversky": tversky_loss(logits, labels, alpha=0.2, beta=0.9, smooth=2.0, per="sample"),
        "lovasz": lovasz_softmax(logits, labels, per="sample"),
    }
    loss = WeightedSum(terms, class_weights=weights.tolist(), **options)
    assert_close(loss(logits, labels), sum(terms[name] * value for name, value in values.items()))
    assert {name: loss.term(name, logits, labels) for name in terms} == values


def test_a_term_that_weighs_nothing_is_not_computed(monkeypatch):
    monkeypatch.setitem(BY_NAME, "lovasz", None)
    logits, labels = batch()
    assert_close(WeightedSum({"lovasz": 0.0, "dice": 2.0})(logits, labels), 2 * dice_loss(logits, labels))


@pytest.mark.parametrize("classes", [1, 3])
def test_as_many_class_weights_as_classes_are_asked_for(classes):
    with pytest.raises(ConfigError, match=f"4 class_weights for {max(classes, 2)} classes"):
        WeightedSum({"focal": 1.0}, class_weights=[1.0] * 4)(*batch(classes=classes))


@pytest.mark.parametrize(
    ("terms", "options", "message"),
    [
        ({"hinge": 1.0}, {}, "hinge is no loss; there are cross_entropy, focal"),
        ({}, {}, r"terms are weights from 0, at least one above it; found \[\]"),
        ({"dice": 0.0, "focal": 0.0}, {}, r"dice and focal are weights from 0, at least one above it"),
        ({"dice": float("inf")}, {}, "dice are weights from 0"),
        ({"tversky": 1.0}, {"alpha": 0.0, "beta": 0.0}, "alpha and beta are weights from 0"),
        ({"tversky": 1.0}, {"alpha": -0.1}, "alpha and beta are weights from 0"),
        ({"focal": 1.0}, {"gamma": -1.0}, "gamma is a number from 0, not -1"),
        ({"dice": 1.0}, {"smooth": float("nan")}, "smooth is a number from 0, not nan"),
        ({"border": 1.0}, {"w0": -1.0}, "w0 is a number from 0, not -1"),
        ({"border": 1.0}, {"sigma": 0.0}, "sigma is a number of pixels above 0, not 0"),
        ({"dice": 1.0}, {"per": "image"}, "per is batch or sample, not image"),
        ({"dice": 1.0}, {"label_smoothing": -0.1}, "label_smoothing is a share from 0 to 1, not -0.1"),
    ],
)
def test_a_sum_that_makes_no_sense_is_refused(terms, options, message):
    with pytest.raises(ConfigError, match=message):
        WeightedSum(terms, **options)
