"""From a NIR graph to a :class:`NetxNetwork`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import nir
import numpy as np

from gascnn.toolkit.errors import ConversionError, UsageError
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.annotations import GraphNotes, graph_notes, set_graph_notes
from gascnn.toolkit.lowering.deployment import Deployment, Grade
from gascnn.toolkit.lowering.graded import check_graded, choose_bits, graded
from gascnn.toolkit.lowering.graph import FloatPopulation, SpikeGraph, read_graph
from gascnn.toolkit.lowering.network import InputLayer, NetxNetwork, Reset, SynapticLayer
from gascnn.toolkit.lowering.plan import LayerPlan, plan_layers, population_depths
from gascnn.toolkit.lowering.quantise import Scales, Scheme, quantise_layer
from gascnn.toolkit.lowering.rules import check_network
from gascnn.toolkit.lowering.sigma_delta import sigma_delta_network

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
            without input. None: ``input`` for reset by subtraction (which has no other) and for graded input (where
            channels made by a 12-bit bias would hold the threshold down), ``neuron`` where synaptic currents have a
            memory (which no such channel can pass), else ``always-on``.
        input_bits: of a pixel with constant coding, 1 to 8; None takes those that lose least.
        steps: T to record; None takes the graph's.
        dt: length of a step where the graph has leaky neurons and does not say.
    """

    reset: Reset | None = None
    grade: Grade = "hardware"
    bias: BiasMode | None = None
    input_bits: int | None = None
    steps: int | None = None
    dt: float | None = None

    def checked(self) -> LoweringOptions:
        """Itself, if its values can be used and go together.

        Raises:
            UsageError: a value out of range.
        """
        for name, value, allowed in (
            ("reset", self.reset, get_args(Reset)),
            ("grade", self.grade, get_args(Grade)),
            ("bias", self.bias, get_args(BiasMode)),
        ):
            if value not in allowed and (value is not None or name == "grade"):
                raise UsageError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        if self.input_bits is not None and not 1 <= self.input_bits <= limits.GRADED_INPUT_BITS:
            raise UsageError(f"input_bits is {self.input_bits}; it must be 1..{limits.GRADED_INPUT_BITS}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps is {self.steps}; it must be at least 1")
        if self.dt is not None and not 0 < self.dt < math.inf:
            raise UsageError(f"dt is {self.dt}; it must be positive")
        return self


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
        return any(_largest_current(self.network, i) > limits.STATE_LIMIT_WEIGHT_UNITS for i in range(len(self.layers)))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        neuron = "sdnn" if self.network.sigma_delta else "cuba"
        return {"neuron": neuron, "reset": self.network.reset, "layers": [vars(layer) for layer in self.layers]}


def _largest_current(network: NetxNetwork, index: int) -> float:
    """Bound of a layer's synaptic current ``u``, in weight units: every input active in every step."""
    layer = network.layers[index]
    largest_input = 2**network.input_bits - 1 if index == 0 and network.input_bits else 1
    sums = np.abs(layer.weight).reshape(len(layer.weight), -1).sum(axis=1) * largest_input
    lost = np.asarray(layer.cuba.current_decay) / limits.DECAY_UNITY
    return float(np.max(np.divide(sums, lost, out=np.full(len(sums), np.inf), where=lost > 0)))


def lower(graph: nir.NIRGraph, options: LoweringOptions | None = None, **changes: Any) -> NetxNetwork:
    """Lower a NIR graph to the integers that run in Lava; :func:`lower_with_report` tells also what became of it.

    Args:
        graph: feed-forward; see :func:`gascnn.toolkit.lowering.graph.read_graph` for the nodes it may hold.
        options: target; default reset zero or what the graph says, hardware-legal numbers.
        changes: fields of ``options`` by name, as in ``lower(graph, grade="simulator")``.

    Raises: as :func:`lower_with_report`.
    """
    return lower_with_report(graph, replace(options or LoweringOptions(), **changes)).network


def lower_with_report(graph: nir.NIRGraph, options: LoweringOptions | None = None) -> Lowered:
    """Lower a NIR graph to the integers that run in Lava.

    Args:
        graph: as in :func:`lower`.
        options: as in :func:`lower`.

    Returns:
        The network and a report a layer.

    Raises:
        ConversionError: a node or topology that cannot be expressed exactly; no reset is known.
        LimitError: numbers that the target cannot hold.
        FormatError: a graph that is not consistent.
        UsageError: options that do not go together.
    """
    options = (options or LoweringOptions()).checked()
    spiking = read_graph(_with_dt(graph, options.dt))
    notes = spiking.notes
    if notes.neuron == "sdnn":
        return _lower_sigma_delta(spiking, options)
    reset = options.reset or notes.reset
    if reset is None:
        raise ConversionError("the graph does not say how its neurons reset; give --reset zero or --reset subtract")
    bias = options.bias or _default_bias(reset, spiking)
    if reset == "subtract" and bias != "input":
        raise UsageError("with reset subtract the chip's own bias shifts the threshold; use bias input")
    steps = options.steps if options.steps is not None else notes.steps
    if notes.reset not in (None, reset):
        spiking = _stretched(spiking, None)
    elif steps > notes.steps:
        spiking = _stretched(spiking, steps / notes.steps)
    from_input = bias == "input"
    always_on = 0 if bias == "neuron" else always_on_channels(spiking, first=1 if from_input else 2)
    plans = plan_layers(spiking, always_on, from_input=from_input)
    scheme = Scheme(reset=reset, hardware=options.grade == "hardware", steps=steps)
    bits = 0
    if notes.coding == "constant":
        check_graded(spiking)
        only = len(plans) == 1
        bits = options.input_bits or choose_bits(
            lambda n: _quantised(0, graded(plans[0], n, from_input), scheme, only)[1].weight_bits
        )
        plans[0] = graded(plans[0], bits, from_input)
    done = [_quantised(index, plan, scheme, index == len(plans) - 1) for index, plan in enumerate(plans)]
    constant = always_on if from_input else 0
    network = NetxNetwork(
        input=InputLayer((spiking.input_shape[0] + constant, *spiking.input_shape[1:])),
        layers=tuple(layer for layer, _ in done),
        input_bits=bits,
        reset=reset,
        constant_channels=constant,
        deployment=_deployment(spiking, notes, options),
    )
    check_network(network)
    reports = tuple(_report(i, plan, scales) for i, (plan, (_, scales)) in enumerate(zip(plans, done, strict=True)))
    return Lowered(network, reports)


def _lower_sigma_delta(graph: SpikeGraph, options: LoweringOptions) -> Lowered:
    for name, value, allowed in (
        ("reset", options.reset, (None,)),
        ("bias", options.bias, (None, "input")),
        ("input_bits", options.input_bits, (None, limits.GRADED_INPUT_BITS)),
    ):
        if value not in allowed:
            raise UsageError(f"{name} {value} is for integrate-and-fire neurons; leave it out with sigma-delta neurons")
    if graph.notes.coding != "constant":
        raise UsageError(
            f"sigma-delta neurons take the pixel itself; convert with coding constant, not {graph.notes.coding}"
        )
    made = sigma_delta_network(graph, hardware=options.grade == "hardware")
    network = made.network.with_deployment(_deployment(graph, graph.notes, options))
    check_network(network)
    pairs = enumerate(zip(made.plans, made.scales, strict=True))
    return Lowered(network, tuple(_report(i, plan, scales) for i, (plan, scales) in pairs))


def _quantised(index: int, plan: LayerPlan, scheme: Scheme, last: bool) -> tuple[SynapticLayer, Scales]:
    names = ", ".join(p.name for p in plan.populations)
    return quantise_layer(plan, scheme, last=last, name=f"layer_{index:02d} ({names})")


def _default_bias(reset: Reset, graph: SpikeGraph) -> BiasMode:
    """Of the host: such a bias begins and ends with the image, so nothing fires ahead of it or behind it."""
    remembers = reset == "zero" and any(p.current_keep > 0 for p in graph.populations)
    return "neuron" if remembers else "input"


def _stretched(graph: SpikeGraph, factor: float | None) -> SpikeGraph:
    """Membranes that drift reach further in more steps than calibration took: scale what it saw.

    What was measured with the other reset says nothing (``factor`` None).
    """

    def stretched(population: FloatPopulation) -> FloatPopulation:
        peak = population.notes.membrane_peak
        peak = None if peak is None or factor is None else peak * factor
        return replace(population, notes=replace(population.notes, membrane_peak=peak))

    return replace(graph, populations=tuple(stretched(p) for p in graph.populations))


def _with_dt(graph: nir.NIRGraph, dt: float | None) -> nir.NIRGraph:
    if dt is None:
        return graph
    copy = nir.NIRGraph(nodes=graph.nodes, edges=graph.edges, metadata=dict(graph.metadata), type_check=False)
    set_graph_notes(copy, replace(graph_notes(graph), dt=dt))
    return copy


def always_on_channels(graph: SpikeGraph, first: int) -> int:
    """How many always-on channels let every bias be an 8-bit weight without costing the other weights precision.

    A neuron's bias b and largest weight w share 8 bits; with n always-on channels each carries b / n.

    Args:
        graph: populations and paths.
        first: depth (from 1) from which on populations take their biases from such channels.
    """
    needed = 0
    depth = population_depths(graph)
    area = {0: math.prod(graph.input_shape[1:])} | {depth[p.name]: math.prod(p.shape[1:]) for p in graph.populations}
    for population in graph.populations:
        own = depth[population.name]
        bias = np.abs(np.sum([path.map.bias for path in population.paths], axis=0))
        if own < first or not np.any(bias):
            continue
        columns = area[own - 1] if len(population.shape) == 1 else 1
        largest = np.max(
            [np.abs(p.map.weight).reshape(len(p.map.weight), -1).max(axis=1) for p in population.paths], axis=0
        )
        ratio = float(np.quantile(bias / np.maximum(largest, 1e-12), 0.9))
        needed = max(needed, min(MAX_ALWAYS_ON, math.ceil(ratio / columns)), 1)
    return needed


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
        framing=notes.framing,
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
