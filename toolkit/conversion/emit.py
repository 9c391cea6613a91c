"""Write the fitted network as a NIR graph: thresholds of 1, all scales absorbed in weights and biases."""

from __future__ import annotations

import itertools
from collections import Counter

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.toolkit.conversion.fit import Scale
from gascnn.toolkit.conversion.ir import Op, OpGraph
from gascnn.toolkit.conversion.response import NeuronModel
from gascnn.toolkit.lowering.annotations import GraphNotes, NeuronNotes, set_graph_notes, set_neuron_notes

Floats = npt.NDArray[np.floating]


def emit(graph: OpGraph, scales: dict[str, Scale], neuron: NeuronModel, notes: GraphNotes) -> nir.NIRGraph:
    """Build the NIR graph.

    A weight from channel i to o becomes ``gain_o W_oi decode_i``, a bias ``gain_o b_o``; what is added up in the ANN
    arrives over several edges at one population.

    Args:
        graph: operations with their neurons marked.
        scales: of every population.
        neuron: the model; with a leak it becomes a LIF node of time constant ``1 / (1 - leak)`` and step 1.
        notes: for the graph's metadata.
    """
    return _Emitter(graph, scales, neuron).graph(notes)


class _Emitter:
    def __init__(self, graph: OpGraph, scales: dict[str, Scale], neuron: NeuronModel) -> None:
        self._graph, self._scales, self._neuron = graph, scales, neuron
        self._nodes: dict[str, nir.NIRNode] = {}
        self._edges: list[tuple[str, str]] = []

    def graph(self, notes: GraphNotes) -> nir.NIRGraph:
        for op in self._graph:
            if op.kind == "input":
                self._nodes[op.name] = nir.Input({"input": np.array(op.shape)})
            elif op.kind == "neurons":
                self._population(op)
        output = self._graph.output
        self._nodes[output.name] = nir.Output({"output": np.array(output.shape)})
        self._edges.append((output.inputs[0], output.name))
        result = nir.NIRGraph(nodes=self._nodes, edges=self._edges, type_check=False)
        set_graph_notes(result, notes)
        return result

    def _population(self, op: Op) -> None:
        scale = self._scales[op.name]
        sources = self._value(op.inputs[0], scale.gain.double(), op.name)
        offset = np.broadcast_to(np.asarray(scale.offset, dtype=np.float32), op.shape[:1])
        if np.any(offset):
            sources = [self._offset(op, sources, offset)]
        ones = np.broadcast_to(np.float32(1), op.shape)
        zeros = np.broadcast_to(np.float32(0), op.shape)
        if self._neuron.leak == 1.0:
            node: nir.NIRNode = nir.IF(r=ones, v_threshold=ones, v_reset=zeros)
        else:
            tau = np.broadcast_to(np.float64(1.0 / (1.0 - self._neuron.leak)), op.shape)
            node = nir.LIF(tau=tau, r=tau, v_leak=zeros, v_threshold=ones, v_reset=zeros)
        set_neuron_notes(
            node,
            NeuronNotes(
                self._neuron.initial_membrane,
                scale.current_peak.numpy(),
                scale.membrane_peak.numpy(),
                scale.message_threshold,
            ),
        )
        self._nodes[op.name] = node
        self._edges.extend((source, op.name) for source in sources)

    def _offset(self, op: Op, sources: list[str], offset: Floats) -> str:
        """Add an offset a channel to a bias that is there, else behind what is there."""
        if len(sources) == 1 and isinstance(self._nodes[sources[0]], nir.Affine | nir.Conv2d):
            node = self._nodes[sources[0]]
            node.bias = node.bias + offset
            return sources[0]
        if len(op.shape) == 1:
            size = op.shape[0]
            node = nir.Affine(np.eye(size, dtype=np.float32), offset)
        else:
            node = _depthwise(np.ones(op.shape[0]), offset, op.shape)
        return self._add(f"{op.name}@offset", node, sources)

    def _value(self, name: str, factor: Tensor | None, consumer: str) -> list[str]:
        """Names of nodes whose sum is ``factor`` (one number, or one a channel) times the operation's value."""
        op = self._graph.ops[name]
        if op.kind in ("neurons", "input"):
            return self._spikes(op, factor, consumer)
        if op.kind == "add":
            return self._sum(op, factor, consumer)
        node_name = f"{name}@{consumer}" if name in self._nodes else name
        if op.kind == "avgpool":
            sources = self._value(op.inputs[0], factor, consumer)
            pooled = self._add(
                node_name, nir.AvgPool2d(*(np.array(p) for p in (op.kernel, op.stride, op.padding))), sources
            )
            return [pooled] if len(op.shape) == 3 else [self._flat(f"{pooled}@flat", (op.shape[0], 1, 1), [pooled])]
        if op.kind == "flatten":
            return [self._flatten(op, node_name, factor, consumer)]
        return [self._weighted(op, node_name, factor, consumer)]

    def _sum(self, op: Op, factor: Tensor | None, consumer: str) -> list[str]:
        """What is added up, each once: a node cannot feed another twice."""
        names: list[str] = []
        waiting = list(op.inputs)
        while waiting:
            inner = self._graph.ops[waiting.pop(0)]
            if inner.kind == "add":
                waiting = [*inner.inputs, *waiting]
            else:
                names.append(inner.name)
        one = torch.ones(1, dtype=torch.float64) if factor is None else factor
        times = Counter(names)
        return [s for n in times for s in self._value(n, factor if times[n] == 1 else one * times[n], consumer)]

    def _flatten(self, op: Op, name: str, factor: Tensor | None, consumer: str) -> str:
        """Flatten; a factor a neuron comes behind it, one for all or for channels of one value ahead of it."""
        before = self._graph.ops[op.inputs[0]]
        ahead = factor is None or factor.numel() == 1 or op.shape[0] == before.shape[0]
        sources = self._value(before.name, factor if ahead else None, consumer)
        flat = self._flat(name, before.shape, sources)
        if ahead or factor is None:
            return flat
        return self._add(f"{flat}@scale", nir.Scale(factor.numpy().astype(np.float32)), [flat])

    def _flat(self, name: str, shape: tuple[int, ...], sources: list[str]) -> str:
        return self._add(name, nir.Flatten({"input": np.array(shape)}, 0, -1), sources)

    def _spikes(self, op: Op, factor: Tensor | None, consumer: str) -> list[str]:
        """Spikes as activations, times ``factor``."""
        total = self._decode(op)
        if factor is not None:
            total = factor if total is None else total * factor
        if total is None or bool((total == 1).all()):
            return [op.name]
        scale = total.numpy().astype(np.float32).reshape(-1, *(1,) * (len(op.shape) - 1))
        node = nir.Scale(np.broadcast_to(scale, op.shape))
        return [self._add(f"{op.name}@{consumer}", node, [op.name])]

    def _decode(self, op: Op) -> Tensor | None:
        return self._scales[op.name].decode.double() if op.kind == "neurons" else None

    def _weighted(self, op: Op, node_name: str, factor: Tensor | None, consumer: str) -> str:
        """A convolution, linear layer or batch norm with the scales of both sides absorbed."""
        assert op.weight is not None
        weight = op.weight
        bias = torch.zeros(op.shape[0], dtype=torch.float64) if op.bias is None else op.bias
        before = self._graph.ops[op.inputs[0]]
        decode = self._decode(before) if before.kind == "neurons" else None
        if op.kind == "conv" and decode is not None:
            per_group = decode.view(op.groups, 1, -1, 1, 1)
            weight = (weight.view(op.groups, -1, *weight.shape[1:]) * per_group).view(weight.shape)
        elif decode is not None:
            weight = weight * decode
        if factor is not None:
            weight = weight * factor.view(-1, *(1,) * (weight.ndim - 1))
            bias = bias * factor
        sources = [before.name] if before.kind in ("neurons", "input") else self._value(before.name, None, consumer)
        numbers, offsets = weight.numpy().astype(np.float32), bias.numpy().astype(np.float32)
        return self._add(node_name, _node(op, numbers, offsets, before.shape), sources)

    def _add(self, wanted: str, node: nir.NIRNode, sources: list[str]) -> str:
        """Add a node under the first free name; operations' own names have no @ in them."""
        names = (wanted if i == 0 else f"{wanted}@{i}" for i in itertools.count())
        name = next(n for n in names if n not in self._nodes)
        self._nodes[name] = node
        self._edges.extend((source, name) for source in sources)
        return name


def _node(op: Op, weight: Floats, bias: Floats, before: tuple[int, ...]) -> nir.NIRNode:
    if op.kind == "linear":
        return nir.Affine(weight, bias)
    if op.kind == "affine":
        return nir.Affine(np.diag(weight), bias) if len(op.shape) == 1 else _depthwise(weight, bias, op.shape)
    return nir.Conv2d(
        input_shape=(before[1], before[2]),
        weight=weight,
        stride=op.stride,
        padding=op.padding,
        dilation=op.dilation,
        groups=op.groups,
        bias=bias,
    )


def _depthwise(factor: Floats, offset: Floats, shape: tuple[int, ...]) -> nir.Conv2d:
    """One factor and offset a channel, as a 1x1 convolution."""
    return nir.Conv2d(
        input_shape=(shape[1], shape[2]),
        weight=factor.astype(np.float32).reshape(-1, 1, 1, 1),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=shape[0],
        bias=offset.astype(np.float32),
    )
