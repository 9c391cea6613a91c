"""How training images are presented to PGSL's networks, split or in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gascnn.toolkit.option_checks import check_ranges
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import Gradient, SplitClient, SplitServer, train_step
from gascnn.toolkit.pgsl.train import epoch_batches
from gascnn.toolkit.training.augment import policy
from gascnn.toolkit.training.batches import epoch_order, to_float
from gascnn.toolkit.training.options import TrainingOptions

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Recipe:
    """How training images are presented, and what else is tried: validation images choose between recipes.

    Attributes:
        name: of the recipe in the report.
        augmentation: a policy of :mod:`gascnn.toolkit.training.augment`; ``none`` is the paper's.
        balance: images of a class are drawn in proportion to (1 / images of the class) to this power; 0 shows each
            image once an epoch, 1 the same number of each class.
        changes: names and values of :class:`PgslOptions` that this recipe has other than the settings.
    """

    name: str = "plain"
    augmentation: str = "none"
    balance: float = 0.0
    changes: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: an unknown policy or option, a balance out of range.
        """
        policy(self.augmentation)
        check_ranges(self, {"balance": (0.0, 1.0, False)})
        self.options(PgslOptions())

    def options(self, base: PgslOptions) -> PgslOptions:
        """``base`` with this recipe's changes."""
        return PgslOptions.from_dict(base.to_dict() | dict(self.changes))


def train_split(
    client: SplitClient,
    server: SplitServer,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe | None = None,
    on_step: Callable[[int, Gradient], None] | None = None,
) -> None:
    """Train client and server on images presented as the recipe says.

    With a recipe that changes nothing this makes the steps of :func:`gascnn.toolkit.pgsl.train.train_epochs`.

    Args:
        client: trained in place.
        server: trained in place.
        images: uint8 (n, C, size, size).
        labels: int64 (n,).
        recipe: how the images are presented; its ``changes`` are not looked at.
        on_step: called after each step with the epoch, from 0, and what the server sent.

    Raises:
        DataError: images or labels that the server refuses.
        TrainingError: a loss that is not finite.
    """
    recipe = Recipe() if recipe is None else recipe
    for epoch, batch, targets in batches(images, labels, server.model.classes, server.options, recipe):
        reply = train_step(client, server, batch, targets)
        if on_step is not None:
            on_step(epoch, reply)


def batches(
    images: Tensor, labels: Tensor, classes: int, options: PgslOptions, recipe: Recipe
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Epoch, float images and labels of each batch, a function of the seed alone.

    A last, smaller batch of an epoch is left out, its images come in another epoch.

    Raises:
        DataError: classes are to be balanced and one has no images.
    """
    change = policy(recipe.augmentation)
    generator = torch.Generator().manual_seed(options.seed)
    for epoch in range(options.epochs):
        for chosen in _epoch(labels, classes, epoch, options, recipe):
            yield epoch, change(to_float(images[chosen]), generator), labels[chosen]


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """(n,) int64 classes of uint8 images (n, C, size, size)."""
    return torch.cat([model(to_float(part)).argmax(1) for part in images.split(EVALUATION_BATCH)])


def _epoch(labels: Tensor, classes: int, epoch: int, options: PgslOptions, recipe: Recipe) -> list[Tensor]:
    if not recipe.balance:
        return epoch_batches(len(labels), epoch, options)
    generator = torch.Generator().manual_seed(options.seed + 1_000_003 * epoch)
    sampling = TrainingOptions(balance="sampling", balance_power=recipe.balance)
    size = min(options.batch_size, len(labels))
    return list(epoch_order(labels, classes, sampling, generator)[: len(labels) // size * size].split(size))
