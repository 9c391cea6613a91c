"""The split networks of PGSL's Table I: without attack, with it, and with noise, and what an adversary does to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gascnn.benchmarks.pgsl.partition import Partition
from gascnn.benchmarks.pgsl.reconstruction_settings import ReconstructionSettings
from gascnn.benchmarks.pgsl.reconstructors import QUERY_BATCH, Reconstruct, reconstructors, sent, to_pixels
from gascnn.benchmarks.pgsl.stand_in import LaplacianNoise, NoAttack
from gascnn.benchmarks.pgsl.training import train_split
from gascnn.models.pgsl import PgslClient, PgslServer
from gascnn.models.saliency import LocalClassifier
from gascnn.toolkit.pgsl.local import train_local_classifier
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.train import make_client, make_recover, make_server
from gascnn.toolkit.training.batches import to_float

NONE, JSMA, NOISE = "none", "jsma", "laplacian"
ITSELF = "image itself"

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Attacked:
    """A trained client and server, and the adversary's methods against them."""

    client: PgslClient
    server: PgslServer
    methods: dict[str, Reconstruct]


class SeedSystems:
    """The split networks of one seed, each trained when first asked for; deterministic, so they can be made again.

    Args:
        settings: of all.
        seed: of this one.
        partition: its images.
        progress: told what is begun.
    """

    def __init__(self, settings: ReconstructionSettings, seed: int, partition: Partition, progress: Progress) -> None:
        self.settings, self.seed, self.partition, self._progress = settings, seed, partition, progress
        self.targets = partition.test.take(settings.images)
        self._trained: dict[tuple[str, int], Attacked] = {}

    @cached_property
    def options(self) -> PgslOptions:
        """Of the split network with its attack."""
        return replace(self.settings.recipe.options(self.settings.options), seed=self.seed)

    @cached_property
    def local(self) -> LocalClassifier:
        """The client's own classifier."""
        self.tell("local classifier")
        train = self.partition.train
        options = replace(self.settings.local, seed=self.seed)
        return train_local_classifier(train.images, train.labels, self.partition.classes, options)

    def system(self, defence: str, pixels: int) -> Attacked:
        """The split network with a defence; ``pixels`` is k of JSMA. 0 of them, or another defence, has no recovery."""
        key = (defence, pixels if defence == JSMA else 0)
        if key not in self._trained:
            self._trained[key] = self._train(*key)
        return self._trained[key]

    def recover(self, images: Tensor) -> Tensor:
        """The server's robust PCA of uint8 images, each channel a matrix of its own."""
        return to_pixels(make_recover(self.options)(to_float(images)))

    def mean_image(self) -> Tensor:
        """For each image that is reconstructed the mean of the adversary's own."""
        own = self.partition.val.images
        return to_pixels(to_float(own).mean(0, keepdim=True)).expand(len(self.targets.labels), -1, -1, -1)

    def tell(self, what: str) -> None:
        """Say what is begun."""
        self._progress(f"{self.settings.data}, seed {self.seed}: {what}")

    @torch.no_grad()
    def fused_accuracy(self, system: Attacked) -> float:
        """Of the stream whose gradients leak, on the images that are reconstructed."""
        activations = sent(system.client, self.targets.images)
        right = [
            int((system.server(part).fused.argmax(1) == labels).sum())
            for part, labels in zip(activations.split(QUERY_BATCH), self.targets.labels.split(QUERY_BATCH), strict=True)
        ]
        return sum(right) / len(self.targets.labels)

    def _train(self, defence: str, pixels: int) -> Attacked:
        train, options = self.partition.train, self.options
        attacked = defence == JSMA and pixels > 0
        options = replace(options, pixels=pixels) if attacked else replace(options, recovery="none")
        self.tell(f"split network, {defence}" + (f" {pixels}" if pixels else ""))
        client = make_client(self.local, options)
        if defence == NOISE:
            client.model.attack = LaplacianNoise(self.local, self.settings.laplace_scale, self.seed)
        elif not attacked:
            client.model.attack = NoAttack(self.local)
        server = make_server(self.partition.classes, train.images.shape[2], options)
        train_split(client, server, train.images, train.labels, self.settings.recipe)
        methods = reconstructors(
            client.model, server.model, self.partition.val.images, self.settings.methods, self.tell
        )
        methods[ITSELF] = _Itself(client.model)
        return Attacked(client.model.eval(), server.model.eval(), methods)


class _Itself:
    """What the client's attack makes of the images, at 8 bits."""

    def __init__(self, client: PgslClient) -> None:
        self._client = client

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return to_pixels(self._client.attack(to_float(images))[0])
