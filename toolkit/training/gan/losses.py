"""The losses of the attention GAN, equations 3 to 9 of the paper that :mod:`gascnn.models.gan` names.

What the paper prints and what is done here, where the two differ or the paper leaves a choice:

- **eq. 3**: its real sample is written Res_2D. The critic here is shown real images: a plane of learnt features belongs
  to the generator's side, which could otherwise teach the critic what to take for real. With ``plane="image"`` the two
  are the same. The gradient penalty's weight α has no value in the paper; 10 is that of I. Gulrajani et al., "Improved
  Training of Wasserstein GANs", NeurIPS 2017. It is an expectation over z, as the other terms are.
- **eq. 5**: written with Res_2D for both sides, which would give the generator no gradient. Here the critic learns from
  real images and their own class, the generator from its slices and the condition it was asked for.
- **eq. 6** and the attention loss: norms without an order. Here the mean of absolute values over pixels and channels
  (order 1, as in reference 29's identity loss and in GANimation, whose weights α_att and α_TVR are), so that the
  weights mean the same at every size.
- **eq. 7** is a sum over pixels, as printed; with α_TVR = 1e-5 it is the least of the terms.
- **eq. 8**: its first term has a plus sign. Minimised, it would make slices that the critic of eq. 3 calls false; a
  generator lowers -P_a.

All functions take and give float tensors; n images; results are scalars of shape () unless said otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def adversarial_loss(real: Tensor, synthetic: Tensor, penalty: Tensor, alpha: float) -> Tensor:
    """Equation 3, what the critic lowers: ``α penalty - E[P_a(real)] + E[P_a(SL_2D)]``.

    Args:
        real: P_a of real images, (n,).
        synthetic: P_a of synthetic slices, (n,).
        penalty: of :func:`gradient_penalty`.
        alpha: its weight.
    """
    return alpha * penalty - real.mean() + synthetic.mean()


def gradient_penalty(critic: nn.Module, z: Tensor) -> Tensor:
    """First term of equation 3 without its weight: ``E[(||∇_z P_a(z)||_2 - 1)^2]``, the norm over an image's pixels.

    Args:
        critic: gives P_a (n,) and P_sc (n,).
        z: (n, C, H, W) of :func:`interpolation`.
    """
    z = z.detach().requires_grad_(True)
    realism, _ = critic(z)
    gradient: Tensor = torch.autograd.grad(realism.sum(), z, create_graph=True)[0]
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return ((norms - 1) ** 2).mean()


def interpolation(synthetic: Tensor, real: Tensor, share: Tensor) -> Tensor:
    """Equation 4: ``z = (1 - U) SL_2D + U real``, one U an image.

    Args:
        synthetic: (n, C, H, W).
        real: (n, C, H, W).
        share: U, (n,) in [0, 1].
    """
    u = share.view(-1, 1, 1, 1)
    return (1 - u) * synthetic + u * real


def regression_loss(found: Tensor, condition: Tensor) -> Tensor:
    """Equation 5: ``E[||P_sc - SC||_2^2]``; both (n,), SC one number an image."""
    return ((found - condition) ** 2).mean()


def identity_loss(plane: Tensor, slices: Tensor, mask: Tensor) -> Tensor:
    """Equation 6, attention-based adaptive identity: mean of ``|(Res_2D - SL_2D) (1 - ϱ)|``.

    Args:
        plane: Res_2D, (n, C, H, W).
        slices: SL_2D, (n, C, H, W).
        mask: ϱ, (n, 1, H, W).
    """
    return ((plane - slices) * (1 - mask)).abs().mean()


def attention_loss(mask: Tensor) -> Tensor:
    """The loss between equations 6 and 7: mean of ``|ϱ|``, against a mask that saturates at 1."""
    return mask.abs().mean()


def total_variation_loss(mask: Tensor) -> Tensor:
    """Equation 7: ``E[Σ_u,v |ϱ_u+1,v - ϱ_u,v| + |ϱ_u,v+1 - ϱ_u,v|]``, a sum over pixels and a mean over images."""
    down = (mask[:, :, 1:] - mask[:, :, :-1]).abs().flatten(1).sum(1)
    right = (mask[:, :, :, 1:] - mask[:, :, :, :-1]).abs().flatten(1).sum(1)
    return (down + right).mean()


def generator_loss(
    synthetic: Tensor,
    variation: Tensor,
    attention: Tensor,
    identity: Tensor,
    regression: Tensor,
    *,
    alpha_tvr: float,
    alpha_att: float,
    alpha_aaid: float,
    alpha_reg: float,
) -> Tensor:
    """Equation 8, with the sign that makes slices real.

    ``-E[P_a(SL_2D)] + α_TVR Loss_TVR + α_att Loss_att + α_AAID Loss_AAID + α_reg Loss_reg``

    Args:
        synthetic: P_a of synthetic slices, (n,).
        variation: Loss_TVR of equation 7.
        attention: Loss_att.
        identity: Loss_AAID of equation 6.
        regression: Loss_reg of equation 5, of the slices and what was asked for.
        alpha_tvr: weight.
        alpha_att: weight.
        alpha_aaid: weight.
        alpha_reg: weight.
    """
    weighted = alpha_tvr * variation + alpha_att * attention + alpha_aaid * identity + alpha_reg * regression
    return weighted - synthetic.mean()


def discriminator_loss(regression: Tensor, adversarial: Tensor, *, alpha_reg: float) -> Tensor:
    """Equation 9: ``α_reg Loss_reg + Loss_adv``, Loss_reg of real images and their class."""
    return alpha_reg * regression + adversarial
