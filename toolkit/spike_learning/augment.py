"""Images as a batch learns from them: blended in pairs, or seen through a window on a plain ground."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from gascnn.toolkit.spike_learning.options import LearningOptions
from gascnn.toolkit.training.batches import mix_batch, to_float
from gascnn.toolkit.training.options import TrainingOptions


def augment(
    images: Tensor, targets: Tensor, answers: Tensor, teacher: nn.Module, options: LearningOptions, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Change some of a batch's images; the teacher says what it sees in those.

    Args:
        images: (n, C, H, W) uint8.
        targets: (n, class) probabilities.
        answers: (n, class) the teacher's logits.
        teacher: in evaluation mode.
        options: ``mix_probability``, of a batch; ``cut_out_probability``, of an image.
        generator: of all that is random.

    Returns:
        The same three: a blend has its parts' targets, what was cut out the teacher's own probabilities, for what made
        its class may have been cut away.
    """
    mixing = TrainingOptions(mixup_alpha=1.0, mix_probability=options.mix_probability)
    seen, mixed = mix_batch(to_float(images), targets, mixing, generator)
    cut = torch.zeros(len(images), dtype=torch.bool)
    if options.cut_out_probability > 0:
        seen, cut = cut_out(seen, options.cut_out_probability, generator)
    if mixed is targets and not bool(cut.any()):
        return images, targets, answers
    images = (seen * 255).round().to(torch.uint8)
    with torch.no_grad():
        answers = teacher(to_float(images))
    return images, torch.where(cut[:, None], answers.softmax(1), mixed), answers


def cut_out(images: Tensor, probability: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Leave a soft-edged ellipse of some images, and around it black or, of three in ten, any gray.

    Images made from a network fill their frame with texture. A scan or a digit stands on a plain ground, on which
    neurons answer with their biases alone, and much of what a network does it does there.

    Args:
        images: (n, C, H, W) float in 0..1.
        probability: of an image to be cut out.
        generator: of all that is random.

    Returns:
        The images, and (n,) which of them were cut.
    """
    count, _, height, width = images.shape

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    cut = torch.rand(count, generator=generator) < probability
    down, across = torch.linspace(-1.0, 1.0, height).view(1, -1, 1), torch.linspace(-1.0, 1.0, width).view(1, 1, -1)
    offsets = ((down - draw(-0.4, 0.4)) / draw(0.3, 1.1), (across - draw(-0.4, 0.4)) / draw(0.3, 1.1))
    distance = offsets[0].square() + offsets[1].square()
    inside = torch.sigmoid((1.0 - distance) * draw(2.0, 20.0))[:, None]
    ground = (draw(0.0, 1.0) * (draw(0.0, 1.0) < 0.3))[:, None]
    windowed = inside * images + (1.0 - inside) * ground
    return torch.where(cut.view(-1, 1, 1, 1), windowed, images), cut
