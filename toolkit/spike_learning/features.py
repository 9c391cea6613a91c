"""What each layer of the teacher computes, and how far a layer's spikes are from it.

A distillation of the answers alone tells a layer in the middle a few numbers an image; the teacher's activations tell
it one a neuron. With few images, and synthetic ones at that, this keeps every layer at the function it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gascnn.toolkit.conversion.ir import OpGraph, evaluate
from gascnn.toolkit.conversion.passes import run_passes
from gascnn.toolkit.conversion.trace import trace
from gascnn.toolkit.errors import ConversionError
from gascnn.toolkit.lowering.network import NetxNetwork


class TeacherFeatures:
    """The teacher's activations at the populations of a network that was converted from it.

    Args:
        network: whose layers name their populations.
        teacher: the ANN, traced.
        image_shape: (C, H, W).

    Attributes:
        layers: numbers of the network's layers that have a counterpart; the read-out is none, its answers are learnt.

    Raises:
        ConversionError: a teacher that cannot be traced, or of which no layer is found in the network.
    """

    def __init__(self, network: NetxNetwork, teacher: nn.Module, image_shape: tuple[int, int, int]) -> None:
        self._graph: OpGraph = trace(teacher, image_shape)
        run_passes(self._graph)
        found = {op.name: op for op in self._graph if op.kind == "neurons" and not op.readout}
        self._names: dict[int, str] = {}
        for k, layer in enumerate(network.layers):
            populations = [segment for segment in layer.segments if segment.kind == "population"]
            if len(populations) != 1 or populations[0].name not in found:
                continue
            width = populations[0].stop - populations[0].start
            if found[populations[0].name].shape == (width, *layer.shape[1:]):
                self._names[k] = populations[0].name
        if not self._names:
            raise ConversionError(
                "no layer of the network is found in the teacher; give the ANN that was converted, or feature weight 0"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """In order."""
        return tuple(self._names)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Tensor]:
        """Activations (image, ..., C) of each of :attr:`layers`, channels last, as the machine's are.

        Args:
            images: (image, C, H, W) float in 0..1.
        """
        values = evaluate(self._graph, images, set(self._names.values()))
        return [values[name].movedim(1, -1) for name in self._names.values()]


@dataclass(frozen=True, eq=False)
class FeatureMatch:
    """What turns a layer's spikes into the teacher's activations.

    Attributes:
        factor: (C,) activation that one spike of an image's run stands for, the least-squares one.
        power: variance of the activations about their channels' means, summed over channels.
    """

    factor: Tensor
    power: Tensor


class FeatureStatistics:
    """Sums over images from which a :class:`FeatureMatch` comes."""

    def __init__(self, layers: int) -> None:
        self._sums: list[Tensor | None] = [None] * layers
        self._values = [0] * layers

    def add(self, spikes: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
        """Take (image, ..., C) spike counts and activations of every layer."""
        for k, (count, activation) in enumerate(zip(spikes, wanted, strict=True)):
            n, a = count.flatten(0, -2).double(), activation.flatten(0, -2).double()
            sums = torch.stack([(n * n).sum(0), (n * a).sum(0), a.sum(0), (a * a).sum(0)])
            held = self._sums[k]
            self._sums[k] = sums if held is None else held + sums
            self._values[k] += len(n)

    def matches(self) -> list[FeatureMatch]:
        """Of every layer; a channel that never fired, or never should, has factor 0 and is not matched."""
        found = []
        for sums, values in zip(self._sums, self._values, strict=True):
            assert sums is not None
            spikes, both, total, squares = sums
            factor = torch.where(spikes > 0, both / spikes.clamp_min(1.0), torch.zeros(()).double()).clamp_min(0.0)
            power = (squares - total * total / values).clamp_min(0.0).sum() / values
            found.append(FeatureMatch(factor.float(), power.float()))
        return found


def feature_loss(spikes: Sequence[Tensor], wanted: Sequence[Tensor], matches: Sequence[FeatureMatch]) -> Tensor:
    """Squared distance of ``factor * spikes`` from the teacher's activations, in shares of their variance.

    ``mean over layers of (mean over images and positions of sum over c of (factor_c n_c - a_c)²) / power``; 0 is
    perfect, 1 what a layer has that always answers with its channels' means.

    Args:
        spikes: (image, ..., C) counts of each layer.
        wanted: activations, likewise.
        matches: of each layer.
    """
    losses = []
    for count, activation, match in zip(spikes, wanted, matches, strict=True):
        matched = match.factor > 0
        distance = (count * match.factor - activation) * matched
        losses.append(distance.square().sum(-1).mean() / match.power.clamp_min(1e-12))
    return torch.stack(losses).mean()
