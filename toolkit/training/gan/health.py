"""Whether a GAN in training is still one: finite losses, no exploding critic, no collapsed class.

**Diversity** of a class is the spread of what the generator makes for it of a fixed probe of real images: the standard
deviation over the probe, mean over pixels, divided by the same of the probe's own images. A generator that gives its
input back has 1, one that makes the same image whatever it is given (collapse) 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gascnn.models.gan import SliceGenerator, condition_of
from gascnn.toolkit.errors import DataError, TrainingError
from gascnn.toolkit.training.gan.options import GanOptions

CHUNK = 64
"""Images at once where a probe or a set is made: fixed, for the last bits of a convolution may depend on it."""


def spread(images: Tensor) -> float:
    """Standard deviation over images (n, C, H, W), in [0, 1] of [-1, 1], mean over pixels and channels."""
    return float(images.double().std(dim=0, correction=0).mean())


def real_spread(images: Tensor) -> float:
    """:func:`spread` of the probe itself.

    Raises:
        DataError: its images are all alike.
    """
    found = spread(images)
    if not found > 0:
        raise DataError(
            f"the first {len(images)} training images are all alike; there is nothing a GAN could learn; give others"
        )
    return found


@torch.no_grad()
def made_of(generator: SliceGenerator, images: Tensor, condition: Tensor) -> Tensor:
    """Slices of images (n, C, H, W) in [-1, 1] for conditions (n,), a chunk at a time."""
    parts = zip(images.split(CHUNK), condition.split(CHUNK), strict=True)
    return torch.cat([generator(some, wanted).slices for some, wanted in parts])


def diversity(generator: SliceGenerator, probe: Tensor, classes: int) -> list[float]:
    """Of each class, as a share of the probe's own.

    Args:
        generator: any.
        probe: real images (n, C, H, W) in [-1, 1], not all alike.
        classes: K.
    """
    whole = real_spread(probe)
    conditions = condition_of(torch.arange(classes), classes).to(probe.device)
    return [spread(made_of(generator, probe, one.expand(len(probe)))) / whole for one in conditions]


class Guard:
    """Ends a run that leads nowhere.

    Args:
        options: ``largest_loss``, ``least_diversity``, ``patience``.
        class_names: for the message.
        kept: the checkpoint that stays, for the message.

    Attributes:
        low: checks in a row that found too little diversity.
    """

    def __init__(self, options: GanOptions, class_names: tuple[str, ...], kept: Path) -> None:
        self.options, self.class_names, self.kept = options, class_names, kept
        self.low = 0

    def losses(self, iteration: int, side: str, values: Mapping[str, float]) -> None:
        """Look at the losses of an update in an iteration (from 1), before weights are changed by them.

        Raises:
            TrainingError: one is not a finite number, or the critic's is beyond ``largest_loss``.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingError(self._explain(f"the {side}'s {name} became {value} in iteration {iteration}"))
        if side == "critic" and abs(values["loss"]) > self.options.largest_loss:
            raise TrainingError(
                self._explain(
                    f"the critic's loss became {values['loss']:.4g} in iteration {iteration}, beyond largest_loss "
                    f"({self.options.largest_loss:g})"
                )
            )

    def weights(self, iteration: int, modules: Mapping[str, nn.Module]) -> None:
        """Look at the weights after an iteration.

        Raises:
            TrainingError: one is not a finite number.
        """
        for side, module in modules.items():
            for name, value in module.state_dict().items():
                if not bool(torch.isfinite(value).all()):
                    raise TrainingError(
                        self._explain(f"{name} of the {side} holds NaN or infinity after iteration {iteration}")
                    )

    def spreads(self, iteration: int, found: list[float]) -> bool:
        """Look at the diversity of each class; true if no class is below what it must be.

        Raises:
            TrainingError: for the ``patience``-th time in a row, or at the run's end.
        """
        least = min(found)
        if least >= self.options.least_diversity:
            self.low = 0
            return True
        self.low += 1
        if self.low < self.options.patience and iteration < self.options.iterations:
            return False
        name = self.class_names[found.index(least)]
        raise TrainingError(
            self._explain(
                f"the generator collapsed: images of class {name} differ by {least:.2g} of what real images do after "
                f"iteration {iteration} (least_diversity {self.options.least_diversity:g})"
            )
        )

    def _explain(self, finding: str) -> str:
        return (
            f"{finding}; lower learning_rate ({self.options.learning_rate:g}) or raise critic_steps "
            f"({self.options.critic_steps}) in a new run; {self.kept} holds the last good state"
        )
