"""PGSL's network without a split, in which attacked, reconstructed and clean images are classified."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.benchmarks.pgsl.training import Recipe, batches
from gascnn.models.pgsl import Stream
from gascnn.toolkit.errors import TrainingError, UsageError
from gascnn.toolkit.pgsl.local import check_images
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import make_optimizer, set_learning_rate


class PlainCnn(nn.Module):
    """Seven convolutions and two fully connected layers (section IV-F), the split network's shape in one piece.

    The first two convolutions are the client's, at half the image's size behind the reversible down-sampling but
    without the map's channel; the other five and what follows are one of the server's streams.

    Args:
        in_channels: of the images.
        classes: number of outputs.
        image_size: pixels a side, even.
        options: ``width``, ``strides``, ``hidden``, ``grid`` and ``dropout`` are used.

    Raises:
        UsageError: an odd image size.
    """

    def __init__(self, in_channels: int, classes: int, image_size: int, options: PgslOptions) -> None:
        super().__init__()
        if image_size % 2:
            raise UsageError(
                f"image_size is {image_size}; reversible down-sampling takes even sizes; resize the images"
            )
        width = options.width
        self.in_channels, self.classes, self.image_size = in_channels, classes, image_size
        self.front = nn.Sequential(
            *(nn.Conv2d(4 * in_channels, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width)),
        )
        self.stream = Stream(
            width // 4,
            classes,
            width=width,
            strides=options.strides,
            hidden=options.hidden,
            grid=options.grid,
            dropout=options.dropout,
            image_size=image_size,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, in_channels, image_size, image_size), float in [0, 1] -> logits (n, classes)."""
        maps = F.pixel_shuffle(self.front(F.pixel_unshuffle(images, 2)), 2)
        return cast(Tensor, self.stream(maps))


def train_plain(
    images: Tensor, labels: Tensor, classes: int, options: PgslOptions, recipe: Recipe | None = None
) -> PlainCnn:
    """Train the network as the split one is: Adam, its decay, batch size, epochs and order of the images.

    Args:
        images: uint8 (n, C, size, size).
        labels: int64 (n,).
        classes: number of outputs.
        options: as for the split network; the seed determines weights, order, augmentation and dropout.
        recipe: how the images are presented; its ``changes`` are not looked at.

    Returns:
        The network in evaluation mode. torch's global random state is left as it was.

    Raises:
        DataError: images or labels of another shape or dtype.
        UsageError: an odd image size.
        TrainingError: the loss is no longer a finite number.
    """
    check_images(images, labels, classes, least=2)
    recipe = Recipe() if recipe is None else recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = PlainCnn(images.shape[1], classes, images.shape[2], options)
        model.train()
        optimizer = make_optimizer(model, options)
        for step, (_, batch, targets) in enumerate(batches(images, labels, classes, options, recipe)):
            set_learning_rate(optimizer, options, step)
            loss = F.cross_entropy(model(batch), targets)
            if not math.isfinite(float(loss.detach())):
                raise TrainingError(
                    f"the plain network's loss became {float(loss.detach())} in step {step + 1}; "
                    f"lower learning_rate ({options.learning_rate:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return model.eval()
