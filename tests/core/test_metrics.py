"""Scores agree with scikit-learn's, and a sum of tables scores like the whole map."""

import json
from functools import reduce

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from geounet.core.metrics import Confusion, f1, iou, mean_iou, precision, recall

ids = arrays(np.uint8, st.tuples(st.just(2), st.integers(1, 60)), elements=st.sampled_from([0, 1, 2, 3, 255]))


@given(ids)
def test_scores_are_scikit_learn_s(pair):
    true, predicted = pair
    confusion = Confusion.of(true, predicted, 4)
    both = (true < 4) & (predicted < 4)
    assert confusion.ignored == (~both).sum()
    true, predicted = true[both], predicted[both]
    if not len(true):
        assert confusion.counts.sum() == 0
        return
    labels = [0, 1, 2, 3]
    assert (confusion.counts == oracle.confusion_matrix(true, predicted, labels=labels)).all()
    scores = {
        iou: oracle.jaccard_score,
        f1: oracle.f1_score,
        precision: oracle.precision_score,
        recall: oracle.recall_score,
    }
    for ours, theirs in scores.items():
        expected = theirs(true, predicted, labels=labels, average=None, zero_division=0)
        found = ours(confusion.counts)
        seen = ~np.isnan(found)
        assert_allclose(found[seen], expected[seen], rtol=0, atol=1e-9)
        assert (expected[~seen] == 0).all()
    report = confusion.report(["a", "b", "c", "d"])
    present = np.union1d(true, predicted)
    assert report["micro"]["accuracy"] == pytest.approx(oracle.accuracy_score(true, predicted), abs=1e-9)
    assert report["micro"]["iou"] == pytest.approx(
        oracle.jaccard_score(true, predicted, labels=labels, average="micro"), abs=1e-9
    )
    for name, score in {"iou": oracle.jaccard_score, "f1": oracle.f1_score}.items():
        wanted = score(true, predicted, labels=present, average="macro")
        assert report["macro"][name] == pytest.approx(wanted, abs=1e-9)
    assert mean_iou(confusion.counts) == pytest.approx(report["macro"]["iou"])


@given(st.lists(ids, min_size=1, max_size=5))
def test_the_sum_of_the_parts_is_the_whole(parts):
    total = reduce(Confusion.__add__, (Confusion.of(*pair, 4) for pair in parts), Confusion.empty(4))
    whole = Confusion.of(*np.concatenate(parts, axis=1), 4)
    assert (total.counts == whole.counts).all()
    assert total.ignored == whole.ignored
    assert total.counts.sum() + total.ignored == sum(pair.shape[1] for pair in parts)


def test_scores_are_those_worked_out_by_hand():
    """Of 5 pixels of land 4 are found; of 4 of water 3; one more is taken for either."""
    table = np.array([[4, 1, 0], [1, 3, 0], [0, 0, 0]])
    assert_allclose(iou(table), [4 / 6, 3 / 5, np.nan])
    assert_allclose(f1(table), [8 / 10, 6 / 8, np.nan])
    assert_allclose(precision(table), [4 / 5, 3 / 4, np.nan])
    assert_allclose(recall(table), [4 / 5, 3 / 4, np.nan])
    assert mean_iou(table) == pytest.approx((4 / 6 + 3 / 5) / 2)


def test_torch_tables_have_the_same_scores():
    table = np.array([[4, 1, 0], [1, 3, 0], [0, 0, 0]])
    for score in (iou, f1, precision, recall):
        found = score(torch.from_numpy(table))
        assert isinstance(found, torch.Tensor)
        assert_allclose(found.numpy(), score(table))


def test_a_report_is_plain_json_with_null_for_what_is_undefined():
    table = Confusion(np.array([[4, 1, 0], [1, 3, 0], [0, 0, 0]]), ignored=7)
    report = json.loads(json.dumps(table.report(["land", "water", "ice"]), allow_nan=False))
    assert report["classes"]["land"] == {
        "iou": pytest.approx(4 / 6), "f1": pytest.approx(0.8), "precision": pytest.approx(0.8),
        "recall": pytest.approx(0.8), "support": 5,
    }  # fmt: skip
    assert report["classes"]["ice"] == {"iou": None, "f1": None, "precision": None, "recall": None, "support": 0}
    assert report["micro"] == {"accuracy": pytest.approx(7 / 9), "iou": pytest.approx(7 / 11)}
    assert report["confusion"] == [[4, 1, 0], [1, 3, 0], [0, 0, 0]]
    assert (report["pixels"], report["ignored"]) == (9, 7)
    empty = Confusion.empty(2).report(["a", "b"])
    assert empty["micro"] == {"accuracy": None, "iou": None}
    assert empty["macro"] == {"iou": None, "f1": None}


def test_negative_ids_are_ignored_and_shapes_must_agree():
    assert Confusion.of(np.array([-1, 0]), np.array([0, 0]), 1).ignored == 1
    with pytest.raises(ValueError, match=r"differ in shape: \(2,\) and \(3,\)"):
        Confusion.of(np.zeros(2, int), np.zeros(3, int), 2)
