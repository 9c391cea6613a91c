"""An exported file against the PyTorch network it came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gascnn.exporters.onnx.session import OnnxSession
from gascnn.toolkit.errors import CheckFailed

TOLERANCE = 1e-4
"""How far float32 values may differ, as a share of the largest value of the network's outputs.

Both compute in float32 (rounding 6e-8), but add up in another order and with batch norms folded or not; a sum of n
products then differs by about sqrt(n) roundings a layer. Twenty layers of 4608 products (ResNet-18) give some 1e-5 at
worst; ten times that is still far below what any wrong weight, stride or padding does.
"""

BATCH_SIZE = 16
"""Images at once: the check's images fill several batches and one of another size."""

PROBE_IMAGES = 33

AGREEING_IMAGES = 0.95
"""Least share of images on which a client of PGSL must agree within :data:`TOLERANCE`.

Its attack has steps where a network of ReLUs has kinks: a hidden value of 1e-9 in one program and 0 in the other opens
or closes a path of the gradient, and two pixels that rank equal change places. That happens to an image now and then,
by rounding alone; a wrong graph differs on nearly every image.
"""

FEW_IMAGES = 20
"""Below which that share is all of them, so that rounding on one is taken for a fault."""

_FEW = f". Rounding alone may turn the attack on one image: check on {FEW_IMAGES} or more"


@dataclass(frozen=True)
class Comparison:
    """Of a file with PyTorch on the same images.

    Attributes:
        images: how many.
        tolerance: allowed share of the largest value; None of int8, whose rounding is meant.
        largest_difference: of a value, as that share.
        agreeing_images: share of images whose values all differ by less than :data:`TOLERANCE`.
        equal_answers: share of images with the same largest output; None of activations, which answer nothing.
        accuracy, torch_accuracy: shares of right answers of both; None without labels.
    """

    images: int
    tolerance: float | None
    largest_difference: float
    agreeing_images: float
    equal_answers: float | None
    accuracy: float | None = None
    torch_accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def probe_images(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Images (33, C, H, W) to compare on where there are none: noise of three grains, each at its own contrast."""
    channels, height, width = shape
    generator = np.random.default_rng(0)
    images = np.empty((PROBE_IMAGES, *shape), np.uint8)
    for i, grain in enumerate((1, 2, 4) * (PROBE_IMAGES // 3)):
        coarse = generator.random((channels, -(-height // grain), -(-width // grain))) * generator.integers(32, 256)
        images[i] = coarse.repeat(grain, axis=1).repeat(grain, axis=2)[:, :height, :width]
    return images


def torch_outputs(model: nn.Module, images: npt.NDArray[np.uint8], pixel_max: int) -> npt.NDArray[np.float32]:
    """The network's outputs (n, ...) on uint8 images, in evaluation mode."""
    model.eval()
    results = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH_SIZE]))
            results.append(model(batch.to(torch.float32) / pixel_max).numpy())
    return np.concatenate(results)


def compare(
    session: OnnxSession,
    model: nn.Module,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64] | None = None,
) -> Comparison:
    """Run both on images (n, C, H, W) uint8, n at least 1.

    Of a float32 classifier, values must agree within :data:`TOLERANCE`, and so must the answer of every image whose two
    best classes are further apart than two such differences; of a float32 client, values on :data:`AGREEING_IMAGES`.
    Of an int8 file the differences are reported.

    Raises:
        CheckFailed: a float32 file differs; says by how much. Or NaN came out of an int8 file or of PyTorch.
    """
    metadata = session.metadata
    found = session.run(images, BATCH_SIZE)
    expected = torch_outputs(model, images, metadata.pixel_max)
    largest = float(np.abs(expected).max()) or 1.0
    differences = np.abs(found - expected).reshape(len(images), -1).max(axis=1) / largest
    agreeing = differences <= TOLERANCE  # NaN is a difference too
    same = _answers(found) == _answers(expected)
    answers = metadata.part == "resnet"
    if metadata.precision == "fp32":
        needed = 1.0 if answers else AGREEING_IMAGES
        if not agreeing.mean() >= needed:
            raise CheckFailed(
                f"onnxruntime and torch differ by {differences.max():.2g} of the largest output, on "
                f"{int((~agreeing).sum())} of {len(images)} images by more than the {TOLERANCE:g} that is allowed; "
                f"nothing was written{'' if answers or len(images) >= FEW_IMAGES else _FEW}"
            )
        if answers and not np.all(same | (_margins(expected) <= 2 * TOLERANCE * largest)):
            raise CheckFailed(
                f"onnxruntime and torch answer differently on {int((~same).sum())} images; nothing was written"
            )
    elif not np.isfinite(differences).all():
        raise CheckFailed("the network gives NaN or infinity on the images to check on; nothing was written")
    return Comparison(
        images=len(images),
        tolerance=TOLERANCE if metadata.precision == "fp32" else None,
        largest_difference=float(differences.max()),
        agreeing_images=float(agreeing.mean()),
        equal_answers=float(same.mean()) if answers else None,
        accuracy=None if labels is None else float((_answers(found) == labels).mean()),
        torch_accuracy=None if labels is None else float((_answers(expected) == labels).mean()),
    )


def _answers(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    answers: npt.NDArray[np.int64] = outputs.reshape(len(outputs), -1).argmax(axis=1).astype(np.int64)
    return answers


def _margins(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    best = np.sort(outputs.reshape(len(outputs), -1), axis=1)[:, -2:]
    margins: npt.NDArray[np.float32] = best[:, 1] - best[:, 0]
    return margins
