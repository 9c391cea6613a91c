"""What can stand in the place of PGSL's attack, to measure without it: nothing, or noise on the images."""

from __future__ import annotations

import copy
import zlib

import numpy as np
import torch
from torch import Tensor

from gascnn.models.pgsl import PgslClient
from gascnn.models.saliency import LocalClassifier, SaliencyAttack
from gascnn.toolkit.errors import UsageError


class NoAttack(SaliencyAttack):
    """Images as they are and a map of zeros: the same network, split and wire, no defence."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) -> themselves and zeros."""
        return images, torch.zeros_like(images)


class LaplacianNoise(SaliencyAttack):
    """Laplacian noise on the images, cut to 0..1, and a map of zeros: nothing tells the server what was added.

    PGSL's ``[8]`` (T. Titcombe et al., ICLR 2021) adds such noise to the activations; PGSL says that it
    "corrupted the images with laplacian noise [8]", with no scale.

    Args:
        classifier: of the client; not used.
        scale: b of the density ``exp(-|x| / b) / (2 b)``, whose variance is 2 b²; above 0.
        seed: with an image's pixels it decides the noise, whatever batch the image comes in.

    Raises:
        UsageError: a scale that is not above 0, or a seed below 0.
    """

    def __init__(self, classifier: LocalClassifier, scale: float, seed: int = 0) -> None:
        super().__init__(classifier)
        if not 0 < scale <= 1 or seed < 0:
            raise UsageError(f"scale is {scale!r} and seed {seed!r}; allowed: above 0 to 1, and from 0")
        self.scale, self.seed = scale, seed

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) in 0..1 -> noisy images and zeros."""
        noise = torch.stack([self._noise(image) for image in images]).to(images)
        return (images + noise).clamp(0, 1), torch.zeros_like(images)

    def _noise(self, image: Tensor) -> Tensor:
        values = np.ascontiguousarray(image.detach().numpy())
        generator = np.random.default_rng((self.seed, zlib.crc32(values.tobytes())))
        return torch.from_numpy(generator.laplace(scale=self.scale, size=values.shape))


def with_attack(client: PgslClient, attack: SaliencyAttack) -> PgslClient:
    """A copy of a client, its layers included, with another attack."""
    changed = copy.deepcopy(client)
    changed.attack = attack
    return changed
