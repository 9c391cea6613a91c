"""Read a NIR graph as populations of neurons and the exact linear maps between them."""

from __future__ import annotations

from dataclasses import dataclass, field

import nir
import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import ConversionError, FormatError
from gascnn.toolkit.lowering.annotations import GraphNotes, NeuronNotes, graph_notes, neuron_notes
from gascnn.toolkit.lowering.linear import LinearMap, NotExact, as_dense, compose, identity_map
from gascnn.toolkit.lowering.nodes import linear_map, per_channel

Floats = npt.NDArray[np.floating]
INPUT = "input"
ALWAYS_ON = "always-on"


@dataclass(frozen=True, eq=False)
class Path:
    """One linear way from a population (or the input) to a population."""

    source: str
    map: LinearMap


@dataclass(frozen=True, eq=False)
class FloatPopulation:
    """A population as NIR describes it.

    Attributes:
        name: the NIR node's.
        shape: (C, H, W) or (N,).
        threshold: (C,) float, one a channel.
        gain: (C,) float, factor on the input current.
        current_keep, voltage_keep: share of the current and of the membrane potential kept each step, 0..1.
        notes: what NIR cannot say (initial membrane, calibration).
        paths: all ways in.
    """

    name: str
    shape: tuple[int, ...]
    threshold: Floats
    gain: Floats
    current_keep: float
    voltage_keep: float
    notes: NeuronNotes
    paths: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class SpikeGraph:
    """Populations in topological order, the last one being the output."""

    input_shape: tuple[int, ...]
    populations: tuple[FloatPopulation, ...]
    notes: GraphNotes = field(default_factory=GraphNotes)


@dataclass(frozen=True, eq=False)
class _Term:
    """A signal that is a linear function of one population's spikes; ``map`` None is the identity."""

    source: str
    map: LinearMap | None
    shape: tuple[int, ...]


def read_graph(graph: nir.NIRGraph) -> SpikeGraph:
    """Turn a NIR graph into populations and paths.

    Args:
        graph: one input, one output fed by neurons (IF, LIF, CubaLIF); between them Conv2d, Linear, Affine, Scale,
            AvgPool2d, SumPool2d, Flatten; several edges into one node add up.

    Raises:
        ConversionError: a node that cannot be expressed, with name, reason and remedy.
        FormatError: what :func:`topological_order` refuses, nodes that nothing feeds, shapes that do not follow.
    """
    order = topological_order(graph)
    notes = graph_notes(graph)
    incoming: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        incoming[target].append(source)
    signals: dict[str, list[_Term]] = {}
    populations: list[FloatPopulation] = []
    shape: tuple[int, ...] | None = None
    for name in order:
        node = graph.nodes[name]
        terms = [term for source in incoming[name] for term in signals[source]]
        if isinstance(node, nir.Input):
            shape = _shape(node.output_type["output"])
            signals[name] = [_Term(INPUT, None, shape)]
        elif isinstance(node, nir.Output):
            return _finished(name, terms, populations, shape, notes)
        elif not terms:
            raise FormatError(f"{name}: nothing feeds this node; connect it or remove it")
        elif isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
            populations.append(_population(name, node, terms, notes))
            signals[name] = [_Term(name, None, populations[-1].shape)]
        else:
            signals[name] = [_applied(name, node, term, first=i == 0) for i, term in enumerate(terms)]
    raise AssertionError("the order ends with the output")


def topological_order(graph: nir.NIRGraph) -> list[str]:
    """Names of the nodes, every node behind all that feed it.

    Raises:
        FormatError: no or several inputs, no or several outputs, an unknown or doubled edge, a cycle, or a name that
            is reserved.
    """
    edges = _checked_edges(graph)
    waiting: dict[str, set[str]] = {name: set() for name in graph.nodes}
    for source, target in edges:
        if source not in waiting or target not in waiting:
            raise FormatError(f"the NIR graph has an edge {source} -> {target} to a node that is not there")
        waiting[target].add(source)
    order: list[str] = []
    while ready := [name for name, needs in waiting.items() if not needs]:
        for name in ready:
            del waiting[name]
            order.append(name)
        for needs in waiting.values():
            needs.difference_update(ready)
    if waiting:
        raise FormatError(
            f"the NIR graph has a cycle through {sorted(waiting)[0]}; only feed-forward graphs are supported"
        )
    # The output last, so that everything it does not need has been seen too.
    return sorted(order, key=lambda n: isinstance(graph.nodes[n], nir.Output))


def _checked_edges(graph: nir.NIRGraph) -> list[tuple[str, str]]:
    """The edges of a graph with one input, one output, no reserved name and no edge twice."""
    for kind, what in ((nir.Input, "inputs"), (nir.Output, "outputs")):
        found = [n for n, node in graph.nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise FormatError(f"the NIR graph has {len(found)} {what}; exactly one is supported")
    for name in (INPUT, ALWAYS_ON):
        if not isinstance(graph.nodes.get(name, None), nir.Input | None):
            raise FormatError(f"a node of the NIR graph is called {name!r}, which means something else here; rename it")
    edges = [(str(source), str(target)) for source, target in graph.edges]
    if len(set(edges)) < len(edges):
        source, target = next(edge for edge in edges if edges.count(edge) > 1)
        raise FormatError(f"the NIR graph has the edge {source} -> {target} twice; double its weights instead")
    return edges


def _finished(
    name: str,
    terms: list[_Term],
    populations: list[FloatPopulation],
    shape: tuple[int, ...] | None,
    notes: GraphNotes,
) -> SpikeGraph:
    assert shape is not None, "the order begins with the input"
    if len(terms) != 1 or terms[0].map is not None or terms[0].source == INPUT:
        raise ConversionError(
            f"{name}: the graph's output is not a population of neurons; only spikes can be read out; "
            "append an IF node behind the last linear node"
        )
    last = terms[0].source
    used = _needed(populations, last)
    return SpikeGraph(shape, tuple(p for p in populations if p.name in used), notes)


def _needed(populations: list[FloatPopulation], last: str) -> set[str]:
    by_name = {p.name: p for p in populations}
    used, stack = set(), [last]
    while stack:
        name = stack.pop()
        if name != INPUT and name not in used:
            used.add(name)
            stack.extend(path.source for path in by_name[name].paths)
    return used


def _shape(value: object) -> tuple[int, ...]:
    return tuple(int(n) for n in np.asarray(value).ravel())


def _applied(name: str, node: nir.NIRNode, term: _Term, *, first: bool) -> _Term:
    """The term behind one linear node; a bias counts once, with the first term of a sum."""
    if isinstance(node, nir.Flatten):
        return _Term(term.source, term.map, (int(np.prod(term.shape)),))
    linear = linear_map(name, node, term.shape, with_bias=first)
    if term.map is None:
        return _Term(term.source, linear, linear.out_shape)
    try:
        return _Term(term.source, compose(linear, term.map), linear.out_shape)
    except NotExact as reason:
        raise ConversionError(
            f"{name}: cannot be folded with the linear layer before it: {reason}; put a ReLU (neurons) between them"
        ) from reason


def _population(
    name: str, node: nir.IF | nir.LIF | nir.CubaLIF, terms: list[_Term], notes: GraphNotes
) -> FloatPopulation:
    shape = terms[0].shape
    if any(term.shape != shape for term in terms):
        found = ", ".join(str(term.shape) for term in terms)
        raise FormatError(f"{name}: inputs of different shapes are added ({found})")
    if np.any(node.v_reset):
        raise ConversionError(f"{name}: v_reset must be 0; Lava resets the membrane potential to 0")
    gain, current_keep, voltage_keep = _dynamics(name, node, shape, notes)
    threshold = per_channel(name, "v_threshold", node.v_threshold, shape)
    if np.any(threshold <= 0):
        raise ConversionError(f"{name}: v_threshold must be positive; found {threshold.min():g}")
    notes_here = neuron_notes(node)
    for peak in (notes_here.current_peak, notes_here.membrane_peak):
        if peak is not None and peak.size not in (1, shape[0]):
            raise FormatError(f"{name}: {peak.size} peaks were noted for {shape[0]} channels; convert it again")
    return FloatPopulation(
        name=name,
        shape=shape,
        threshold=threshold,
        gain=gain,
        current_keep=current_keep,
        voltage_keep=voltage_keep,
        notes=notes_here,
        paths=tuple(_path(term, shape) for term in terms),
    )


def _path(term: _Term, shape: tuple[int, ...]) -> Path:
    linear = term.map if term.map is not None else identity_map(shape)
    return Path(term.source, as_dense(linear) if len(shape) == 1 else linear)


def _dynamics(
    name: str, node: nir.IF | nir.LIF | nir.CubaLIF, shape: tuple[int, ...], notes: GraphNotes
) -> tuple[Floats, float, float]:
    """(gain a channel, share of current kept, share of membrane potential kept) of one explicit Euler step."""
    resistance = per_channel(name, "r", node.r, shape)
    if isinstance(node, nir.IF):
        return resistance, 0.0, 1.0
    if np.any(node.v_leak):
        raise ConversionError(f"{name}: v_leak must be 0; Lava's membrane potential leaks to 0")
    if notes.dt is None:
        raise ConversionError(f"{name}: leaky neurons need the length of a step; give it with --dt")
    if isinstance(node, nir.LIF):
        share = notes.dt / _one(name, "tau", node.tau)
        _check_share(name, share)
        return resistance * share, 0.0, 1.0 - share
    synapse, membrane = notes.dt / _one(name, "tau_syn", node.tau_syn), notes.dt / _one(name, "tau_mem", node.tau_mem)
    _check_share(name, synapse)
    _check_share(name, membrane)
    weight_in = per_channel(name, "w_in", node.w_in, shape)
    return resistance * membrane * weight_in * synapse, 1.0 - synapse, 1.0 - membrane


def _one(name: str, what: str, value: object) -> float:
    array = np.asarray(value, dtype=np.float64).ravel()
    if not np.all(array == array[0]):
        raise ConversionError(f"{name}: {what} differs between neurons; NetX holds one decay a layer")
    return float(array[0])


def _check_share(name: str, share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise ConversionError(f"{name}: dt / tau is {share:g}; one step must be shorter than the time constant")
