"""Spiking networks in floating point, run from their NIR graph: what a conversion means before it is made integer."""

from __future__ import annotations

from dataclasses import dataclass

import nir
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL_MEMBRANE = "initial_membrane"
"""Key in a neuron node's metadata: membrane potential at the start, as a share of the threshold."""


@dataclass(frozen=True)
class SpikingOutput:
    """What a run gives.

    Attributes:
        counts: (image, class) spikes of the output population over the read-out steps; 0 without a reset.
        membrane: (image, class) its membrane potential at the end.
        rates: mean spikes a neuron and step of every population.
    """

    counts: Tensor
    membrane: Tensor
    rates: dict[str, float]

    def predictions(self) -> Tensor:
        """(image,) class with most spikes; ties go to the higher membrane potential, then to the lower class."""
        best = self.counts == self.counts.amax(1, keepdim=True)
        return torch.where(best, self.membrane, torch.full_like(self.membrane, -torch.inf)).argmax(1)


class SpikingNetwork(nn.Module):
    """Feed-forward network of IF, LIF or CubaLIF neurons, evaluated population by population over all steps.

    Without delays: step t of a population sees step t of what feeds it. A deployed network delays every layer by one
    step, which shifts its answer but does not change it.

    Args:
        graph: NIR with Input, Output, Conv2d, Linear, Affine, Scale, AvgPool2d, SumPool2d, Flatten, IF, LIF and
            CubaLIF nodes; edges into one node add up.
        order: node names, each behind all that feed it, the output last.
        reset: ``zero``, ``subtract``, or ``none`` where neurons stand for ReLUs, to become sigma-delta neurons: they
            give their activation, and the output population its input.
        dt: length of a step for leaky neurons.

    Raises:
        ValueError: a node of another type or that nothing feeds, neurons that leak or reset to something else than
            0, or an output that is not neurons.
    """

    def __init__(self, graph: nir.NIRGraph, order: list[str], reset: str, dt: float = 1.0) -> None:
        super().__init__()
        if reset not in ("zero", "subtract", "none"):
            raise ValueError(f"reset is {reset!r}; it must be 'zero', 'subtract' or 'none'")
        self.reset, self.dt = reset, dt
        self._order = [(name, graph.nodes[name]) for name in order]
        self._incoming: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self._incoming[target].append(source)
        for name, node in self._order:
            if not isinstance(node, _KNOWN):
                raise ValueError(f"{name}: NIR node {type(node).__name__} cannot be run here")
            for what in ("v_leak", "v_reset"):
                if np.any(getattr(node, what, 0.0)):
                    raise ValueError(f"{name}: {what} must be 0 to be run here")
            if not self._incoming[name] and not isinstance(node, nir.Input):
                raise ValueError(f"{name}: nothing feeds this node")
        if any(not isinstance(graph.nodes[source], _NEURONS) for source in self._incoming[order[-1]]):
            raise ValueError(f"{order[-1]}: only neurons can be read out")

    @torch.no_grad()
    def forward(self, spikes: Tensor, skip_steps: int = 0) -> SpikingOutput:
        """Run from rest.

        Args:
            spikes: (image, T, C, H, W) spikes 0/1 or intensities 0..1, float.
            skip_steps: steps at the start that do not count for the read-out.
        """
        images, steps = spikes.shape[:2]
        signals: dict[str, Tensor] = {}
        membranes: dict[str, Tensor] = {}
        left = {name: sum(name in sources for sources in self._incoming.values()) for name in self._incoming}
        rates: dict[str, float] = {}
        read_out = self._incoming[self._order[-1][0]][0]
        for name, node in self._order:
            if isinstance(node, nir.Input):
                signals[name] = spikes.flatten(0, 1)
                continue
            value = sum((signals[s] for s in self._incoming[name][1:]), signals[self._incoming[name][0]])
            if isinstance(node, _NEURONS):
                value = value.view(images, steps, *value.shape[1:])
                if self.reset == "none":
                    value = value * _per_neuron(node.r, value.shape[2:])
                    value = value if name == read_out else value.relu()
                    membranes[name] = value[:, -1]
                else:
                    value, membranes[name] = self._neurons(node, value)
                rates[name] = float((value != 0).float().mean())
                value = value.flatten(0, 1)
            elif not isinstance(node, nir.Output):
                value = _linear(node, value)
            signals[name] = value
            for source in self._incoming[name]:
                left[source] -= 1
                if not left[source]:
                    del signals[source]
        membrane = membranes[read_out].flatten(1)
        counts = value.view(images, steps, -1)[:, skip_steps:].sum(1)
        return SpikingOutput(torch.zeros_like(membrane) if self.reset == "none" else counts, membrane, rates)

    def _neurons(self, node: nir.IF | nir.LIF | nir.CubaLIF, current: Tensor) -> tuple[Tensor, Tensor]:
        """``v[t] = keep v[t-1] + gain current[t]``; spike where v exceeds the threshold; reset.

        CubaLIF filters its current first; IF keeps all of its membrane potential.
        """
        shape = current.shape[2:]
        keep, gain = torch.ones(()), _per_neuron(node.r, shape)
        if isinstance(node, nir.CubaLIF):
            share = self.dt / _per_neuron(node.tau_syn, shape)
            current = _filtered(current * (share * _per_neuron(node.w_in, shape)), 1.0 - share)
        if not isinstance(node, nir.IF):
            share = self.dt / _per_neuron(node.tau if isinstance(node, nir.LIF) else node.tau_mem, shape)
            keep, gain = 1.0 - share, gain * share
        threshold = _per_neuron(node.v_threshold, shape)
        start = float(np.asarray((node.metadata or {}).get(INITIAL_MEMBRANE, 0.0)).ravel()[0])
        membrane = (threshold * start).expand_as(current[:, 0]).clone()
        spikes = torch.empty_like(current)
        for t in range(current.shape[1]):
            membrane = membrane * keep + current[:, t] * gain
            fired = membrane > threshold
            spikes[:, t] = fired
            membrane = torch.where(fired, membrane - threshold if self.reset == "subtract" else 0.0, membrane)
        return spikes, membrane


def _filtered(current: Tensor, keep: Tensor) -> Tensor:
    """``i[t] = keep i[t-1] + current[t]`` along the second axis."""
    steps = [current[:, 0]]
    for t in range(1, current.shape[1]):
        steps.append(steps[-1] * keep + current[:, t])
    return torch.stack(steps, dim=1)


_NEURONS = (nir.IF, nir.LIF, nir.CubaLIF)
_KNOWN = (
    nir.Input,
    nir.Output,
    nir.Conv2d,
    nir.Linear,
    nir.Affine,
    nir.Scale,
    nir.AvgPool2d,
    nir.SumPool2d,
    nir.Flatten,
    *_NEURONS,
)


def _tensor(value: object) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))


def _per_neuron(value: object, shape: tuple[int, ...]) -> Tensor:
    """One number, one a channel, or one a neuron, shaped to broadcast over (image, *shape)."""
    numbers = _tensor(value)
    one_a_channel = numbers.ndim == 1 and numbers.numel() == shape[0]
    return numbers.view(-1, *(1,) * (len(shape) - 1)) if one_a_channel else numbers


def _pair(value: object) -> tuple[int, int]:
    values = [int(v) for v in np.asarray(value).ravel()]
    return values[0], values[-1]


def _linear(node: nir.NIRNode, value: Tensor) -> Tensor:
    """One linear node on (image * step, ...)."""
    if isinstance(node, nir.Conv2d):
        padding = node.padding if isinstance(node.padding, str) else _pair(node.padding)
        bias = None if node.bias is None else _tensor(node.bias)
        return functional.conv2d(
            value, _tensor(node.weight), bias, _pair(node.stride), padding, _pair(node.dilation), int(node.groups)
        )
    if isinstance(node, nir.Affine):
        return functional.linear(value, _tensor(node.weight), _tensor(node.bias))
    if isinstance(node, nir.Linear):
        return functional.linear(value, _tensor(node.weight))
    if isinstance(node, nir.Scale):
        return value * _per_neuron(node.scale, value.shape[1:])
    if isinstance(node, nir.AvgPool2d | nir.SumPool2d):
        kernel = _pair(node.kernel_size)
        pooled = functional.avg_pool2d(value, kernel, _pair(node.stride), _pair(node.padding))
        return pooled * (kernel[0] * kernel[1]) if isinstance(node, nir.SumPool2d) else pooled
    return value.flatten(1)
