"""From images to training batches: order of an epoch, floats, targets, mixing of images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from gascnn.toolkit.errors import DataError
from gascnn.toolkit.training.options import TrainingOptions

PIXEL_MAX = 255


def to_float(images: Tensor) -> Tensor:
    """uint8 (n, C, H, W) -> float32 ``pixel / 255`` in [0, 1], nothing else: what every network here takes."""
    return images.to(torch.float32) / PIXEL_MAX


def class_weights(labels: Tensor, classes: int, power: float) -> Tensor:
    """Weights (classes,) proportional to (1 / images of the class)**power, of mean 1 over the images.

    Raises:
        DataError: a class without images.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    if bool((counts == 0).any()):
        empty = int((counts == 0).nonzero()[0])
        raise DataError(f"class {empty} has no training images; balancing needs at least one of each class")
    weights = counts**-power
    return (weights * (counts.sum() / (weights * counts).sum())).float()


def epoch_order(labels: Tensor, classes: int, options: TrainingOptions, generator: Generator) -> Tensor:
    """Indices (n,) of the images of one epoch, in random order.

    With ``balance="sampling"`` image i comes n w_i / sum(w) times, rounded up or down at random: systematic
    resampling class by class, so that each class comes as often as expected, to within one image.
    """
    count = len(labels)
    order = torch.randperm(count, generator=generator)
    if options.balance != "sampling":
        return order
    order = order[torch.argsort(labels[order], stable=True)]
    weights = class_weights(labels, classes, options.balance_power)[labels[order]].double()
    edges = torch.cumsum(weights, dim=0) / weights.sum()
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    picks = torch.searchsorted(edges, (torch.arange(count, dtype=torch.float64) + offset) / count)
    return order[picks.clamp(max=count - 1)][torch.randperm(count, generator=generator)]


def mix_batch(batch: Tensor, targets: Tensor, options: TrainingOptions, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix of the batch with itself in another order, for a fraction of the batches.

    Mixup (Zhang et al., ICLR 2018) takes λ x + (1 − λ) x'; CutMix (Yun et al., ICCV 2019) pastes a rectangle of x'
    whose area is 1 − λ. The targets are mixed in the same parts; λ is from Beta(alpha, alpha).

    Args:
        batch: (n, C, H, W) float32.
        targets: (n, classes) probabilities.
        options: ``mixup_alpha``, ``cutmix_alpha``, ``mix_probability``.
        generator: of all that is random.
    """
    alphas = {"mixup": options.mixup_alpha, "cutmix": options.cutmix_alpha}
    kinds = [kind for kind, alpha in alphas.items() if alpha > 0]
    if not kinds or float(torch.rand((), generator=generator)) >= options.mix_probability:
        return batch, targets
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    part = _beta(alphas[kind], generator)
    other = torch.randperm(len(batch), generator=generator)
    if kind == "mixup":
        mixed = part * batch + (1 - part) * batch[other]
    else:
        mixed, part = _paste(batch, batch[other], part, generator)
    return mixed, part * targets + (1 - part) * targets[other]


def soft_loss(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Mean over the batch of the cross entropy −Σ_c w_c q_c log p_c, q the targets, smoothed.

    Args:
        logits: (n, classes).
        targets: (n, classes) probabilities.
        weights: (classes,), or None for all 1.
        smoothing: probability spread evenly over the classes.
    """
    return F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)


def _beta(alpha: float, generator: Generator) -> float:
    # torch's Beta takes no generator; numpy's does, and is seeded from torch's so that one state rules all.
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _paste(batch: Tensor, other: Tensor, part: float, generator: Generator) -> tuple[Tensor, float]:
    height, width = batch.shape[-2:]
    side = (1 - part) ** 0.5
    tall, wide = round(height * side), round(width * side)
    top = int(torch.randint(height - tall + 1, (), generator=generator))
    left = int(torch.randint(width - wide + 1, (), generator=generator))
    mixed = batch.clone()
    mixed[:, :, top : top + tall, left : left + wide] = other[:, :, top : top + tall, left : left + wide]
    return mixed, 1 - tall * wide / (height * width)
