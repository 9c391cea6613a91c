"""Arrange populations as a plain sequence of layers: what skips a layer is carried through it by relay channels.

A layer's channels are the populations of one depth, then the relays of earlier populations that a later layer still
needs, then the always-on channels that carry biases. A relay repeats a spike one step later, so that both ways into a
residual block arrive in the same step; at stride 2 it repeats ``x[2i, 2j]``, what a 1x1 shortcut of stride 2 reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import ConversionError
from gascnn.toolkit.lowering.graph import ALWAYS_ON, INPUT, FloatPopulation, SpikeGraph
from gascnn.toolkit.lowering.kernel import Geometry, merged_geometry, place
from gascnn.toolkit.lowering.linear import ConvMap, DenseMap, LinearMap, as_dense, positions_read
from gascnn.toolkit.lowering.network import Segment
from gascnn.toolkit.lowering.shapes import origin_inside

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One layer in floating point: weights of its populations, relays still without numbers.

    Attributes:
        shape: (C, H, W) or (N,), relays and always-on channels included.
        segments: populations, then relays, then always-on channels.
        weight: (C, C_in / groups, kH, kW) or (N, M), in units of each neuron's threshold; rows of relays are zero.
        bias: (C,) or (N,), likewise.
        geometry: of a convolution, else None.
        relays: (row, column) pairs: this neuron repeats that input; for convolutions at the tap that reads
            ``x[stride * i]``.
        bias_columns: columns of the input that are always on.
        generated: rows that are always on by their own bias, with nothing coming in.
        populations: those computed here, in the order of the segments.
        flatten: whether the layer before has shape (C, H, W) and this one is dense.
        level: what the always-on columns hold: 1 for spikes, 255 where they are planes of graded input.
    """

    shape: tuple[int, ...]
    segments: tuple[Segment, ...]
    weight: Floats
    bias: Floats
    geometry: Geometry | None
    relays: tuple[tuple[int, int], ...]
    bias_columns: tuple[int, ...]
    generated: tuple[int, ...]
    populations: tuple[FloatPopulation, ...]
    flatten: bool
    level: int = 1


@dataclass
class _Pending:
    """A path not yet arrived; ``map`` is relative to the form in which its source is carried now."""

    source: str
    target: str
    map: LinearMap


@dataclass
class _Carried:
    """What the layer before offers: for every source the range of its channels."""

    shape: tuple[int, ...]
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)


def plan_layers(graph: SpikeGraph, always_on: int = 0, *, from_input: bool = False) -> list[LayerPlan]:
    """Arrange a graph as layers.

    Args:
        graph: populations and paths.
        always_on: channels that carry biases from layer to layer; 0 if biases are given to the neurons directly.
        from_input: whether these channels are planes at the end of the input, which the host adds; else the first
            layer makes them (and gives its own biases to its neurons directly).

    Raises:
        ConversionError: populations of one depth that do not fit one layer, a skip that relays cannot carry.
    """
    depth = population_depths(graph)
    last = max(depth.values())
    pending = [_Pending(path.source, p.name, path.map) for p in graph.populations for path in p.paths]
    channels = graph.input_shape[0]
    planes = always_on if from_input else 0
    carried = _Carried((channels + planes, *graph.input_shape[1:]), {INPUT: (0, channels)})
    if planes:
        carried.ranges[ALWAYS_ON] = (channels, channels + planes)
    layers = []
    for level in range(1, last + 1):
        here = [p for p in graph.populations if depth[p.name] == level]
        keep_on = always_on if level < last else 0
        layer, carried, pending = _plan_layer(here, pending, carried, keep_on)
        layers.append(layer)
    return layers


def population_depths(graph: SpikeGraph) -> dict[str, int]:
    """Number of synaptic layers between the input and each population."""
    depth = {INPUT: 0}
    for population in graph.populations:
        depth[population.name] = 1 + max(depth[path.source] for path in population.paths)
    del depth[INPUT]
    return depth


def _plan_layer(
    here: list[FloatPopulation], pending: list[_Pending], carried: _Carried, keep_on: int
) -> tuple[LayerPlan, _Carried, list[_Pending]]:
    names = {p.name for p in here}
    arriving = [p for p in pending if p.target in names]
    later = [p for p in pending if p.target not in names]
    dense = len(here[0].shape) == 1
    _check_same_place(here)
    relayed = [s for s in carried.ranges if any(p.source == s for p in later)]
    if dense:
        return _plan_dense(here, arriving, later, relayed, carried, keep_on)
    return _plan_conv(here, arriving, later, relayed, carried, keep_on)


def _check_same_place(here: list[FloatPopulation]) -> None:
    first = here[0]
    for other in here[1:]:
        same = other.shape[1:] == first.shape[1:] and len(other.shape) == len(first.shape)
        if not same:
            raise ConversionError(
                f"{other.name} {other.shape} and {first.name} {first.shape} lie at the same depth but have different "
                "sizes; a NetX file is a plain sequence of layers; make the branches equal in size"
            )
        if (other.current_keep, other.voltage_keep) != (first.current_keep, first.voltage_keep):
            raise ConversionError(f"{other.name} and {first.name} share a layer but leak differently; use one leak")


def _segments(
    here: list[FloatPopulation], relayed: list[str], sizes: dict[str, int], keep_on: int
) -> tuple[Segment, ...]:
    segments, start = [], 0
    for population in here:
        segments.append(Segment("population", population.name, start, start + population.shape[0]))
        start += population.shape[0]
    for source in relayed:
        segments.append(Segment("relay", source, start, start + sizes[source]))
        start += sizes[source]
    if keep_on:
        segments.append(Segment("always-on", ALWAYS_ON, start, start + keep_on))
    return tuple(segments)


def _next(segments: tuple[Segment, ...], shape: tuple[int, ...]) -> _Carried:
    return _Carried(shape, {s.name: (s.start, s.stop) for s in segments})


# --- convolutions ----------------------------------------------------------------------------------------------------


def _plan_conv(
    here: list[FloatPopulation],
    arriving: list[_Pending],
    later: list[_Pending],
    relayed: list[str],
    carried: _Carried,
    keep_on: int,
) -> tuple[LayerPlan, _Carried, list[_Pending]]:
    maps = [_as_conv(p) for p in arriving]
    stride = maps[0].stride
    for path, conv in zip(arriving, maps, strict=True):
        if conv.stride != stride:
            raise ConversionError(
                f"{path.target}: its inputs come with strides {stride} and {conv.stride}; one layer has one stride; "
                "give both branches the same"
            )
    size_in, size_out = carried.shape[1:], here[0].shape[1:]
    sizes = {s: carried.ranges[s][1] - carried.ranges[s][0] for s in relayed}
    segments = _segments(here, relayed, sizes, keep_on)
    only = len(arriving) == 1 and len(segments) == 1 and len(carried.ranges) == 1
    needs_origin = bool(relayed) or ALWAYS_ON in carried.ranges
    geometry = merged_geometry(maps, carried.shape[0], size_in, size_out, needs_origin, keep_groups=only)
    shape = (segments[-1].stop, *size_out)
    rows = {s.name: s for s in segments if s.kind == "population"}
    weight = np.zeros((shape[0], carried.shape[0] // geometry.groups, *geometry.kernel))
    bias = np.zeros(shape[0])
    for path, conv in zip(arriving, maps, strict=True):
        population = next(p for p in here if p.name == path.target)
        factor = population.gain / population.threshold
        row, column = rows[path.target], carried.ranges[path.source][0]
        place(weight[row.start : row.stop], conv, geometry, column, factor)
        bias[row.start : row.stop] += conv.bias * factor
    plan = LayerPlan(
        shape=shape,
        segments=segments,
        weight=weight,
        bias=bias,
        geometry=geometry,
        relays=_relay_pairs(segments, carried),
        bias_columns=_bias_columns(carried, size_in, size_out, stride, needed=bool(keep_on) or bool(np.any(bias))),
        generated=_generated(segments, carried),
        populations=tuple(here),
        flatten=False,
    )
    passed = [_as_relayed(p, stride, size_in, size_out) if p.source in carried.ranges else p for p in later]
    return plan, _next(segments, shape), passed


def _as_conv(path: _Pending) -> ConvMap:
    if isinstance(path.map, DenseMap):
        raise ConversionError(f"{path.target}: a dense connection into a population of images; put a flatten before")
    return path.map


def _relay_pairs(segments: tuple[Segment, ...], carried: _Carried) -> tuple[tuple[int, int], ...]:
    return tuple(
        (segment.start + i, carried.ranges[segment.name][0] + i)
        for segment in segments
        if segment.kind != "population" and segment.name in carried.ranges
        for i in range(segment.stop - segment.start)
    )


def _generated(segments: tuple[Segment, ...], carried: _Carried) -> tuple[int, ...]:
    """Always-on rows that no always-on input feeds."""
    last = segments[-1]
    return tuple(range(last.start, last.stop)) if last.kind == "always-on" and ALWAYS_ON not in carried.ranges else ()


def _bias_columns(
    carried: _Carried,
    size_in: tuple[int, ...],
    size_out: tuple[int, ...],
    stride: tuple[int, int],
    *,
    needed: bool,
) -> tuple[int, ...]:
    """Input columns that carry biases; they must be there wherever a bias, or a later layer's, is needed."""
    if ALWAYS_ON not in carried.ranges:
        return ()
    if needed and not all(origin_inside(size_in[a], size_out[a], stride[a]) for a in (0, 1)):
        raise ConversionError(
            f"a convolution of {size_in} to {size_out} reads only padding at its border, where an always-on channel "
            "cannot give its bias; use less padding, or reset zero"
        )
    return tuple(range(*carried.ranges[ALWAYS_ON]))


def _as_relayed(
    path: _Pending, stride: tuple[int, int], size_in: tuple[int, ...], size_out: tuple[int, ...]
) -> _Pending:
    """The path as seen from its source's relay, which holds ``x[stride * i]`` for ``i`` below the layer's size."""
    if stride == (1, 1) and size_in == size_out:
        return path
    if isinstance(path.map, DenseMap):
        raise ConversionError(
            f"{path.target}: a skip from {path.source} into a dense layer passes a layer that turns {size_in} into "
            f"{size_out}, where its relay would lose values; put what changes the size behind the skip"
        )
    conv = path.map
    offsets = [[t * conv.dilation[a] - conv.padding[a] for t in range(conv.weight.shape[2 + a])] for a in (0, 1)]
    divides = all(conv.stride[a] % stride[a] == 0 and all(o % stride[a] == 0 for o in offsets[a]) for a in (0, 1))
    if not divides:
        raise ConversionError(
            f"{path.target}: the skip from {path.source} passes a layer of stride {stride}, so its relay holds only "
            f"every {max(stride)}nd value, but its {conv.weight.shape[2]}x{conv.weight.shape[3]} kernel reads others; "
            "use a 1x1 kernel in the shortcut"
        )
    cut = [p for a in (0, 1) for p in positions_read(conv, a) if size_out[a] * stride[a] <= p < size_in[a]]
    if cut:
        raise ConversionError(
            f"{path.target}: the skip from {path.source} passes a layer that turns {size_in} into {size_out}, so its "
            f"relay ends before position {cut[0]}, which the skip reads; pad that layer so that it keeps its size"
        )
    seen = replace(
        conv,
        stride=(conv.stride[0] // stride[0], conv.stride[1] // stride[1]),
        padding=(conv.padding[0] // stride[0], conv.padding[1] // stride[1]),
        dilation=(max(1, conv.dilation[0] // stride[0]), max(1, conv.dilation[1] // stride[1])),
        in_shape=(conv.in_shape[0], *size_out),
    )
    return _Pending(path.source, path.target, seen)


# --- dense layers ----------------------------------------------------------------------------------------------------


def _plan_dense(
    here: list[FloatPopulation],
    arriving: list[_Pending],
    later: list[_Pending],
    relayed: list[str],
    carried: _Carried,
    keep_on: int,
) -> tuple[LayerPlan, _Carried, list[_Pending]]:
    area = math.prod(carried.shape[1:])
    sizes = {s: (carried.ranges[s][1] - carried.ranges[s][0]) * area for s in relayed}
    segments = _segments(here, relayed, sizes, keep_on)
    rows = {s.name: s for s in segments if s.kind == "population"}
    weight = np.zeros((segments[-1].stop, math.prod(carried.shape)))
    bias = np.zeros(len(weight))
    for path in arriving:
        population = next(p for p in here if p.name == path.target)
        factor = population.gain / population.threshold
        dense = as_dense(path.map)
        row = rows[path.target]
        start, stop = (n * area for n in carried.ranges[path.source])
        weight[row.start : row.stop, start:stop] += dense.weight * factor[:, None]
        bias[row.start : row.stop] += dense.bias * factor
    relays = tuple(
        (segment.start + i, carried.ranges[segment.name][0] * area + i)
        for segment in segments
        if segment.kind != "population" and segment.name in carried.ranges
        for i in range(segment.stop - segment.start)
    )
    on = carried.ranges.get(ALWAYS_ON, (0, 0))
    plan = LayerPlan(
        shape=(len(weight),),
        segments=segments,
        weight=weight,
        bias=bias,
        geometry=None,
        relays=relays,
        bias_columns=tuple(range(on[0] * area, on[1] * area)),
        generated=_generated(segments, carried),
        populations=tuple(here),
        flatten=len(carried.shape) == 3,
    )
    flat = [_Pending(p.source, p.target, as_dense(p.map)) if p.source in carried.ranges else p for p in later]
    return plan, _next(segments, plan.shape), flat
