"""From a NIR graph to a :class:`NetxNetwork`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import nir
import numpy as np

from gascnn.toolkit.errors import ConversionError, UsageError
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.annotations import GraphNotes, graph_notes, set_graph_notes
from gascnn.toolkit.lowering.deployment import Deployment, Grade
from gascnn.toolkit.lowering.graph import INPUT, FloatPopulation, Path, SpikeGraph, read_graph
from gascnn.toolkit.lowering.linear import scaled_input
from gascnn.toolkit.lowering.network import InputLayer, NetxNetwork, Reset
from gascnn.toolkit.lowering.plan import LayerPlan, plan_layers, population_depths
from gascnn.toolkit.lowering.quantise import Scheme, quantise_layer
from gascnn.toolkit.lowering.rules import check_network

BiasMode = Literal["neuron", "always-on", "input"]

MAX_ALWAYS_ON = 8
"""More channels than this for biases would cost more than they give."""


@dataclass(frozen=True)
class LoweringOptions:
    """How to lower.

    Attributes:
        reset: ``zero`` (stock NetX) or ``subtract`` (self-inhibition); None takes what the graph says.
        grade: ``hardware`` keeps to the chip's documented ranges, ``simulator`` to what Lava's CPU models hold.
        bias: how biases act. ``neuron``: the chip's own, which act from the very first step on, k steps before data
            reach layer k. ``always-on``: the first layer makes channels that spike at every step and hands them on;
            biases are weights from them and start one step before the data. ``input``: these channels are planes of
            the input that the host adds; biases then act exactly as long as the input does and the network is silent
            without input. None: ``always-on`` for reset zero, ``input`` for reset by subtraction (which has no other).
        steps: T to record; None takes the graph's.
        dt: length of a step where the graph has leaky neurons and does not say.
    """

    reset: Reset | None = None
    grade: Grade = "hardware"
    bias: BiasMode | None = None
    steps: int | None = None
    dt: float | None = None


@dataclass(frozen=True)
class LayerReport:
    """What lowering made of one layer; see :class:`gascnn.toolkit.lowering.quantise.Scales`."""

    name: str
    shape: tuple[int, ...]
    populations: tuple[str, ...]
    relay_channels: int
    always_on_channels: int
    scale_min: float
    scale_max: float
    weight_bits: float
    state_used: float | None


@dataclass(frozen=True, eq=False)
class Lowered:
    """The deployed network and how it came about."""

    network: NetxNetwork
    layers: tuple[LayerReport, ...]

    def wrap_unproven(self) -> bool:
        """Whether neither calibration nor the weights themselves rule out that a current wraps at 24 bits."""
        if all(layer.state_used is not None for layer in self.layers):
            return False
        if self.network.reset == "subtract":
            return True
        largest = 2**self.network.input_bits - 1 if self.network.input_bits else 1
        sums = [int(np.abs(lay.weight).reshape(len(lay.weight), -1).sum(1).max()) for lay in self.network.layers]
        return max(sums[0] * largest, *sums) > limits.STATE_LIMIT_WEIGHT_UNITS

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {"reset": self.network.reset, "layers": [vars(layer) for layer in self.layers]}


def lower(graph: nir.NIRGraph, options: LoweringOptions | None = None) -> Lowered:
    """Lower a NIR graph to the integers that run in Lava.

    Args:
        graph: feed-forward; see :func:`gascnn.toolkit.lowering.graph.read_graph` for the nodes it may hold.
        options: target; default reset zero or what the graph says, hardware-legal numbers.

    Returns:
        The network and a report a layer.

    Raises:
        ConversionError: a node or topology that cannot be expressed exactly; no reset is known.
        LimitError: numbers that the target cannot hold.
        FormatError: a graph that is not consistent.
        UsageError: options that do not go together.
    """
    options = options or LoweringOptions()
    spiking = read_graph(_with_dt(graph, options.dt))
    notes = spiking.notes
    reset = options.reset or notes.reset
    if reset is None:
        raise ConversionError("the graph does not say how its neurons reset; give --reset zero or --reset subtract")
    bias: BiasMode = options.bias or ("input" if reset == "subtract" else "always-on")
    if reset == "subtract" and bias != "input":
        raise UsageError("with reset subtract the chip's own bias shifts the threshold; use bias input")
    steps = options.steps if options.steps is not None else notes.steps
    if steps < 1:
        raise UsageError(f"steps is {steps}; it must be at least 1")
    if steps > notes.steps:
        spiking = _longer(spiking, steps / notes.steps)
    constant_level = 255 if notes.coding == "constant" else 1
    spiking = _pixels_as_integers(spiking)
    always_on = 0 if bias == "neuron" else always_on_channels(spiking, first=1 if bias == "input" else 2)
    constant = always_on if bias == "input" else 0
    plans = plan_layers(spiking, always_on, from_input=bias == "input")
    if constant_level > 1 and constant:
        plans[0] = _scaled_bias(plans[0], constant_level)
    scheme = Scheme(reset=reset, hardware=options.grade == "hardware")
    done = [
        quantise_layer(plan, scheme, last=index == len(plans) - 1, name=f"layer_{index:02d} ({_names(plan)})")
        for index, plan in enumerate(plans)
    ]
    network = NetxNetwork(
        input=InputLayer((spiking.input_shape[0] + constant, *spiking.input_shape[1:])),
        layers=tuple(layer for layer, _ in done),
        input_bits=limits.GRADED_INPUT_BITS if notes.coding == "constant" else 0,
        reset=reset,
        constant_channels=constant,
        deployment=_deployment(spiking, notes, options),
    )
    check_network(network)
    reports = tuple(_report(i, plan, scales) for i, (plan, (_, scales)) in enumerate(zip(plans, done, strict=True)))
    return Lowered(network, reports)


def _longer(graph: SpikeGraph, factor: float) -> SpikeGraph:
    """Membranes that drift reach further in more steps than calibration took: scale what it saw."""

    def stretched(population: FloatPopulation) -> FloatPopulation:
        peak = population.notes.membrane_peak
        if peak is None:
            return population
        return replace(population, notes=replace(population.notes, membrane_peak=peak * factor))

    return replace(graph, populations=tuple(stretched(p) for p in graph.populations))


def _with_dt(graph: nir.NIRGraph, dt: float | None) -> nir.NIRGraph:
    if dt is None:
        return graph
    copy = nir.NIRGraph(nodes=graph.nodes, edges=graph.edges, metadata=dict(graph.metadata), type_check=False)
    set_graph_notes(copy, replace(graph_notes(graph), dt=dt))
    return copy


def _names(plan: LayerPlan) -> str:
    return ", ".join(p.name for p in plan.populations)


def always_on_channels(graph: SpikeGraph, first: int) -> int:
    """How many always-on channels let every bias be an 8-bit weight without costing the other weights precision.

    A neuron's bias b and largest weight w share 8 bits; with n always-on channels each carries b / n.

    Args:
        graph: populations and paths.
        first: depth (from 1) from which on populations take their biases from such channels.
    """
    needed = 0
    depth = population_depths(graph)
    for population in graph.populations:
        if depth[population.name] < first:
            continue
        bias = np.abs(np.sum([path.map.bias for path in population.paths], axis=0))
        if not np.any(bias):
            continue
        columns = 1
        if len(population.shape) == 1:
            shapes = [p.map.in_shape for p in population.paths if depth.get(p.source, 0) == depth[population.name] - 1]
            columns = math.prod(shapes[0][1:]) if shapes and len(shapes[0]) == 3 else 1
        largest = np.max(
            [np.abs(p.map.weight).reshape(len(p.map.weight), -1).max(axis=1) for p in population.paths], axis=0
        )
        ratio = float(np.quantile(bias / np.maximum(largest, 1e-12), 0.9))
        needed = max(needed, min(MAX_ALWAYS_ON, math.ceil(ratio / columns)), 1)
    return needed


def _pixels_as_integers(graph: SpikeGraph) -> SpikeGraph:
    """With constant coding the input is the 8-bit pixel itself: divide the first weights by its largest value."""
    if graph.notes.coding != "constant":
        return graph
    factor = 1.0 / graph.notes.pixel_max

    def converted(population: FloatPopulation) -> FloatPopulation:
        paths = tuple(Path(p.source, scaled_input(p.map, factor)) if p.source == INPUT else p for p in population.paths)
        return replace(population, paths=paths)

    depth = population_depths(graph)
    for population in graph.populations:
        if depth[population.name] > 1 and any(p.source == INPUT for p in population.paths):
            raise ConversionError(f"{population.name}: a skip from graded input; relays repeat spikes only; use spikes")
    return replace(graph, populations=tuple(converted(p) for p in graph.populations))


def _scaled_bias(plan: LayerPlan, level: int) -> LayerPlan:
    """The always-on plane of graded input holds the largest pixel value, so a bias weight counts that often."""
    return replace(plan, bias=plan.bias / level)


def _deployment(graph: SpikeGraph, notes: GraphNotes, options: LoweringOptions) -> Deployment:
    outputs = math.prod(graph.populations[-1].shape)
    classes = notes.classes or tuple(str(i) for i in range(outputs))
    if len(classes) != outputs:
        raise ConversionError(f"the graph has {outputs} outputs but names {len(classes)} classes")
    return Deployment(
        image_shape=notes.image_shape or graph.input_shape,
        classes=classes,
        steps=notes.steps if options.steps is None else options.steps,
        coding=notes.coding,
        seed=notes.seed,
        pixel_max=notes.pixel_max,
        grade=options.grade,
        skip_steps=notes.skip_steps,
        provenance=notes.provenance,
    ).checked()


def _report(index: int, plan: LayerPlan, scales: Any) -> LayerReport:
    used = scales.scale[scales.scale > 0]
    count = {kind: sum(s.stop - s.start for s in plan.segments if s.kind == kind) for kind in ("relay", "always-on")}
    return LayerReport(
        name=f"layer_{index:02d}",
        shape=plan.shape,
        populations=tuple(p.name for p in plan.populations),
        relay_channels=count["relay"],
        always_on_channels=count["always-on"],
        scale_min=float(used.min()),
        scale_max=float(used.max()),
        weight_bits=round(scales.weight_bits, 2),
        state_used=None if scales.headroom is None else round(scales.headroom, 4),
    )
