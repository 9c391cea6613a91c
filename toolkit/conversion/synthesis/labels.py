"""Soft labels for images that are yet to be made: a Dirichlet for each class, around its similarity to the others.

Nayak et al., "Zero-Shot Knowledge Distillation in Deep Networks" (ICML 2019), as PrivateSNN (Kim et al., AAAI 2022)
uses it: the rows of a classifier's last weights are templates of the classes, and their cosines say which classes the
network takes for alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import ConversionError, UsageError

FLOOR = 1e-3
"""Least concentration before scaling: that of the class least alike is 0, for which there is no Dirichlet."""

Floats = npt.NDArray[np.float64]


def class_similarity(weight: npt.NDArray[np.floating]) -> Floats:
    """Cosines between the rows of a last layer's weights, ``w_i . w_j / (|w_i| |w_j|)``.

    Args:
        weight: (class, feature), finite.

    Returns:
        (class, class) float64 in -1..1, 1 on the diagonal.

    Raises:
        ConversionError: fewer than two classes, NaN or infinity, or a class whose weights are all zero.
    """
    rows = np.asarray(weight, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ConversionError(
            f"the last layer's weights have shape {rows.shape}; soft labels need at least two classes (class, feature)"
        )
    if not np.all(np.isfinite(rows)):
        raise ConversionError("the last layer's weights hold NaN or infinity; train again")
    lengths = np.sqrt((rows * rows).sum(axis=1))
    if not lengths.all():
        raise ConversionError(f"all weights of class {int(np.argmin(lengths))} in the last layer are 0; train again")
    rows = rows / lengths[:, None]
    cosines: Floats = np.clip(rows @ rows.T, -1.0, 1.0)
    return cosines


def concentration(similarity: Floats, scale: float = 1.0, floor: float = FLOOR) -> Floats:
    """Concentrations of a Dirichlet for each class: each row spread over 0..1, made positive, times ``scale``.

    Args:
        similarity: (class, class) of :func:`class_similarity`.
        scale: a large one keeps labels close to the row's proportions, a small one makes them nearly hard.
        floor: takes the place of what is smaller.

    Returns:
        (class, class) float64, ``scale max(floor, (s - min s) / (max s - min s))`` row by row; a row of equal
        similarities (classes that cannot be told apart) becomes ``scale`` everywhere.

    Raises:
        UsageError: scale or floor that are not positive.
    """
    if not (np.isfinite(scale) and scale > 0 and 0 < floor <= 1):
        raise UsageError(f"scale {scale} and floor {floor}; scale must be above 0, floor above 0 and at most 1")
    low, high = similarity.min(axis=1, keepdims=True), similarity.max(axis=1, keepdims=True)
    span = high - low
    spread = np.where(span > 0, (similarity - low) / np.where(span > 0, span, 1.0), 1.0)
    concentrations: Floats = scale * np.maximum(spread, floor)
    return concentrations


def draw_soft_labels(
    concentrations: Floats, classes: npt.NDArray[np.integer], generator: np.random.Generator
) -> Floats:
    """One soft label for each image.

    Args:
        concentrations: (class, class), positive.
        classes: (n,) whose Dirichlet each is drawn from.
        generator: of all that is random.

    Returns:
        (n, class) float64, each row 0..1 with sum 1.
    """
    return np.stack([generator.dirichlet(concentrations[k]) for k in classes])
