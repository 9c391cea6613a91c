"""The networks of one seed, each trained when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gascnn.benchmarks.pgsl.attacks import attack_images
from gascnn.benchmarks.pgsl.partition import Partition
from gascnn.benchmarks.pgsl.plain import PlainCnn, train_plain
from gascnn.benchmarks.pgsl.presets import Settings
from gascnn.benchmarks.pgsl.training import Recipe, predictions, train_split
from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.pgsl.local import train_local_classifier
from gascnn.toolkit.pgsl.split import Answer, SplitClient, SplitServer
from gascnn.toolkit.pgsl.train import answers, make_client, make_server
from gascnn.toolkit.training.batches import to_float

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class SplitNetwork:
    """A trained client and server."""

    client: SplitClient
    server: SplitServer

    def answer(self, images: Tensor) -> Answer:
        """Scores of uint8 images (n, C, size, size)."""
        return answers(self.client, self.server, images)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A network and how it came to be.

    Attributes:
        model: a :class:`SplitNetwork` or a :class:`PlainCnn`.
        recipe: that with the highest accuracy on validation images, the first of equals.
        validation: by recipe, that accuracy.
    """

    model: Any
    recipe: Recipe
    validation: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The choice, for JSON."""
        return {"recipe": self.recipe.name, "validation_accuracy": self.validation}


class SeedNetworks:
    """Local classifier, split network and plain network of one seed; deterministic, so they can be made again.

    Args:
        settings: of all.
        seed: of this one.
        partition: its images.
        progress: told what is begun.
    """

    def __init__(self, settings: Settings, seed: int, partition: Partition, progress: Progress) -> None:
        self.settings, self.seed, self.partition, self._progress = settings, seed, partition, progress

    @cached_property
    def local(self) -> LocalClassifier:
        """The client's own classifier, trained on the seed's training images."""
        self.tell("local classifier")
        train = self.partition.train
        return train_local_classifier(
            train.images, train.labels, self.partition.classes, self.settings.local_options(self.seed)
        )

    @cached_property
    def split(self) -> Chosen:
        """The split network; recipes are compared by the decision's accuracy on validation images."""

        def accuracy(network: SplitNetwork) -> float:
            return _share(network.answer(self.partition.val.images).scores.argmax(1), self.partition.val.labels)

        return self._choose("split network", self._train_split, accuracy)

    @cached_property
    def plain(self) -> Chosen:
        """The plain network on clean images; recipes are compared by its accuracy on clean validation images."""

        def train(recipe: Recipe) -> PlainCnn:
            return self.train_plain(self.partition.train.images, recipe)

        def accuracy(model: PlainCnn) -> float:
            return _share(predictions(model, self.partition.val.images), self.partition.val.labels)

        return self._choose("plain network", train, accuracy)

    def train_plain(self, images: Tensor, recipe: Recipe) -> PlainCnn:
        """A plain network for the first training images, attacked or as they are."""
        labels = self.partition.train.labels[: len(images)]
        options = self.settings.split_options(self.seed, recipe)
        return train_plain(images, labels, self.partition.classes, options, recipe)

    def attack(self, name: str, images: Tensor, model: nn.Module | None = None) -> Tensor:
        """uint8 images attacked by what ``model`` predicts, the local classifier if None."""
        attacked = self.local if model is None else model
        settings = self.settings
        return attack_images(name, images, attacked, self.partition.classes, settings.strengths, settings.options)

    def change(self, images: Tensor, attacked: Tensor) -> dict[str, float]:
        """How far 8-bit images were moved, pixels of 0 to 1, and how many the local classifier then calls another."""
        difference = torch.flatten(to_float(attacked) - to_float(images), 1)
        before, after = predictions(self.local, images), predictions(self.local, attacked)
        return {
            "mean_l2": float(difference.norm(dim=1).double().mean()),
            "largest_change": float(difference.abs().max()),
            "pixels_changed": float((difference != 0).sum(1).double().mean()),
            "local_answers_changed": float((before != after).double().mean()),
        }

    def tell(self, what: str) -> None:
        """Say what is begun."""
        self._progress(f"{self.settings.data}, seed {self.seed}: {what}")

    def _train_split(self, recipe: Recipe) -> SplitNetwork:
        train, options = self.partition.train, self.settings.split_options(self.seed, recipe)
        size = train.images.shape[2]
        network = SplitNetwork(make_client(self.local, options), make_server(self.partition.classes, size, options))
        train_split(network.client, network.server, train.images, train.labels, recipe)
        return network

    def _choose(self, what: str, train: Callable[[Recipe], Any], accuracy: Callable[[Any], float]) -> Chosen:
        models, validation = [], []
        for recipe in self.settings.recipes:
            self.tell(f"{what}, {recipe.name}")
            models.append(train(recipe))
            validation.append(accuracy(models[-1]))
        place = _first_best(validation)
        names = [recipe.name for recipe in self.settings.recipes]
        return Chosen(models[place], self.settings.recipes[place], dict(zip(names, validation, strict=True)))


def _share(answers_: Tensor, labels: Tensor) -> float:
    return float((answers_ == labels).double().mean())


def _first_best(figures: Sequence[float]) -> int:
    return max(range(len(figures)), key=lambda place: (figures[place], -place))
