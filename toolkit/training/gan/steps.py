"""One update of the discriminator, one of the generator: modules that give their losses.

They are modules so that DistributedDataParallel can wrap a whole update, the gradient penalty's inner derivative
included, which it could not average otherwise.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gascnn.models.gan import Discriminator, SliceGenerator, Slices
from gascnn.toolkit.training.gan import losses
from gascnn.toolkit.training.gan.options import GanOptions

CRITIC_TERMS = ("loss", "distance", "penalty", "regression")
GENERATOR_TERMS = ("loss", "realism", "variation", "attention", "identity", "regression")


class CriticUpdate(nn.Module):
    """Equation 9 of a batch; its parameters are the discriminator's."""

    def __init__(self, critic: Discriminator, options: GanOptions) -> None:
        super().__init__()
        self.critic, self.options = critic, options

    def forward(self, real: Tensor, own: Tensor, synthetic: Tensor, share: Tensor) -> Tensor:
        """The values of :data:`CRITIC_TERMS`, (4,), the first to be lowered.

        Args:
            real: images, (n, C, H, W) in [-1, 1].
            own: conditions of their classes, (n,).
            synthetic: slices, (n, C, H, W), no gradient.
            share: U of equation 4, (n,).
        """
        realism, condition = self.critic(real)
        realism_of_slices, _ = self.critic(synthetic)
        penalty = losses.gradient_penalty(self.critic, losses.interpolation(synthetic, real, share))
        adversarial = losses.adversarial_loss(realism, realism_of_slices, penalty, self.options.alpha_penalty)
        regression = losses.regression_loss(condition, own)
        loss = losses.discriminator_loss(regression, adversarial, alpha_reg=self.options.alpha_reg)
        return torch.stack((loss, realism.mean() - realism_of_slices.mean(), penalty, regression))


class GeneratorUpdate(nn.Module):
    """Equation 8 of a batch; its parameters are the generator's, the discriminator's stay out of it."""

    def __init__(self, generator: SliceGenerator, critic: Discriminator, options: GanOptions) -> None:
        super().__init__()
        self.generator, self.options = generator, options
        # In a tuple, so that it is no part of this module.
        self._critic = (critic,)

    def forward(self, real: Tensor, wanted: Tensor) -> Tensor:
        """The values of :data:`GENERATOR_TERMS`, (6,), the first to be lowered.

        Args:
            real: images to start from, (n, C, H, W) in [-1, 1].
            wanted: conditions asked for, (n,).
        """
        options = self.options
        made = cast(Slices, self.generator(real, wanted))
        realism, condition = self._critic[0](made.slices)
        variation = losses.total_variation_loss(made.mask)
        attention = losses.attention_loss(made.mask)
        identity = losses.identity_loss(made.plane, made.slices, made.mask)
        regression = losses.regression_loss(condition, wanted)
        loss = losses.generator_loss(
            realism,
            variation,
            attention,
            identity,
            regression,
            alpha_tvr=options.alpha_tvr,
            alpha_att=options.alpha_att,
            alpha_aaid=options.alpha_aaid,
            alpha_reg=options.alpha_reg,
        )
        return torch.stack((loss, realism.mean(), variation, attention, identity, regression))
