"""Images the GAN learns from and starts from: checks, pixels, batches in which every class has its turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gascnn.models.gan import check_sides, condition_of
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.training.batches import to_float
from gascnn.toolkit.training.inputs import DatasetLike, check_part


def to_plane(images: Tensor) -> Tensor:
    """uint8 (n, C, H, W) -> float32 ``2 pixel / 255 - 1`` in [-1, 1], tanh's range."""
    return 2 * to_float(images) - 1


def to_pixels(planes: Tensor) -> Tensor:
    """[-1, 1] (n, C, H, W) -> uint8, rounded; the inverse of :func:`to_plane`."""
    return ((planes + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def fitting_images(
    dataset: DatasetLike, image_shape: Sequence[int], classes: Sequence[str], framing: str
) -> tuple[Tensor, Tensor]:
    """Training images and labels, once they are known to be those a ResNet or a GAN takes.

    Args:
        dataset: its training split is read.
        image_shape: (C, H, W) that is wanted.
        classes: names that are wanted, in order.
        framing: that is wanted.

    Returns:
        uint8 (n, C, H, W) and int64 (n,).

    Raises:
        UsageError: no training images, or sides that are no multiple of 4.
        DataError: images of another size, framing or number of channels, other classes, fewer than two classes, a
            class without images.
    """
    try:
        check_sides(tuple(int(side) for side in image_shape[1:]))
    except ValueError as error:
        raise UsageError(f"{error}; train the ResNet with another --image-size") from error
    if tuple(dataset.image_shape) != tuple(image_shape):
        raise DataError(
            f"{dataset.name} has images of {tuple(dataset.image_shape)}, {tuple(image_shape)} are wanted; scale them, "
            "or train the ResNet on this size"
        )
    found = getattr(dataset, "framing", "whole")
    if found != framing:
        raise DataError(
            f"{dataset.name} has images framed as {found}, {framing} is wanted; load it framed as {framing}"
        )
    if tuple(dataset.class_names) != tuple(classes):
        raise DataError(
            f"{dataset.name} has classes {', '.join(dataset.class_names)}; wanted are {', '.join(classes)}; use the "
            "data set the ResNet was trained on"
        )
    if len(classes) < 2:
        raise DataError(f"{dataset.name} has {len(classes)} class; a condition in [0, 1] needs at least 2")
    if dataset.train is None or not len(dataset.train.labels):
        raise UsageError(f"data set {dataset.name} has no training images; name one that has")
    images, labels = check_part(dataset.train, "train", len(classes), image_shape)
    tensors = torch.tensor(images), torch.tensor(labels)
    counts = torch.bincount(tensors[1], minlength=len(classes))
    if not bool(counts.all()):
        empty = classes[int((counts == 0).nonzero()[0])]
        raise DataError(f"class {empty} of {dataset.name} has no training images; the GAN needs some of each class")
    return tensors


@dataclass(frozen=True)
class Batch:
    """What one iteration draws.

    Attributes:
        chosen: (n,) int64, indices of real images.
        wanted: (n,) float32, the conditions the generator is asked for.
        share: (n,) float32, U of equation 4.
    """

    chosen: Tensor
    wanted: Tensor
    share: Tensor


class BalancedDraw:
    """Real images of all classes in turn, so that the i-th drawn in a run is of class i mod K; images at random.

    Args:
        labels: (n,) int64, some of each class.
        classes: K.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        self.classes = classes
        self.order = torch.argsort(labels, stable=True)
        self.counts = torch.bincount(labels, minlength=classes)
        self.starts = torch.cumsum(self.counts, 0) - self.counts

    def batch(self, size: int, drawn: int, generator: Generator) -> Batch:
        """Draw images, conditions and interpolation.

        The condition is that of a class drawn uniformly, the image's own as likely as any other.

        Args:
            size: images.
            drawn: images drawn before in this run.
            generator: of all that is random.
        """
        turn = (torch.arange(size) + drawn) % self.classes
        within = (torch.rand(size, generator=generator, dtype=torch.float64) * self.counts[turn]).long()
        wanted = torch.randint(self.classes, (size,), generator=generator)
        share = torch.rand(size, generator=generator)
        return Batch(self.order[self.starts[turn] + within], condition_of(wanted, self.classes), share)

    def probe(self, size: int) -> Tensor:
        """Indices of the first images of each class in turn, at most ``size``, the same whenever it is asked."""
        ranks = range(int(self.counts.max()))
        turns = [int(self.order[self.starts[k] + r]) for r in ranks for k in range(self.classes) if r < self.counts[k]]
        return torch.tensor(turns[:size])
