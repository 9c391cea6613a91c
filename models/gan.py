"""The attention GAN that makes labelled images from a trained ResNet's first features.

S. A. Khowaja, K. Dahri, M. A. Jarwar, I. H. Lee, "Spike learning based Privacy Preservation of Internet of Medical
Things in Metaverse", IEEE Journal of Biomedical and Health Informatics, 2023, section IV-A; equations by its numbers.
Its reference 29 is E. Jung, M. Luna, S. H. Park, "Conditional GAN with 3D Discriminator for MRI Generation of
Alzheimer's Disease Progression", Pattern Recognition, 2022.

An image x of [-1, 1] becomes a **plane** Res_2D of its own shape; the generator looks at the plane and at the
condition SC, one value spread over all pixels, and gives an image g_a and a mask ϱ; equation 2 mixes plane and image:

    SL_2D = g_a - g_a · ϱ + Res_2D · ϱ

where ϱ is 1 the plane stays, where it is 0 the generated image stands in its place. The paper calls Res_2D a feature
map and does not say how it becomes an image; two ways are here:

- ``features``: the ResNet's features ahead of its first stage of blocks, at full resolution (bilinear where its stem
  strides), through a 1x1 convolution and tanh (:class:`PlaneProjection`) that are learnt with the generator;
- ``image``: the image itself, as in reference 29.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gascnn.models.resnet import ResNet, resnet

PLANES = ("features", "image")
STRIDE = 4
"""Of the generator's encoder: sides must be multiples of it."""

CRITIC_CONVS = 5
LEAK = 0.2


def condition_of(labels: Tensor, classes: int) -> Tensor:
    """Class k of K -> k / (K - 1), float32: 0, 0.5 and 1 for the paper's three classes.

    Raises:
        ValueError: fewer than two classes.
    """
    if classes < 2:
        raise ValueError(f"classes is {classes}; a condition in [0, 1] needs at least 2")
    return labels.to(torch.float32) / (classes - 1)


def synthetic_slices(image: Tensor, mask: Tensor, plane: Tensor) -> Tensor:
    """Equation 2: ``g_a - g_a · ϱ + Res_2D · ϱ``, pixel by pixel.

    Args:
        image: g_a, (n, C, H, W) in [-1, 1].
        mask: ϱ, (n, 1, H, W) in [0, 1], the same for all channels.
        plane: Res_2D, (n, C, H, W) in [-1, 1].
    """
    return image - image * mask + plane * mask


class FirstStage(nn.Module):
    """What a ResNet computes ahead of its blocks, frozen: features of each pixel.

    Args:
        network: its ``conv1``, ``bn1``, ``pool`` (if any) and ``relu`` are copied.

    Attributes:
        arguments: what :meth:`build` needs to make this stage again; plain values.
    """

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.arguments = {name: network.arguments[name] for name in ("channels", "width", "stem")}
        self.conv1, self.bn1 = copy.deepcopy(network.conv1), copy.deepcopy(network.bn1)
        self.pool, self.relu = copy.deepcopy(network.pool), nn.ReLU()
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def build(cls, channels: int, width: int, stem: str) -> FirstStage:
        """A stage with fresh weights, to load others into.

        Raises:
            ValueError: arguments that no ResNet has.
        """
        return cls(resnet(classes=2, blocks=(1,), channels=channels, width=width, stem=stem))

    def train(self, mode: bool = True) -> FirstStage:
        """Stay in evaluation mode: its statistics are those of the ResNet's own training."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] -> features (n, width, H, W), at least 0."""
        x = self.bn1(self.conv1(images))
        if self.pool is not None:
            x = self.pool(x)
        x = self.relu(x)
        if x.shape[-2:] != images.shape[-2:]:
            x = F.interpolate(x, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return cast(Tensor, x)


class PlaneProjection(nn.Module):
    """Features to an image plane: ``tanh(W features + b)`` at each pixel, W of shape (C, width)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(n, width, H, W) -> (n, C, H, W) in [-1, 1]."""
        return torch.tanh(self.conv(features))


class ResidualBlock(nn.Module):
    """``x + norm(conv(relu(norm(conv(x)))))``, both convolutions 3x3, instance norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) -> the same shape."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return cast(Tensor, x + self.norm2(self.conv2(y)))


class AttentionGenerator(nn.Module):
    """Gen_a: encoder of three convolutions, residual blocks, decoder with two heads.

    Kernel sizes and norms are not in the paper. Here: 7x7, then 4x4 with stride 2 twice; two 4x4 transposed
    convolutions with stride 2; heads of 7x7. Instance norms, but none behind the first convolution: there SC adds the
    same number to all pixels of a channel, and a norm would take just that away again.

    Args:
        channels: of the images.
        width: of the first convolution; the residual blocks have four times as many.
        blocks: residual blocks; the paper has six.
    """

    def __init__(self, channels: int, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels + 1, width, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.InstanceNorm2d(2 * width, affine=True),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False),
            nn.InstanceNorm2d(4 * width, affine=True),
            nn.ReLU(),
        )
        self.transition = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(blocks)))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
            nn.InstanceNorm2d(2 * width, affine=True),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
            nn.InstanceNorm2d(width, affine=True),
            nn.ReLU(),
        )
        self.mask = nn.Conv2d(width, 1, 7, padding=3)
        self.image = nn.ConvTranspose2d(width, channels, 7, padding=3)

    def forward(self, plane: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Look at a plane and a condition.

        Args:
            plane: Res_2D, (n, C, H, W) in [-1, 1], H and W multiples of 4.
            condition: SC, (n,) in [0, 1].

        Returns:
            g_a (n, C, H, W) in [-1, 1] and ϱ (n, 1, H, W) in [0, 1].

        Raises:
            ValueError: sides that are no multiples of 4.
        """
        check_sides(plane.shape[-2:])
        spread = condition.to(plane.dtype).view(-1, 1, 1, 1).expand(-1, 1, *plane.shape[-2:])
        x = self.decoder(self.transition(self.encoder(torch.cat((plane, spread), dim=1))))
        return self._heads(x)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """g_a and ϱ by one convolution, which on a processor takes as long as either head alone.

        A transposed convolution of stride 1 is a convolution by the kernel turned by half a circle.
        """
        turned = self.image.weight.transpose(0, 1).flip(2, 3)
        weight = torch.cat((turned, self.mask.weight))
        bias = torch.cat((cast(Tensor, self.image.bias), cast(Tensor, self.mask.bias)))
        found = F.conv2d(x, weight, bias, padding=3)
        return torch.tanh(found[:, :-1]), torch.sigmoid(found[:, -1:])


@dataclass(frozen=True)
class Slices:
    """What a generator makes of images.

    Attributes:
        slices: SL_2D of equation 2, (n, C, H, W) in [-1, 1].
        mask: ϱ, (n, 1, H, W) in [0, 1].
        plane: Res_2D, (n, C, H, W) in [-1, 1].
    """

    slices: Tensor
    mask: Tensor
    plane: Tensor


class SliceGenerator(nn.Module):
    """From images and conditions to synthetic slices: plane, Gen_a, equation 2.

    Args:
        channels: of the images.
        first_stage: of the ResNet, for a plane of its features; None takes the image itself as the plane.
        width: of Gen_a.
        blocks: of Gen_a.
    """

    def __init__(self, channels: int, first_stage: FirstStage | None, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.first_stage = first_stage
        self.projection = None if first_stage is None else PlaneProjection(first_stage.conv1.out_channels, channels)
        self.attention = AttentionGenerator(channels, width, blocks)

    def plane(self, images: Tensor) -> Tensor:
        """Res_2D of images in [-1, 1]: the same shape and range."""
        if self.first_stage is None or self.projection is None:
            return images
        return cast(Tensor, self.projection(self.first_stage((images + 1) / 2)))

    def forward(self, images: Tensor, condition: Tensor) -> Slices:
        """Images (n, C, H, W) in [-1, 1] and conditions (n,) in [0, 1] -> slices.

        Raises:
            ValueError: sides that are no multiples of 4.
        """
        plane = self.plane(images)
        image, mask = self.attention(plane, condition)
        return Slices(synthetic_slices(image, mask, plane), mask, plane)


class Discriminator(nn.Module):
    """DIS: five convolutions, two fully connected layers; how real an image is and which condition it shows.

    The second layer has the two outputs: realism P_a, any number, higher for more real (a Wasserstein critic), and
    condition P_sc, which regresses SC. No norms: the gradient penalty is one image's own (Gulrajani et al. 2017). The
    convolutions halve the sides (4x4, stride 2) until the smaller is 4 or less, then keep them (3x3).

    Args:
        channels: of the images.
        size: (H, W).
        width: of the first convolution; each other has twice as many as the one before it, at most 8 times.
        hidden: outputs of the first fully connected layer.
    """

    def __init__(self, channels: int, size: tuple[int, int], width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        height, wide = size
        layers: list[nn.Module] = []
        before = channels
        for number in range(CRITIC_CONVS):
            after = width * min(8, 2**number)
            halved = min(height, wide) > 4
            layers.append(nn.Conv2d(before, after, 4, 2, 1) if halved else nn.Conv2d(before, after, 3, 1, 1))
            layers.append(nn.LeakyReLU(LEAK))
            if halved:
                height, wide = height // 2, wide // 2
            before = after
        self.convs = nn.Sequential(*layers)
        self.fc1 = nn.Linear(before * height * wide, hidden)
        self.fc2 = nn.Linear(hidden, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) in [-1, 1] -> P_a (n,) and P_sc (n,)."""
        x = torch.flatten(self.convs(images), 1)
        found = self.fc2(F.leaky_relu(self.fc1(x), LEAK))
        return found[:, 0], found[:, 1]


def check_sides(size: tuple[int, ...]) -> None:
    """Refuse sides that the generator would not give back.

    Raises:
        ValueError: a side that is no multiple of 4, or below 8.
    """
    if any(side % STRIDE or side < 2 * STRIDE for side in size):
        shown = "x".join(str(side) for side in size)
        raise ValueError(f"images are {shown}; allowed: sides that are multiples of {STRIDE}, from {2 * STRIDE} on")
