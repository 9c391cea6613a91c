"""Random spiking graphs with integer weights, and what they must do, population by population, without any relay."""

from __future__ import annotations

from dataclasses import dataclass, field

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional

from gascnn.toolkit.lowering.annotations import GraphNotes, NeuronNotes, set_graph_notes, set_neuron_notes

PIN = 65535
"""Half of the 24-bit state in weight units: a noted peak of PIN / theta makes theta the layer's integer scale."""


def _forward(node, value):
    """A linear NIR node on (batch, ...), by torch in double precision, bias included."""
    if isinstance(node, nir.Conv2d):
        weight, bias = torch.tensor(node.weight).double(), torch.tensor(node.bias).double()
        pairs = [tuple(int(n) for n in np.broadcast_to(p, 2)) for p in (node.stride, node.padding, node.dilation)]
        return functional.conv2d(value, weight, bias, *pairs, int(node.groups))
    if isinstance(node, nir.Affine):
        return functional.linear(value, torch.tensor(node.weight).double(), torch.tensor(node.bias).double())
    if isinstance(node, nir.Scale):
        return value * torch.tensor(node.scale).double()
    if isinstance(node, nir.AvgPool2d | nir.SumPool2d):
        kernel, stride, padding = (tuple(int(n) for n in p) for p in (node.kernel_size, node.stride, node.padding))
        pooled = functional.avg_pool2d(value, kernel, stride, padding)
        return pooled * kernel[0] * kernel[1] if isinstance(node, nir.SumPool2d) else pooled
    return value.flatten(1)


@dataclass
class SpikingReference:
    """Every population on its own, in double precision; its inputs arrive as late as the deployed layers are deep.

    A population of depth k (the longest way from the input, in populations) sees what a source of depth d spiked
    k - d steps ago. Biases act while ``bias_on`` says so.
    """

    graph: nir.NIRGraph
    reset: str
    start: float = 0.0
    bias_mode: str = "input"
    trains: dict = field(default_factory=dict)
    depth: dict = field(default_factory=dict)

    def sources(self, name):
        return [a for a, b in self.graph.edges if b == name]

    def population_depth(self, name):
        node = self.graph.nodes[name]
        below = max((self.population_depth(s) for s in self.sources(name)), default=0)
        return below + 1 if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF) else below

    def current(self, name, depth, shape=None):
        """(image, time, ...) input of a node whose spikes are due at ``depth``, with biases always on."""
        total = 0
        for source in self.sources(name):
            node = self.graph.nodes[source]
            if source in self.trains:
                late = depth - self.depth[source]
                train = self.trains[source]
                value = torch.zeros_like(train)
                value[:, late:] = train[:, : train.shape[1] - late]
            else:
                inner = self.current(source, depth)
                flat = _forward(node, inner.flatten(0, 1))
                value = flat.view(*inner.shape[:2], *flat.shape[1:])
            total = total + value
        return total

    def bias_on(self, depth, total, steps):
        if self.bias_mode == "neuron":
            return torch.ones(total)
        on = torch.zeros(total)
        if self.bias_mode == "input":
            on[depth : depth + steps] = 1
        else:
            on[depth - 1 :] = 1
        return on

    def run(self, spikes):
        """(name: (image, T + K, ...) bool) of every population, for (image, T, ...) input."""
        order = list(self.graph.nodes)
        populations = [n for n in order if isinstance(self.graph.nodes[n], nir.IF | nir.LIF)]
        last = max(self.population_depth(n) for n in populations)
        images, steps = spikes.shape[:2]
        fed = torch.zeros(images, steps + last, *spikes.shape[2:], dtype=torch.float64)
        fed[:, :steps] = torch.from_numpy(spikes.astype(np.float64))
        source = next(n for n in order if isinstance(self.graph.nodes[n], nir.Input))
        self.trains, self.depth = {source: fed}, {source: 0}
        for name in populations:
            self.add(name, steps)
        return {name: self.trains[name].numpy() > 0 for name in populations}

    def split(self, name):
        """(spike-driven current, bias current) of a population."""
        depth = self.population_depth(name)
        with_bias = self.current(name, depth)
        kept = self.trains
        self.trains = {n: torch.zeros_like(t) for n, t in kept.items()}
        bias = self.current(name, depth)
        self.trains = kept
        return with_bias - bias, bias

    def add(self, name, steps):
        node, depth = self.graph.nodes[name], self.population_depth(name)
        driven, bias = self.split(name)
        total = driven.shape[1]
        on = self.bias_on(depth, total, steps).view(1, -1, *(1,) * (driven.ndim - 2))
        current = driven + bias * on
        theta, gain, keep = torch.tensor(node.v_threshold).double(), torch.tensor(node.r).double(), 1.0
        if isinstance(node, nir.LIF):
            keep, gain = 1.0 - 1.0 / node.tau.flat[0], gain / node.tau.flat[0]
        membrane = (theta * self.start).expand_as(current[:, 0]).clone()
        spikes = torch.zeros_like(current)
        for t in range(total):
            membrane = membrane * keep + current[:, t] * gain
            fired = membrane > theta
            spikes[:, t] = fired
            membrane = torch.where(fired, membrane - theta if self.reset == "subtract" else 0.0, membrane)
        self.trains[name], self.depth[name] = spikes, depth


class GraphBuilder:
    """Builds a graph node by node, with integer weights chosen so that its populations are active on ``spikes``.

    Args:
        seed: of everything.
        shape: of the input.
        reset: ``zero`` gives all neurons one threshold, ``subtract`` one a channel.
        biases: largest absolute bias, even; 0 for none.
        keep: share of the membrane potential kept each step; LIF neurons if below 1.
        grade: with ``simulator`` every channel of a convolution has a threshold of its own.
    """

    def __init__(self, seed, shape, reset, biases=0, images=3, steps=20, density=0.4, keep=1.0, grade="hardware"):
        self.rng = np.random.default_rng(seed)
        self.reset, self.biases = reset, biases
        self.keep, self.grade = keep, grade
        self.start = 0.5 if reset == "subtract" and keep == 1.0 else 0.0
        self.spikes = (self.rng.random((images, steps, *shape)) < density).astype(np.uint8)
        self.nodes = {"in": nir.Input({"input": np.array(shape)})}
        self.edges = []
        self.shapes = {"in": tuple(shape)}
        self.trains = {"in": torch.from_numpy(self.spikes).double()}
        self.count = 0

    def _name(self, kind):
        self.count += 1
        return f"{kind}_{self.count}"

    def _put(self, kind, node, source):
        name = self._name(kind)
        self.nodes[name] = node
        self.edges.append((source, name))
        probe = _forward(node, torch.zeros(1, *self.shapes[source], dtype=torch.float64))
        self.shapes[name] = tuple(probe.shape[1:])
        return name

    def _integers(self, shape, unit):
        return (unit * np.rint(self.rng.normal(0.6, 2.0, shape))).astype(np.float64)

    def _bias(self, size):
        return 2.0 * self.rng.integers(-self.biases // 2, self.biases // 2 + 1, size)

    def conv(self, source, outputs, kernel=3, stride=1, padding=None, dilation=1, groups=1, unit=2):
        kernel, stride, dilation = (tuple(np.broadcast_to(v, 2)) for v in (kernel, stride, dilation))
        if padding is None:
            padding = tuple(int(d * (k - 1) // 2) for d, k in zip(dilation, kernel, strict=True))
        padding = tuple(np.broadcast_to(padding, 2))
        channels, height, width = self.shapes[source]
        weight = self._integers((outputs, channels // groups, *kernel), unit)
        node = nir.Conv2d((height, width), weight, stride, padding, dilation, groups, self._bias(outputs))
        return self._put("conv", node, source)

    def dense(self, source, outputs, unit=2):
        weight = self._integers((outputs, self.shapes[source][0]), unit)
        return self._put("dense", nir.Affine(weight, self._bias(outputs)), source)

    def pool(self, source, kernel=2, stride=None, padding=0, total=False):
        pairs = [np.broadcast_to(v, 2) for v in (kernel, kernel if stride is None else stride, padding)]
        return self._put("pool", (nir.SumPool2d if total else nir.AvgPool2d)(*pairs), source)

    def flatten(self, source):
        return self._put("flatten", nir.Flatten({"input": np.array(self.shapes[source])}, 0, -1), source)

    def scale(self, source, factor):
        return self._put("scale", nir.Scale(np.full(self.shapes[source], float(factor))), source)

    def neurons(self, *sources, resistance=1, one_threshold=False):
        """A population fed by the sum of ``sources``, whose weights are scaled so that it is active."""
        name = self._name("pop")
        shape = self.shapes[sources[0]]
        assert all(self.shapes[s] == shape for s in sources)
        ones = np.ones(shape)
        if self.keep == 1.0:
            self.nodes[name] = nir.IF(r=resistance * ones, v_threshold=100 * ones, v_reset=0 * ones)
        else:
            tau = ones / (1.0 - self.keep)
            self.nodes[name] = nir.LIF(
                tau=tau, r=resistance * tau, v_leak=0 * ones, v_threshold=100 * ones, v_reset=0 * ones
            )
        self.edges.extend((s, name) for s in sources)
        self.shapes[name] = shape
        channel = (-1, *(1,) * (len(shape) - 1))
        theta = 100.0 * np.ones(shape[0])
        simulator = self.grade == "simulator" and len(shape) == 3
        if (self.reset == "subtract" or simulator) and not one_threshold:
            theta = 2.0 * self.rng.integers(30, 63, shape[0])
        node = self.nodes[name]
        node.v_threshold = np.broadcast_to(theta.reshape(channel), shape).copy()
        # Turn the integer weights up or down, all by one whole factor, until a good share of the neurons fires.
        reference = SpikingReference(self.graph(), self.reset, self.start, "none", trains=dict(self.trains))
        reference.depth = {n: reference.population_depth(n) for n in self.trains}
        reference.bias_on = lambda depth, total, steps: torch.ones(total)
        weighted = [n for s in sources for n in self._weighted_behind(s)]
        original = {n: self.nodes[n].weight for n in weighted}
        best = None
        for factor in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
            for n in weighted:
                self.nodes[n].weight = np.clip(original[n] * factor, -248, 248)
            # Depths do not matter for rates: align everything.
            reference.depth = dict.fromkeys(reference.depth, reference.population_depth(name))
            reference.add(name, self.spikes.shape[1])
            error = abs(float(reference.trains[name].mean()) - 0.3)
            if best is None or error < best[0]:
                best = (error, factor, reference.trains[name])
        for n in weighted:
            self.nodes[n].weight = np.clip(original[n] * best[1], -248, 248)
        self.trains[name] = best[2]
        peak = PIN / (theta + 0.01)
        set_neuron_notes(node, NeuronNotes(self.start, peak, peak))
        return name

    def _weighted_behind(self, name):
        node = self.nodes[name]
        if isinstance(node, nir.Conv2d | nir.Affine):
            return [name]
        if isinstance(node, nir.IF | nir.Input):
            return []
        return [w for a, b in self.edges if b == name for w in self._weighted_behind(a)]

    def graph(self, **notes):
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges, type_check=False)

    def finish(self, output, **notes):
        """The finished graph, read out at population ``output``."""
        self.nodes["out"] = nir.Output({"output": np.array(self.shapes[output])})
        self.edges.append((output, "out"))
        graph = self.graph()
        set_graph_notes(graph, GraphNotes(**{"reset": self.reset, "steps": self.spikes.shape[1], **notes}))
        return graph


@pytest.fixture(scope="session")
def builder():
    return GraphBuilder


@pytest.fixture(scope="session")
def reference():
    return SpikingReference
