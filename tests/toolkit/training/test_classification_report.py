import json

import numpy as np
import pytest

from gascnn.toolkit.errors import DataError
from gascnn.toolkit.training.metrics import classification_report

# Ten images of three classes; counted by hand:
#   label      a a a a b b b c c c
#   prediction a a a b b b c c c a
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
FOUND = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 0])
NAMES = ("a", "b", "c")


def scores_for(predictions, classes=3):
    return np.eye(classes)[predictions] * 4.0


def test_hand_counted_figures():
    report = classification_report(scores_for(FOUND), LABELS, NAMES)
    assert report["images"] == 10
    assert report["confusion_matrix"] == [[3, 1, 0], [0, 2, 1], [1, 0, 2]]
    assert report["accuracy"] == 7 / 10
    a, b, c = (report["per_class"][name] for name in NAMES)
    assert (a["images"], b["images"], c["images"]) == (4, 3, 3)
    assert (a["sensitivity"], b["sensitivity"], c["sensitivity"]) == (3 / 4, 2 / 3, 2 / 3)
    assert (a["specificity"], b["specificity"], c["specificity"]) == (5 / 6, 6 / 7, 6 / 7)
    assert (a["precision"], b["precision"], c["precision"]) == (3 / 4, 2 / 3, 2 / 3)
    assert (a["f1"], b["f1"], c["f1"]) == (6 / 8, 4 / 6, 4 / 6)
    assert report["macro_f1"] == pytest.approx((6 / 8 + 4 / 6 + 4 / 6) / 3)
    assert report["notes"] == []
    assert json.loads(json.dumps(report)) == report


def pairwise_auc(ranks, positive):
    """AUC by its definition: how often an image of the class outranks another; ties count half."""
    wins = [(p > n) + 0.5 * (p == n) for p in ranks[positive] for n in ranks[~positive]]
    return sum(wins) / len(wins)


def test_auc_is_the_fraction_of_pairs_in_order():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    powers = np.exp(logits)
    soft = powers / powers.sum(1, keepdims=True)
    areas = [pairwise_auc(soft[:, c], labels == c) for c in range(3)]
    report = classification_report(logits, labels, NAMES)
    assert [report["per_class"][name]["auc"] for name in NAMES] == pytest.approx(areas)
    assert report["auc"] == pytest.approx(sum(areas) / 3)
    raw = [pairwise_auc(logits[:, c], labels == c) for c in range(3)]
    assert classification_report(logits, labels, NAMES, kind="scores")["auc"] == pytest.approx(sum(raw) / 3)
    assert abs(sum(raw) - sum(areas)) > 1e-3


def test_auc_of_two_classes_by_hand():
    # Ranks of class 1: 0.1 0.4 | 0.35 0.8; of the four pairs three are in order.
    second = np.array([0.1, 0.4, 0.35, 0.8])
    scores = np.stack([1 - second, second], axis=1)
    report = classification_report(scores, np.array([0, 0, 1, 1]), ("no", "yes"), kind="scores")
    assert report["auc"] == 0.75


def test_an_absent_class_is_null_and_said():
    report = classification_report(scores_for([0, 0, 1, 0]), np.array([0, 0, 1, 1]), NAMES)
    assert report["per_class"]["c"] == {
        "images": 0,
        "sensitivity": None,
        "specificity": 1.0,
        "precision": None,
        "f1": None,
        "auc": None,
    }
    # The mean is over the two classes that occur, as in scikit-learn: (4/5 + 2/3) / 2.
    assert report["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert report["auc"] == pytest.approx(0.75)
    assert report["notes"] == ["no images of c: sensitivity and AUC are undefined there and not averaged"]


def test_one_class_alone_has_no_auc():
    report = classification_report(scores_for([0, 0]), np.array([0, 0]), NAMES)
    assert report["auc"] is None
    assert report["per_class"]["a"]["specificity"] is None
    assert report["notes"][-1] == "AUC needs images of at least two classes; it is undefined here"


def test_equal_scores_go_to_the_lower_class_unless_predictions_are_given():
    scores = np.array([[5, 5, 1], [1, 7, 7]])
    labels = np.array([1, 2])
    assert classification_report(scores, labels, NAMES)["accuracy"] == 0.0
    report = classification_report(scores, labels, NAMES, predictions=np.array([1, 2]))
    assert report["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "names", "message"),
    [
        (np.zeros((2, 2)), [0, 1], NAMES, r"scores have shape \(2, 2\); expected \(images, 3\)"),
        (np.zeros((0, 3)), [], NAMES, r"scores have shape \(0, 3\)"),
        (np.full((1, 3), np.nan), [0], NAMES, "hold NaN, infinity or no numbers"),
        (np.array([["a", "b", "c"]]), [0], NAMES, "expected finite numbers"),
        (np.zeros((2, 3)), [0, 3], NAMES, "labels run from 0 to 3; allowed: 0 to 2"),
        (np.zeros((2, 3)), [-1, 0], NAMES, "labels run from -1 to 0"),
        (np.zeros((2, 3)), [0], NAMES, r"labels are int64 of shape \(1,\); expected \(2,\) integers"),
        (np.zeros((2, 3)), [0.0, 1.0], NAMES, "labels are float64"),
        (np.zeros((2, 2)), [0, 1], ("a", "a"), r"class names \['a', 'a'\] repeat"),
    ],
)
def test_what_does_not_fit_together_is_refused(scores, labels, names, message):
    with pytest.raises(DataError, match=message):
        classification_report(scores, labels, names)


def test_predictions_are_checked_like_labels():
    with pytest.raises(DataError, match="predictions run from 0 to 9; allowed: 0 to 2"):
        classification_report(np.zeros((2, 3)), [0, 1], NAMES, predictions=[0, 9])
