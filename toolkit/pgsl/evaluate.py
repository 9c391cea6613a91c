"""Figures of a split network: accuracy of the decision and of each stream, with intervals, for any client.

The client may be the trained one in PyTorch or a file of it in onnxruntime: all that counts is the activations it
sends. So what 8 bits on the board cost is measured where it matters, in the server's answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.toolkit.errors import DataError
from gascnn.toolkit.pgsl.split import Answer, SplitClient, SplitServer, Upload
from gascnn.toolkit.pgsl.train import EVALUATION_BATCH
from gascnn.toolkit.training.batches import to_float
from gascnn.toolkit.wilson import wilson_interval

Activations = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""A client: images (n, C, size, size) uint8 to activations (n, width, size/2, size/2)."""


def torch_activations(client: SplitClient) -> Activations:
    """What the client sends for images, computed by PyTorch."""

    def activations(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = client.query(to_float(torch.from_numpy(images.copy()))).activations.numpy()
        return found

    return activations


def answers_to(
    server: SplitServer,
    activations: Activations,
    images: npt.NDArray[np.uint8],
    progress: Callable[[int], None] | None = None,
) -> Answer:
    """The server's scores for what a client sends, always in the same batches.

    Args:
        server: asked in evaluation mode.
        activations: the client.
        images: (n, C, size, size) uint8.
        progress: told how many images are done.

    Raises:
        DataError: no images, or activations that the server does not take.
    """
    if not len(images):
        raise DataError("there are no images to classify; give at least one")
    parts = []
    for start in range(0, len(images), EVALUATION_BATCH):
        part = images[start : start + EVALUATION_BATCH]
        parts.append(server.answer(Upload(torch.from_numpy(activations(part)))))
        if progress is not None:
            progress(start + len(part))
    names = ("scores", "attacked", "fused", "recovered")
    return Answer(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def decisions(answer: Answer) -> dict[str, npt.NDArray[np.int64]]:
    """Classes (n,) by the decision (``fusion``) and by each stream; of equal scores the first."""
    streams: dict[str, Tensor] = {
        "fusion": answer.scores,
        "recovered": answer.recovered,
        "fused": answer.fused,
        "attacked": answer.attacked,
    }
    return {name: scores.argmax(1).numpy() for name, scores in streams.items()}


def figures(answer: Answer, labels: npt.NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """Accuracy of the decision and of each stream: ``accuracy`` and ``interval``, Wilson's of 95 %, by name."""
    found = {}
    for name, classes in decisions(answer).items():
        right = int((classes == labels).sum())
        found[name] = {"accuracy": right / len(labels), "interval": list(wilson_interval(right, len(labels)))}
    return found


def agreement(first: Answer, second: Answer, labels: npt.NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """How answers to the same images differ, by decision and stream.

    Returns:
        ``equal_answers``, a share of the images, and ``lost`` and ``gained``: how many the first alone and the second
        alone gave their label.
    """
    others = decisions(second)
    return {
        name: {
            "equal_answers": float((classes == others[name]).mean()),
            "lost": int(((classes == labels) & (others[name] != labels)).sum()),
            "gained": int(((classes != labels) & (others[name] == labels)).sum()),
        }
        for name, classes in decisions(first).items()
    }
