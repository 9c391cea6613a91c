"""Small networks as they are deployed, and the ANNs they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from gascnn.models.resnet import resnet
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.lowering import lower
from gascnn.toolkit.lowering.network import NetxNetwork

SIZE, CLASSES = 12, 3


def some_images(count: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Smooth random images."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, channels, 4, 4))
    return (255 * coarse.repeat(3, axis=2).repeat(3, axis=3)).astype(np.uint8)


def an_ann(blocks: tuple[int, ...] = (1, 1), channels: int = 1, width: int = 6) -> torch.nn.Module:
    """A ResNet with an identity and a projection shortcut, with batch-norm statistics of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = resnet(classes=CLASSES, blocks=blocks, width=width, channels=channels, image_size=SIZE)
        model.train()
        images = torch.from_numpy(some_images(64, 1, channels)).float() / 255
        for _ in range(5):
            model(images)
        model.eval()
        with torch.no_grad():
            last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
            last.bias.sub_(model(images).mean(0))  # every class occurs
            last.weight.mul_(10)
            last.bias.mul_(10)
    return model


def deployed(model: torch.nn.Module, channels: int = 1, lowering: dict[str, Any] | None = None, **how) -> NetxNetwork:
    """The network that is exported of it."""
    conversion = convert(model, some_images(40, 2, channels), **{"steps": 12, "fit_images": 16, **how})
    return lower(conversion.graph, **(lowering or {}))


@dataclass(frozen=True)
class Pair:
    """A network and its teacher."""

    ann: torch.nn.Module
    network: NetxNetwork


@pytest.fixture(scope="session")
def pair() -> Pair:
    """Reset zero, read out by the membrane, 8 steps."""
    model = an_ann()
    return Pair(model, deployed(model, steps=8, readout="membrane"))


@pytest.fixture(scope="session")
def images():
    return some_images


@pytest.fixture(scope="session")
def ann():
    return an_ann


@pytest.fixture(scope="session")
def deploy():
    return deployed
