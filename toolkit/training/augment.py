"""Random changes of training images: functions (batch, generator) -> batch, gathered in named policies.

Batches are (n, C, H, W) float32 in [0, 1] before and after. Everything random comes from the generator that is given,
so the same state gives the same batch. A policy is a tuple of functions applied in order; :data:`POLICIES` names them
and a new one is a new entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from gascnn.toolkit.errors import UsageError

Augmentation = Callable[[Tensor, Generator], Tensor]


def random_affine(
    batch: Tensor,
    generator: Generator,
    *,
    rotation_deg: float = 0.0,
    scale: float = 0.0,
    aspect: float = 0.0,
    translation: float = 0.0,
    shear_deg: float = 0.0,
    flip: bool = False,
    elastic: float = 0.0,
) -> Tensor:
    """Turn, resize, shear, shift, mirror and bend each image; what comes in from outside is black.

    Args:
        batch: (n, C, H, W).
        generator: of all that is random.
        rotation_deg: largest angle either way, in degrees.
        scale: largest enlargement; sizes are drawn evenly in the logarithm from 1 / (1 + scale) to 1 + scale.
        aspect: the same for the ratio of width to height.
        translation: largest shift either way, as a fraction of the image's side.
        shear_deg: largest angle of shear either way, in degrees.
        flip: mirror left and right, one image in two.
        elastic: standard deviation of a smooth displacement (5 x 5 random points, bicubic in between), as a fraction
            of half the image's side.
    """
    count, _, height, width = batch.shape
    angle = _uniform(count, generator, rotation_deg) * (math.pi / 180)
    shear = torch.tan(_uniform(count, generator, shear_deg) * (math.pi / 180))
    size = torch.exp(_uniform(count, generator, math.log1p(scale)))
    stretch = torch.exp(_uniform(count, generator, math.log1p(aspect)))
    mirrored = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    sign = torch.where(mirrored, -1.0, 1.0)
    # Coordinates run from -1 to 1: a whole side is 2.
    shift_x, shift_y = _uniform(count, generator, 2 * translation), _uniform(count, generator, 2 * translation)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x_size, y_size = size * stretch, size / stretch
    # From output to input, as grid_sample wants it: rotation x shear x (1 / size), mirrored in x.
    row_x = torch.stack([cos / x_size * sign, (cos * shear - sin) / y_size, shift_x], dim=1)
    row_y = torch.stack([sin / x_size * sign, (sin * shear + cos) / y_size, shift_y], dim=1)
    grid = F.affine_grid(torch.stack([row_x, row_y], dim=1), [count, 1, height, width], align_corners=False)
    if elastic > 0:
        bend = torch.randn(count, 2, 5, 5, generator=generator) * elastic
        bend = F.interpolate(bend, size=(height, width), mode="bicubic", align_corners=False)
        grid = grid + bend.permute(0, 2, 3, 1)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def random_gamma(batch: Tensor, generator: Generator, *, gamma: float, probability: float = 1.0) -> Tensor:
    """Raise intensities to a power drawn evenly in the logarithm from 1 / (1 + gamma) to 1 + gamma."""
    power = torch.exp(_uniform(len(batch), generator, math.log1p(gamma)))
    chosen = torch.rand(len(batch), generator=generator) < probability
    # The gradient is not needed and 0**power is 0: no small constant has to be added.
    return batch.clamp(0, 1) ** _per_image(torch.where(chosen, power, 1.0))


def random_contrast(
    batch: Tensor, generator: Generator, *, contrast: float, brightness: float, probability: float = 1.0
) -> Tensor:
    """Multiply by 1 ± contrast, then (half as often) add ± brightness; clipped to [0, 1]."""
    count = len(batch)
    gain = 1 + _uniform(count, generator, contrast) * (torch.rand(count, generator=generator) < probability)
    offset = _uniform(count, generator, brightness) * (torch.rand(count, generator=generator) < probability / 2)
    return (batch * _per_image(gain) + _per_image(offset)).clamp(0, 1)


def random_blur(batch: Tensor, generator: Generator, *, probability: float) -> Tensor:
    """Mix chosen images, in random parts, with themselves smoothed by the binomial kernel (1, 4, 6, 4, 1) / 16."""
    chosen = (torch.rand(len(batch), generator=generator) < probability).float()
    part = _per_image(chosen * torch.rand(len(batch), generator=generator))
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    channels = batch.shape[1]
    kernel = torch.outer(line, line).expand(channels, 1, 5, 5)
    smooth = F.conv2d(F.pad(batch, (2, 2, 2, 2), mode="replicate"), kernel, groups=channels)
    return batch + part * (smooth - batch)


def random_low_resolution(
    batch: Tensor, generator: Generator, *, probability: float, smallest: float = 0.4, largest: float = 0.8
) -> Tensor:
    """Shrink chosen images to a fraction of their size (one fraction a batch) and enlarge them again."""
    height, width = batch.shape[-2:]
    factor = smallest + (largest - smallest) * float(torch.rand((), generator=generator))
    chosen = torch.rand(len(batch), generator=generator) < probability
    small = [max(1, int(height * factor)), max(1, int(width * factor))]
    coarse = F.interpolate(batch, size=small, mode="bilinear", antialias=True)
    coarse = F.interpolate(coarse, size=(height, width), mode="bilinear")
    return torch.where(_per_image(chosen), coarse, batch)


def random_noise(batch: Tensor, generator: Generator, *, deviation: float, probability: float = 0.5) -> Tensor:
    """Add Gaussian noise to chosen images, of a standard deviation drawn from 0 to ``deviation``; clipped to [0, 1]."""
    chosen = torch.rand(len(batch), generator=generator) < probability
    strength = deviation * torch.rand(len(batch), generator=generator) * chosen
    noise = torch.randn(batch.shape, generator=generator)
    return (batch + _per_image(strength) * noise).clamp(0, 1)


def random_erasing(
    batch: Tensor, generator: Generator, *, probability: float, smallest: float = 0.02, largest: float = 0.12
) -> Tensor:
    """Paint a rectangle of chosen images in one gray from 0 to 0.5 (Zhong et al., "Random Erasing", AAAI 2020).

    Args:
        batch: (n, C, H, W).
        generator: of all that is random.
        probability: fraction of the images that are changed.
        smallest: least area, as a fraction of the image's.
        largest: most area.
    """
    count, _, height, width = batch.shape
    chosen = torch.rand(count, generator=generator) < probability
    area = smallest + (largest - smallest) * torch.rand(count, generator=generator)
    stretch = torch.exp(_uniform(count, generator, math.log(2.0)))
    tall, wide = (area * stretch).sqrt().clamp(max=1.0), (area / stretch).sqrt().clamp(max=1.0)
    inside_y = _interval(height, tall, generator)
    inside_x = _interval(width, wide, generator)
    gray = 0.5 * torch.rand(count, generator=generator)
    covered = inside_y[:, None, :, None] & inside_x[:, None, None, :] & _per_image(chosen)
    return torch.where(covered, _per_image(gray), batch)


def _clinical(
    *,
    rotation_deg: float,
    scale: float,
    translation: float,
    shear_deg: float,
    elastic: float,
    gamma: float,
    contrast: float,
    brightness: float,
    noise: float,
    erasing: float,
) -> tuple[Augmentation, ...]:
    """Another patient position, another scanner, something in the way; mirrored one time in two."""
    return (
        partial(
            random_affine,
            rotation_deg=rotation_deg,
            scale=scale,
            aspect=0.08,
            translation=translation,
            shear_deg=shear_deg,
            flip=True,
            elastic=elastic,
        ),
        partial(random_gamma, gamma=gamma, probability=0.8),
        partial(random_contrast, contrast=contrast, brightness=brightness, probability=0.8),
        partial(random_blur, probability=0.25),
        partial(random_low_resolution, probability=0.15),
        partial(random_noise, deviation=noise),
        partial(random_erasing, probability=erasing),
    )


POLICIES: dict[str, tuple[Augmentation, ...]] = {
    "none": (),
    "light": (partial(random_affine, rotation_deg=8.0, scale=0.08, translation=0.06, shear_deg=5.0),),
    "medical": _clinical(
        rotation_deg=20.0,
        scale=0.2,
        translation=0.08,
        shear_deg=8.0,
        elastic=0.03,
        gamma=0.35,
        contrast=0.3,
        brightness=0.1,
        noise=0.04,
        erasing=0.25,
    ),
    "brain-mri": _clinical(
        rotation_deg=16.0,
        scale=0.2,
        translation=0.064,
        shear_deg=6.4,
        elastic=0.02,
        gamma=0.28,
        contrast=0.24,
        brightness=0.08,
        noise=0.032,
        erasing=0.2,
    ),
}


def policy(name: str) -> Augmentation:
    """The named policy as one function.

    Raises:
        UsageError: no policy of that name.
    """
    if name not in POLICIES:
        raise UsageError(f"no augmentation policy {name!r}; known: {', '.join(POLICIES)}")
    steps = POLICIES[name]

    def apply(batch: Tensor, generator: Generator) -> Tensor:
        for step in steps:
            batch = step(batch, generator)
        return batch

    return apply


def _uniform(count: int, generator: Generator, bound: float) -> Tensor:
    return bound * (2 * torch.rand(count, generator=generator) - 1)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _interval(length: int, fraction: Tensor, generator: Generator) -> Tensor:
    """(n, length) bool: an interval of ``fraction`` of the length, at a random place, an image."""
    start = torch.rand(len(fraction), generator=generator) * (1 - fraction) * length
    position = torch.arange(length).float() + 0.5
    return (position >= start[:, None]) & (position < (start + fraction * length)[:, None])
