"""One process trains and tests the split network: its two parts made from options, epochs, accuracies."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gascnn.models.pgsl import PgslClient, PgslServer, Recover
from gascnn.models.saliency import LocalClassifier, SaliencyAttack
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.split import Answer, Gradient, SplitClient, SplitServer, train_step
from gascnn.toolkit.training.batches import to_float

EVALUATION_BATCH = 128


def make_client(classifier: LocalClassifier, options: PgslOptions) -> SplitClient:
    """A client with fresh weights, which the seed alone determines.

    Raises:
        UsageError: an image size or strength that does not fit.
    """
    strength = {
        "literal": {},
        "pixels": {"pixels": options.pixels, "amount": options.amount},
        "bound": {"bound": options.bound},
    }[options.attack]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        try:
            attack = SaliencyAttack(classifier, **strength)  # type: ignore[arg-type]  # numbers by name
            return SplitClient(PgslClient(attack, width=options.width), options)
        except ValueError as error:
            raise UsageError(str(error)) from error


def make_server(classes: int, image_size: int, options: PgslOptions) -> SplitServer:
    """A server with fresh weights, which the seed alone determines.

    Raises:
        UsageError: classes or an image size that does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        try:
            model = PgslServer(
                classes=classes,
                image_size=image_size,
                width=options.width,
                strides=options.strides,
                hidden=options.hidden,
                grid=options.grid,
                dropout=options.dropout,
                recovery_on=options.recovery,
                fusion_kernel=options.fusion_kernel,
                recover=make_recover(options),
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
    return SplitServer(model, options)


def make_recover(options: PgslOptions) -> Recover:
    """Robust PCA by ``mu``, ``mu_relative``, ``sparsity``, ``recovery_iterations``, ``recovered_as`` of the options."""

    def recover(matrices: Tensor) -> Tensor:
        from gascnn.toolkit.pgsl.recovery import robust_pca

        weight = options.sparsity / math.sqrt(max(matrices.shape[-2:]))
        found = robust_pca(
            matrices,
            mu=options.mu,
            relative=options.mu_relative,
            sparsity=weight,
            max_iterations=options.recovery_iterations,
        )
        return found.low_rank if options.recovered_as == "low-rank" else found.recovered

    return recover


def epoch_batches(count: int, epoch: int, options: PgslOptions) -> list[Tensor]:
    """Indices of the images of each batch, a function of seed and epoch (from 0) alone.

    A last, smaller batch is left out, its images come in another epoch; fewer images than a batch are one batch.
    """
    generator = torch.Generator().manual_seed(options.seed + 1_000_003 * epoch)
    size = min(options.batch_size, count)
    order = torch.randperm(count, generator=generator)
    return list(order[: count // size * size].split(size))


def train_epochs(
    client: SplitClient,
    server: SplitServer,
    images: Tensor,
    labels: Tensor,
    on_step: Callable[[int, Gradient], None] | None = None,
) -> None:
    """Train client and server for ``options.epochs``.

    Args:
        client: trained in place.
        server: trained in place.
        images: uint8 (n, ch, size, size).
        labels: int64 (n,).
        on_step: called after each step with the epoch, from 0, and what the server sent.

    Raises:
        DataError: images or labels that the server refuses.
        TrainingError: a loss that is not finite.
    """
    options = server.options
    for epoch in range(options.epochs):
        for chosen in epoch_batches(len(images), epoch, options):
            reply = train_step(client, server, to_float(images[chosen]), labels[chosen])
            if on_step is not None:
                on_step(epoch, reply)


def answers(client: SplitClient, server: SplitServer, images: Tensor) -> Answer:
    """Scores of uint8 images (n, ch, size, size), in evaluation mode.

    Raises:
        DataError: no images.
    """
    if not len(images):
        raise DataError("there are no images to classify; give at least one")
    parts = [server.answer(client.query(to_float(part))) for part in images.split(EVALUATION_BATCH)]
    names = ("scores", "attacked", "fused", "recovered")
    return Answer(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def accuracies(answer: Answer, labels: Tensor) -> dict[str, float]:
    """Share of images given their label by the decision (``fusion``) and by each stream."""
    streams = {
        "fusion": answer.scores,
        "recovered": answer.recovered,
        "fused": answer.fused,
        "attacked": answer.attacked,
    }
    return {name: float((scores.argmax(1) == labels).double().mean()) for name, scores in streams.items()}
