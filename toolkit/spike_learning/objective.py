"""What spike learning minimises (GASCNN, eq. 10)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``β² KL(softmax(teacher / β) || softmax(student / β))``, the mean over the images.

    The paper's eq. 11, to which its text refers, is not printed; this is the usual form (Hinton et al. 2015), whose β²
    keeps the gradient's size independent of β.

    Args:
        student, teacher: (image, class) logits.
        temperature: β.
    """
    wanted = functional.log_softmax(teacher / temperature, dim=1)
    found = functional.log_softmax(student / temperature, dim=1)
    return temperature**2 * functional.kl_div(found, wanted, reduction="batchmean", log_target=True)


def learning_loss(student: Tensor, teacher: Tensor, targets: Tensor, balance: float, temperature: float) -> Tensor:
    """``δ distillation + (1 - δ) cross entropy`` (eq. 10).

    Args:
        student, teacher: (image, class) logits.
        targets: (image, class) probabilities.
        balance: δ.
        temperature: β.
    """
    loss = balance * distillation_loss(student, teacher, temperature)
    return loss + (1.0 - balance) * functional.cross_entropy(student, targets)


def matching_factor(answers: Tensor, teacher: Tensor) -> float | None:
    """The factor that turns answers into logits with the least squared error, class means of each image left out.

    Args:
        answers: (image, class) spikes or membrane potentials.
        teacher: (image, class) logits.

    Returns:
        None where the answers do not follow the logits at all.
    """
    seen, wanted = (values - values.mean(dim=1, keepdim=True) for values in (answers.double(), teacher.double()))
    power = float((seen * seen).sum())
    factor = float((seen * wanted).sum()) / power if power > 0 else 0.0
    return factor if factor > 0 and torch.isfinite(torch.tensor(factor)) else None
