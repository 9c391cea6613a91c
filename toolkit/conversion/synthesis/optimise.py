"""Noise becomes images that a network answers with given soft labels: gradient descent on pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from gascnn.toolkit.conversion.synthesis.options import SynthesisOptions
from gascnn.toolkit.conversion.synthesis.regularisers import BatchNormMatch, jittered, total_variation
from gascnn.toolkit.errors import TrainingError

CHECKED_EVERY = 100
"""Iterations between two looks at whether it is time to stop."""

WORTHWHILE = 0.01
"""Share by which the loss must have fallen between two looks for it to go on."""


@dataclass(frozen=True, eq=False)
class Optimised:
    """A batch of images and how well they meet their labels.

    Attributes:
        images: (n, C, H, W) uint8.
        answers: (n, class) float32, what the network says (softmax at the temperature) about these 8-bit images.
        divergence: (n,) float32, Kullback-Leibler divergence of the answers from the labels, in nats: the cross
            entropy less the label's own entropy.
        iterations: taken.
    """

    images: npt.NDArray[np.uint8]
    answers: npt.NDArray[np.float32]
    divergence: npt.NDArray[np.float32]
    iterations: int


def divergences(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """(n,) ``sum_k y_k (ln y_k - ln softmax(logits / temperature)_k)``: cross entropy less entropy, in nats."""
    entropies: Tensor = -torch.special.xlogy(labels, labels).sum(1)
    return F.cross_entropy(logits / temperature, labels, reduction="none") - entropies


def optimise(
    model: nn.Module,
    labels: npt.NDArray[np.floating],
    image_shape: tuple[int, int, int],
    options: SynthesisOptions,
    generator: Generator,
    *,
    pixel_max: int = 255,
    progress: Callable[[int], None] | None = None,
) -> Optimised:
    """Optimise a batch of images, from uniform noise, until the network's output meets their soft labels.

    Minimised by Adam on the pixels, which are kept in 0..1: the mean divergence, plus ``total_variation`` times the
    images' total variation, plus ``statistics`` times how far the batch norms' inputs are from what those have kept.
    The rate falls to 0 by a half cosine over ``options.iterations``. It ends earlier when every image's divergence is
    within the tolerance and the loss has fallen by less than ``WORTHWHILE`` in the last ``CHECKED_EVERY`` iterations.

    Args:
        model: in evaluation mode; its weights stay as they are.
        labels: (n, class), each row 0..1 with sum 1.
        image_shape: (C, H, W).
        options: how.
        generator: of all that is random.
        pixel_max: the pixel value of intensity 1.
        progress: called with the number of iterations done.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    targets = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    pixels = torch.rand(len(targets), *image_shape, generator=generator).requires_grad_(True)
    optimizer = torch.optim.Adam([pixels], lr=options.learning_rate)
    before, done = math.inf, 0
    with BatchNormMatch(model) as match:
        while done < options.iterations:
            _set_rate(optimizer, options, done)
            seen = jittered(pixels, options.jitter, options.flip, generator)
            unmet = divergences(model(seen), targets, options.temperature)
            statistics = match.take()  # taken in any case: what is kept of a pass must not add up
            loss = unmet.mean()
            if options.statistics:
                loss = loss + options.statistics * statistics
            if options.total_variation:
                loss = loss + options.total_variation * total_variation(pixels)
            if not math.isfinite(float(loss.detach())):
                raise TrainingError(
                    f"the loss of synthesis became {float(loss.detach())} in iteration {done + 1}; lower learning_rate"
                )
            (pixels.grad,) = torch.autograd.grad(loss, [pixels])
            optimizer.step()
            with torch.no_grad():
                pixels.clamp_(0.0, 1.0)
            done += 1
            if progress is not None:
                progress(done)
            if done % CHECKED_EVERY == 0:
                now = float(loss.detach())
                met = float(unmet.detach().max()) <= options.tolerance
                if met and now >= before * (1.0 - WORTHWHILE):
                    break
                before = now
    return _finished(model, pixels.detach(), targets, options.temperature, pixel_max, done)


def _set_rate(optimizer: torch.optim.Optimizer, options: SynthesisOptions, done: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * (1.0 + math.cos(math.pi * done / options.iterations)) / 2.0


def _finished(
    model: nn.Module, pixels: Tensor, targets: Tensor, temperature: float, pixel_max: int, done: int
) -> Optimised:
    """Round to whole pixels and see what the network says of those."""
    images = torch.round(pixels * pixel_max).to(torch.uint8)
    with torch.no_grad():
        logits = model(images.to(torch.float32) / pixel_max)
        answers = torch.softmax(logits / temperature, dim=1)
        unmet = divergences(logits, targets, temperature)
    return Optimised(images.numpy(), answers.numpy(), unmet.numpy(), done)
