"""Scores and figures of a trained network on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.training.batches import to_float
from gascnn.toolkit.training.inputs import ImageSetLike
from gascnn.toolkit.training.metrics import classification_report


def predict_scores(
    model: nn.Module, images: npt.NDArray[np.uint8], *, batch_size: int = 256
) -> npt.NDArray[np.float32]:
    """Logits of a network, in evaluation mode, for images as they are stored.

    Args:
        model: takes (n, C, H, W) float32, ``pixel / 255``; its training mode is put back afterwards.
        images: (n, C, H, W) uint8.
        batch_size: images at a time; only speed and memory depend on it.

    Returns:
        (n, classes) float32.

    Raises:
        DataError: no images, or not uint8 (n, C, H, W).
        UsageError: ``batch_size`` below 1.
    """
    values = np.asarray(images)
    if values.dtype != np.uint8 or values.ndim != 4 or len(values) < 1:
        raise DataError(f"images are {values.dtype} of shape {values.shape}; expected uint8 (n, C, H, W), at least one")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            parts = [
                model(to_float(torch.tensor(values[start : start + batch_size])))
                for start in range(0, len(values), batch_size)
            ]
    finally:
        for module, mode in modes:
            module.training = mode
    scores: npt.NDArray[np.float32] = torch.cat(parts).detach().to(torch.float32).numpy()
    return scores


def evaluate(
    model: nn.Module, image_set: ImageSetLike, class_names: Sequence[str], *, batch_size: int = 256
) -> dict[str, Any]:
    """The figures of :func:`gascnn.toolkit.training.metrics.classification_report` for a network on images.

    Args:
        model: a network that takes ``pixel / 255``.
        image_set: images (n, C, H, W) uint8 and labels (n,).
        class_names: in the order of the network's outputs.
        batch_size: images at a time.

    Raises:
        DataError: images or labels that cannot be used, or scores that are not numbers.
    """
    scores = predict_scores(model, image_set.images, batch_size=batch_size)
    return classification_report(scores, image_set.labels, class_names)
