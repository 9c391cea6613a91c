"""Learning rate, optimiser and the moving average of weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from gascnn.toolkit.training.options import TrainingOptions

# Learning rates at the start and end of one-cycle, as fractions of the highest.
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1e-4


def learning_rate(step: int, steps: int, options: TrainingOptions) -> float:
    """The learning rate of one step; a function of the step alone, so there is no scheduler state to keep.

    Args:
        step: 0 .. steps - 1.
        steps: of the whole run.
        options: ``learning_rate`` (the highest), ``schedule``, ``warmup``, ``cosine_end``.

    Returns:
        ``one-cycle`` (Smith and Topin, 2019): half a cosine from 1/25 up to the highest in the first ``warmup`` of
        all steps, then half a cosine down to 1/10 000. ``cosine``: a straight line up, half a cosine down to
        ``cosine_end``.
    """
    if options.schedule == "constant":
        return options.learning_rate
    rising = options.warmup * steps
    if options.schedule == "one-cycle":
        if step < rising:
            return options.learning_rate * _half_cosine(step / rising, ONE_CYCLE_START, 1.0)
        return options.learning_rate * _half_cosine((step - rising) / max(1.0, steps - rising), 1.0, ONE_CYCLE_END)
    if step + 1 < rising:
        return options.learning_rate * (step + 1) / rising
    return options.learning_rate * _half_cosine((step - rising) / max(1.0, steps - rising), 1.0, options.cosine_end)


def _half_cosine(part: float, start: float, end: float) -> float:
    part = min(max(part, 0.0), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """The optimiser of all parameters; those of fewer than two dimensions do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate)
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=options.momentum > 0)


class WeightAverage:
    """Exponential moving average of a model's parameters and batch-norm statistics.

    Both are averaged with the same decay d, ``average += (1 - d) (value - average)``, with d at most
    (1 + step) / (10 + step): statistics and weights of the average then speak of the same steps. Counters are copied.

    Args:
        model: what is averaged; the average starts equal to it.
        decay: in [0, 1).

    Attributes:
        model: the average, in evaluation mode.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` (from 1) steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
