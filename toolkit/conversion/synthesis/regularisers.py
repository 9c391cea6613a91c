"""What keeps images near those a network was trained on, besides their label: smoothness, statistics, jitter."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Generator, Tensor, nn


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, below and to the right, added; a scalar.

    Args:
        images: (image, C, H, W).
    """
    down = (images[:, :, 1:] - images[:, :, :-1]).abs()
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs()
    found = images.new_zeros(())
    for differences in (down, across):
        if differences.numel():  # images of one row or column have none
            found = found + differences.mean()
    return found


class BatchNormMatch:
    """How far a batch's statistics are from those each batch norm has kept of its training images.

    DeepInversion (Yin et al., CVPR 2020) adds up ``|mu - mu_kept| + |var - var_kept|`` of each layer, whose size
    depends on the network; here it is the Kullback-Leibler divergence between normal distributions,
    ``(r + (mu - mu_kept)^2 / var_kept - 1 - ln r) / 2`` with ``r = var / var_kept``, averaged over channels, then over
    layers: the same weight means the same in every network.

    Use it as a context; each forward pass in it is measured.

    Args:
        model: in evaluation mode. Batch norms without kept statistics are passed over.
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.running_var is not None]
        self._handles: list[Any] = []
        self._found: list[Tensor] = []

    def __len__(self) -> int:
        """How many batch norms are watched."""
        return len(self._norms)

    def __enter__(self) -> BatchNormMatch:
        self._handles = [norm.register_forward_pre_hook(self._measure) for norm in self._norms]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._found = [], []

    def take(self) -> Tensor:
        """The divergence of the last forward pass, a scalar; 0 where there is no batch norm."""
        found, self._found = self._found, []
        return torch.stack(found).mean() if found else torch.zeros(())

    def _measure(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        value: Tensor = inputs[0]
        mean = value.mean((0, 2, 3))
        variance = (value - mean.view(1, -1, 1, 1)).square().mean((0, 2, 3)) + norm.eps
        kept = norm.running_var + norm.eps
        ratio = variance / kept
        self._found.append(((ratio + (mean - norm.running_mean).square() / kept - 1 - ratio.log()) / 2).mean())


def jittered(images: Tensor, shift: int, flip: bool, generator: Generator) -> Tensor:
    """The batch moved by up to ``shift`` pixels each way (what leaves comes in at the other side), mirrored at random.

    Args:
        images: (image, C, H, W).
        shift: largest, in pixels; 0 moves nothing.
        flip: whether left and right are swapped, in half of the calls.
        generator: of all that is random.
    """
    if shift:
        down, across = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
        images = torch.roll(images, (down, across), (2, 3))
    if flip and float(torch.rand((), generator=generator)) < 0.5:
        images = images.flip(3)
    return images
