import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from torch.nn import functional
from torch.testing import assert_close

from geounet.core.legend import IGNORE
from geounet.nn.losses import dice_loss, focal_loss, generalised_dice_loss, lovasz_softmax, tversky_loss
from geounet.nn.losses.regions import _jaccard_slopes

REGIONS = [dice_loss, generalised_dice_loss, tversky_loss, lovasz_softmax]


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("segmentation_models_pytorch").losses


def two_classes(probability):
    """Logits (1, 2, 1, n) whose softmax gives class 1 the probabilities."""
    p = torch.tensor(probability, dtype=torch.float64)
    return torch.stack([1 - p, p]).log().reshape(1, 2, 1, -1)


def one_channel(probability):
    """Logits (1, 1, 1, n) whose sigmoid has the probabilities."""
    return torch.tensor(probability, dtype=torch.float64).logit().reshape(1, 1, 1, -1)


def row(*labels):
    return torch.tensor(labels).reshape(1, 1, -1)


def drawn(seed, classes=3, samples=2, side=6):
    """Logits and labels in which every class occurs, (samples, …), a third of them ignored."""
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, side, side, generator=chance)
    labels = torch.randint(max(classes, 2), (samples, side, side), generator=chance)
    labels[torch.rand(labels.shape, generator=chance) < 1 / 3] = IGNORE
    labels[:, 0, : max(classes, 2)] = torch.arange(max(classes, 2))
    return logits, labels


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        pytest.param(
            (1, 0), {}, 1 - (0.75 / 1.075 + 0.5 / 0.925) / 2, id="α 0.3 of what is extra, β 0.7 of what lacks"
        ),
        pytest.param((1, 0), {"alpha": 1.0, "beta": 0.0}, 1 - (0.75 / 1.25 + 0.5 / 0.75) / 2, id="extra alone"),
        pytest.param((1, 0), {"alpha": 0.0, "beta": 1.0}, 1 - (0.75 / 1.0 + 0.5 / 1.0) / 2, id="missed alone"),
        pytest.param((1, 0), {"smooth": 1.0}, 1 - (1.75 / 2.075 + 1.5 / 1.925) / 2, id="smoothed"),
        pytest.param((1, IGNORE), {}, 1 - 0.75 / 0.925, id="class 1 alone"),
        pytest.param((IGNORE, IGNORE), {}, 0.0, id="nothing to compare"),
    ],
)
def test_tversky_loss_is_the_value_worked_out_by_hand(labels, options, expected):
    assert tversky_loss(two_classes([0.75, 0.5]), row(*labels), **options).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param((0, 0, 1), 1 - 2 * (1 / 4 + 3 / 4) / (3.25 / 4 + 2.75), id="weights 1/4 and 1"),
        pytest.param((0, 0, IGNORE), 1 - 2 * 1 / (1 + 2), id="class 0 alone: Dice"),
        pytest.param((IGNORE, IGNORE, IGNORE), 0.0, id="nothing to compare"),
    ],
)
def test_generalised_dice_is_the_value_worked_out_by_hand(labels, expected):
    assert generalised_dice_loss(two_classes([0.5, 0.5, 0.75]), row(*labels)).item() == pytest.approx(expected)
    assert generalised_dice_loss(one_channel([0.5, 0.5, 0.75]), row(*labels)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param((1, 0), (0.375 + 0.5) / 2, id="½·½ + ¼·½ for class 1, ½·1 + ¼·0 for class 0"),
        pytest.param((1, IGNORE), 0.25, id="class 1 alone"),
        pytest.param((IGNORE, IGNORE), 0.0, id="nothing to compare"),
    ],
)
def test_lovasz_softmax_is_the_value_worked_out_by_hand(labels, expected):
    assert lovasz_softmax(two_classes([0.75, 0.5]), row(*labels)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(dice_loss, 1 - 1.5 / 2.25), (tversky_loss, 1 - 0.75 / 1.075), (lovasz_softmax, 0.375)],
)
def test_one_channel_is_scored_on_class_one_as_worked_out_by_hand(loss, expected):
    assert loss(one_channel([0.75, 0.5]), row(1, 0)).item() == pytest.approx(expected)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 5))
def test_of_hard_classes_lovasz_is_one_minus_the_iou(seed, classes):
    logits, labels = drawn(seed, classes)
    valid = labels != IGNORE
    guess = logits.argmax(dim=1)
    hard = 1000.0 * functional.one_hot(guess, classes).permute(0, 3, 1, 2)
    iou = jaccard_score(labels[valid].numpy(), guess[valid].numpy(), average="macro", labels=range(classes))
    assert lovasz_softmax(hard, labels).item() == pytest.approx(1 - iou, abs=1e-6)


def test_the_slopes_of_a_million_pixels_lose_nothing_to_rounding():
    # each is near a millionth, of which differences of float32 quotients would know one digit
    chance = torch.Generator().manual_seed(0)
    errors, truth = torch.rand(2**20, generator=chance), torch.rand(2**20, generator=chance) < 0.3
    order = errors.argsort(descending=True, stable=True)
    here = truth[order].double()
    jaccard = 1 - (here.sum() - here.cumsum(0)) / (here.sum() + (1 - here).cumsum(0))
    expected = jaccard.diff(prepend=jaccard.new_zeros(1))
    assert_close(_jaccard_slopes(errors, truth)[order].double(), expected, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("classes", [1, 3])
def test_tversky_of_equal_costs_is_dice(classes):
    logits, labels = drawn(1, classes)
    assert_close(tversky_loss(logits, labels, alpha=0.5, beta=0.5), dice_loss(logits, labels))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("loss", REGIONS)
def test_per_sample_is_the_mean_of_samples_that_have_labels(loss, classes):
    logits, labels = drawn(2, classes, samples=3)
    labels[1] = IGNORE
    alone = [loss(logits[i : i + 1], labels[i : i + 1]) for i in (0, 2)]
    assert_close(loss(logits, labels, per="sample"), torch.stack(alone).mean())


@pytest.mark.parametrize("loss", REGIONS)
def test_of_one_sample_the_batch_and_the_sample_are_the_same(loss):
    logits, labels = drawn(3, samples=1)
    assert_close(loss(logits, labels, per="sample"), loss(logits, labels, per="batch"))


@pytest.mark.parametrize("loss", [dice_loss, tversky_loss, lovasz_softmax])
def test_weights_average_the_classes(loss):
    logits, labels = drawn(4)
    alone = [loss(logits, labels, weight=torch.eye(3)[k]) for k in range(3)]
    expected = (3 * alone[0] + alone[1]) / 4
    assert_close(loss(logits, labels, weight=torch.tensor([3.0, 1.0, 0.0])), expected)


def test_generalised_dice_hears_a_rare_class_above_a_common_one():
    labels = row(*[0] * 99, 1)
    missed_rare = generalised_dice_loss(one_channel([1e-9] * 99 + [0.5]), labels)
    missed_common = generalised_dice_loss(one_channel([0.5] + [1e-9] * 98 + [1 - 1e-9]), labels)
    w = 1 / 99**2
    assert missed_rare.item() == pytest.approx(1 - 2 * (99 * w + 0.5) / (198.5 * w + 1.5), rel=1e-6)
    assert missed_common.item() == pytest.approx(1 - 2 * (98.5 * w + 1) / (197.5 * w + 2.5), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [1, 4])
def test_losses_agree_with_another_implementation(theirs, seed, classes):
    logits, labels = drawn(seed, classes)
    mode = "binary" if classes == 1 else "multiclass"
    dice = theirs.DiceLoss(mode, ignore_index=IGNORE)
    tversky = theirs.TverskyLoss(mode, ignore_index=IGNORE, alpha=0.3, beta=0.7)
    assert_close(dice_loss(logits, labels), dice(logits, labels))
    assert_close(tversky_loss(logits, labels), tversky(logits, labels))
    valid = labels != IGNORE
    if classes == 1:
        focal = theirs.FocalLoss(mode, alpha=0.25, gamma=2.0, ignore_index=IGNORE)
        weight = torch.tensor([0.75, 0.25])  # our mean is weighted, theirs is over the pixels
        share = weight[labels[valid]].mean()
        assert_close(focal_loss(logits, labels, weight=weight) * share, focal(logits, labels))
    else:
        softmax_focal = theirs._functional.softmax_focal_loss_with_logits
        flat = logits.permute(0, 2, 3, 1)[valid]
        assert_close(focal_loss(logits, labels), softmax_focal(flat, labels[valid], gamma=2.0))
        assert_close(lovasz_softmax(logits, labels), theirs.LovaszLoss(mode, ignore_index=IGNORE)(logits, labels))
        per_image = theirs.LovaszLoss(mode, per_image=True, ignore_index=IGNORE)(logits, labels)
        assert_close(lovasz_softmax(logits, labels, per="sample"), per_image)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 5))
def test_generalised_dice_is_that_of_a_plain_loop_over_classes(seed, classes):
    logits, labels = drawn(seed, classes)
    valid = (labels != IGNORE).numpy()
    probs = logits.double().softmax(dim=1).permute(0, 2, 3, 1).numpy()[valid]
    flat = labels.numpy()[valid]
    weights = [1 / np.sum(flat == k) ** 2 for k in range(classes)]
    overlap = sum(w * probs[flat == k, k].sum() for k, w in enumerate(weights))
    both = sum(w * (probs[:, k].sum() + np.sum(flat == k)) for k, w in enumerate(weights))
    assert generalised_dice_loss(logits.double(), labels).item() == pytest.approx(1 - 2 * overlap / both)
