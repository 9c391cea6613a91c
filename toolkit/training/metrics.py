"""Figures of a classifier: accuracy, macro-F1, sensitivity and specificity a class, AUC, confusion matrix.

With TP, FN, FP, TN the images of a class found, missed, wrongly given it and rightly denied it::

    sensitivity = TP / (TP + FN)      precision = TP / (TP + FP)
    specificity = TN / (TN + FP)      F1        = 2 TP / (2 TP + FP + FN)

Macro-F1 is the plain mean of F1 over the classes that occur among labels or predictions. AUC is the area under the
ROC curve of one class against the rest, and its plain mean. What is undefined is null, is left out of the mean, and
is said in ``notes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError

ScoreKind = Literal["logits", "scores"]


def classification_report(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    kind: ScoreKind = "logits",
    predictions: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """All figures of one set of images, as plain values that JSON can hold.

    Args:
        scores: (n, classes), finite numbers; the largest is the prediction, the lower class of equals.
        labels: (n,), integers 0 .. classes - 1.
        class_names: one a class, in the order of the scores.
        kind: ``logits`` are turned into probabilities (softmax) before images are ranked for the AUC; ``scores``
            (probabilities, spike counts) are ranked as they are.
        predictions: (n,) classes to use in place of the largest score, where ties were settled by other means.

    Returns:
        ``images``, ``accuracy``, ``macro_f1``, ``auc``, ``per_class`` (by name: ``images``, ``sensitivity``,
        ``specificity``, ``precision``, ``f1``, ``auc``), ``confusion_matrix`` (rows: label, columns: prediction) and
        ``notes``. Undefined figures are None.

    Raises:
        DataError: no images, NaN, or shapes, labels and names that do not fit together.
    """
    from sklearn.metrics import confusion_matrix, f1_score

    values, truth = _checked(scores, labels, class_names)
    count = len(class_names)
    found = values.argmax(axis=1)
    if predictions is not None:
        found = _checked_labels(predictions, len(values), count, "prediction")
    matrix = confusion_matrix(truth, found, labels=np.arange(count))
    ranks = _softmax(values) if kind == "logits" else values
    notes: list[str] = []
    per_class = {str(name): _class_figures(matrix, ranks, truth, i) for i, name in enumerate(class_names)}
    areas = [figures["auc"] for figures in per_class.values() if figures["auc"] is not None]
    absent = [name for name, figures in per_class.items() if figures["images"] == 0]
    if absent:
        notes.append(f"no images of {', '.join(absent)}: sensitivity and AUC are undefined there and not averaged")
    if not areas:
        notes.append("AUC needs images of at least two classes; it is undefined here")
    return {
        "images": len(values),
        "accuracy": float(np.mean(found == truth)),
        "macro_f1": float(f1_score(truth, found, average="macro", zero_division=0.0)),
        "auc": float(np.mean(areas)) if areas else None,
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
        "notes": notes,
    }


def _class_figures(
    matrix: npt.NDArray[np.int64], ranks: npt.NDArray[np.float64], truth: npt.NDArray[np.int64], index: int
) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    hits = int(matrix[index, index])
    positives, predicted, total = int(matrix[index].sum()), int(matrix[:, index].sum()), int(matrix.sum())
    false_alarms = predicted - hits
    negatives = total - positives
    ranked = positives > 0 and negatives > 0
    return {
        "images": positives,
        "sensitivity": _ratio(hits, positives),
        "specificity": _ratio(negatives - false_alarms, negatives),
        "precision": _ratio(hits, predicted),
        "f1": _ratio(2 * hits, positives + predicted),
        "auc": float(roc_auc_score(truth == index, ranks[:, index])) if ranked else None,
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers: npt.NDArray[np.float64] = np.exp(values - values.max(axis=1, keepdims=True))
    total: npt.NDArray[np.float64] = powers.sum(axis=1, keepdims=True)
    return powers / total


def _checked(
    scores: npt.ArrayLike, labels: npt.ArrayLike, class_names: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    values = np.asarray(scores)
    count = len(class_names)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] != count:
        raise DataError(f"scores have shape {values.shape}; expected (images, {count}), one column a class name")
    if values.dtype.kind not in "biuf" or not np.all(np.isfinite(values)):
        raise DataError(f"scores of type {values.dtype} hold NaN, infinity or no numbers; expected finite numbers")
    if len(set(class_names)) != count:
        raise DataError(f"class names {list(class_names)} repeat; give each class a name of its own")
    return values.astype(np.float64), _checked_labels(labels, len(values), count, "label")


def _checked_labels(labels: npt.ArrayLike, images: int, classes: int, what: str) -> npt.NDArray[np.int64]:
    values = np.asarray(labels)
    if values.shape != (images,) or values.dtype.kind not in "iu":
        raise DataError(f"{what}s are {values.dtype} of shape {values.shape}; expected ({images},) integers")
    if values.min() < 0 or values.max() >= classes:
        raise DataError(f"{what}s run from {values.min()} to {values.max()}; allowed: 0 to {classes - 1}")
    return values.astype(np.int64)
