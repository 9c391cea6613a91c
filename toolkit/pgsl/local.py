"""The client's own small classifier, trained on the client before anything is sent."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.errors import DataError, TrainingError, UsageError
from gascnn.toolkit.pgsl.options import LocalOptions
from gascnn.toolkit.training.batches import to_float

EVALUATION_BATCH = 256


def train_local_classifier(
    images: Tensor, labels: Tensor, classes: int, options: LocalOptions | None = None
) -> LocalClassifier:
    """Train the classifier whose saliency map the client attacks with.

    It learns from the client's own training images and labels, once; afterwards the attack goes by its predictions.

    Args:
        images: uint8 (n, C, size, size).
        labels: int64 (n,).
        classes: number of outputs.
        options: how.

    Returns:
        The classifier with frozen parameters. The same images, options and number of threads give the same bits;
        torch's global random state is left as it was.

    Raises:
        DataError: images or labels of another shape or dtype, or a label beyond the classes.
        UsageError: sizes the classifier does not take.
        TrainingError: the loss is no longer a finite number.
    """
    options = LocalOptions() if options is None else options
    check_images(images, labels, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        try:
            classifier = LocalClassifier(images.shape[1], classes, images.shape[2], options.width)
        except ValueError as error:
            raise UsageError(str(error)) from error
    optimizer = torch.optim.Adam(classifier.parameters(), lr=options.learning_rate)
    generator = torch.Generator().manual_seed(options.seed)
    steps = options.epochs * math.ceil(len(images) / options.batch_size)
    step = 0
    for epoch in range(options.epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(options.batch_size):
            optimizer.param_groups[0]["lr"] = options.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            loss = F.cross_entropy(classifier(to_float(images[chosen])), labels[chosen])
            if not math.isfinite(float(loss.detach())):
                raise TrainingError(
                    f"the local classifier's loss became {float(loss.detach())} in epoch {epoch + 1}; "
                    f"lower its learning_rate ({options.learning_rate:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
    return classifier.requires_grad_(False)


@torch.no_grad()
def local_accuracy(classifier: LocalClassifier, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images (n, C, size, size) that the classifier gives their label."""
    right = 0
    for start in range(0, len(images), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        right += int((classifier(to_float(images[part])).argmax(1) == labels[part]).sum())
    return right / len(images)


def check_images(images: Tensor, labels: Tensor, classes: int, least: int = 1) -> None:
    """Refuse what no network here is trained on.

    Args:
        images: uint8 (n, C, size, size).
        labels: int64 (n,) below ``classes``.
        classes: number of outputs.
        least: number of images that are needed.

    Raises:
        DataError: images or labels of another shape or dtype, too few, or a label beyond the classes.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3] or len(images) < least:
        raise DataError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected uint8 (n, C, size, size), n at least "
            f"{least}"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise DataError(f"labels are {labels.dtype} of shape {tuple(labels.shape)}; expected int64 ({len(images)},)")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"labels reach from {int(labels.min())} to {int(labels.max())}; allowed: 0 to {classes - 1}")
