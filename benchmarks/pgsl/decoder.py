"""Images from split activations by a network that has learnt to undo the client: black box, no weights needed.

The adversary sends images of its own through the client, sees the activations, and trains a decoder on the pairs
(Z. He, T. Zhang, R. B. Lee, "Model Inversion Attacks against Collaborative Inference", ACSAC 2019). Two of PGSL's rows:

* **MIA** (M. Wu et al. 2020, PGSL's reference 5): the squared error alone.
* **DCGAN** (PGSL's reference 19, B. Hitaj et al. 2017): the same decoder, whose transposed convolution, batch norms and
  ReLUs are those of DCGAN's generator, with the loss of a discriminator added, so that what comes out looks like one of
  the adversary's images. Hitaj et al. generate images of a class from noise; that would have no image to be compared
  with, so the generator is conditioned on the activations, as PGSL's "recover images from activation maps" needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.toolkit.errors import DataError, TrainingError, UsageError

EVALUATION_BATCH = 128
BETAS = (0.5, 0.999)
"""Adam's, as DCGAN has them (A. Radford et al., ICLR 2016)."""


@dataclass(frozen=True)
class DecoderSettings:
    """How a decoder is built and trained.

    Attributes:
        hidden: channels between activations and image.
        epochs: passes over the adversary's images.
        batch_size: images a step.
        learning_rate: of Adam; it falls in half a cosine to 0.
        adversarial: weight of the discriminator's loss beside the squared error of pixels in 0..1; 0 is MIA's decoder.
        seed: of weights and order.
    """

    hidden: int = 64
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 2e-3
    adversarial: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value out of range.
        """
        for name, low in (("hidden", 1), ("epochs", 1), ("batch_size", 2), ("seed", 0)):
            if type(getattr(self, name)) is not int or getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)!r}; allowed: whole numbers from {low}")
        if not (0 < self.learning_rate < 1 and 0 <= self.adversarial < math.inf):
            raise UsageError(
                f"learning_rate is {self.learning_rate!r} and adversarial {self.adversarial!r}; "
                "allowed: above 0 and below 1, and from 0"
            )

    def plain(self) -> DecoderSettings:
        """The same without a discriminator: MIA's."""
        return replace(self, adversarial=0.0)


class Decoder(nn.Module):
    """DCGAN's generator from activations on: transposed convolution 4x4 of stride 2, then 3x3 to the image.

    Args:
        width: channels of the activations.
        channels: of the image.
        hidden: between the two.
    """

    def __init__(self, width: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(width, hidden, 4, stride=2, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, activations: Tensor) -> Tensor:
        """Activations (n, width, h, w) -> images (n, channels, 2 h, 2 w) in 0..1."""
        return cast(Tensor, self.layers(activations))


class Discriminator(nn.Module):
    """DCGAN's: convolutions of stride 2 with leaky ReLUs, and one logit, positive for what it takes for an image.

    Args:
        channels: of the images.
        hidden: of the first convolution; the second has twice as many.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, 2 * hidden, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * hidden),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * hidden, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, channels, H, W) -> logits (n, 1)."""
        return cast(Tensor, self.layers(images))


def train_decoder(activations: Tensor, images: Tensor, settings: DecoderSettings | None = None) -> Decoder:
    """Train a decoder on what an adversary sent and saw.

    Args:
        activations: float32 (n, width, h, w), of these images.
        images: float32 (n, ch, 2 h, 2 w) in 0..1, what the decoder is to give: the adversary's own.
        settings: how.

    Returns:
        The decoder in evaluation mode. Torch's global random state is left as it was.

    Raises:
        DataError: activations and images that do not belong together, or fewer than two.
        TrainingError: the loss is no longer a finite number.
    """
    settings = DecoderSettings() if settings is None else settings
    _check_pairs(activations, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        decoder = Decoder(activations.shape[1], images.shape[1], settings.hidden)
        judge = Discriminator(images.shape[1], settings.hidden) if settings.adversarial else None
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate, betas=BETAS)
        for network in (decoder, judge)
        if network is not None
    ]
    generator = torch.Generator().manual_seed(settings.seed)
    steps, step = settings.epochs * math.ceil(len(images) / settings.batch_size), 0
    for _ in range(settings.epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(settings.batch_size):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            loss = _step(decoder, judge, optimizers, activations[chosen], images[chosen], settings.adversarial)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the decoder's loss became {loss} in step {step + 1}; "
                    f"lower its learning_rate ({settings.learning_rate:g})"
                )
            step += 1
    return decoder.eval()


@torch.no_grad()
def decode(decoder: Decoder, activations: Tensor) -> Tensor:
    """Images (n, ch, 2 h, 2 w) in 0..1 from activations (n, width, h, w)."""
    return torch.cat([decoder(part) for part in activations.split(EVALUATION_BATCH)])


def _step(
    decoder: Decoder,
    judge: Discriminator | None,
    optimizers: list[torch.optim.Adam],
    activations: Tensor,
    images: Tensor,
    adversarial: float,
) -> float:
    """One step of the discriminator, if there is one, then one of the decoder, whose loss is given back."""
    made = decoder(activations)
    loss = F.mse_loss(made, images)
    if judge is not None:
        real, false = judge(images), judge(made.detach())
        judged = _judged(real, True) + _judged(false, False)
        optimizers[1].zero_grad(set_to_none=True)
        judged.backward()
        optimizers[1].step()
        loss = loss + adversarial * _judged(judge(made), True)
    optimizers[0].zero_grad(set_to_none=True)
    loss.backward()
    optimizers[0].step()
    return float(loss.detach())


def _judged(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def _check_pairs(activations: Tensor, images: Tensor) -> None:
    found = f"activations of shape {tuple(activations.shape)} and images of shape {tuple(images.shape)}"
    if activations.ndim != 4 or images.ndim != 4 or len(activations) != len(images) or len(images) < 2:
        raise DataError(f"{found}; as many of each, 2 or more, with four axes are needed")
    if images.shape[2:] != (2 * activations.shape[2], 2 * activations.shape[3]):
        raise DataError(f"{found}; images of twice the activations' height and width are needed")
