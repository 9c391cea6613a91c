"""Make a network of ReLUs integer, for sigma-delta neurons: scales, 8-bit weights, thresholds.

An activation x of channel c (in the graph's thresholds) becomes ``q_c x`` activations of the chip, a message of
``64 q_c x``. A weight from channel i to o becomes ``W = 64 w q_o / q_i``, rounded to an even integer: ReLUs let every
channel have a scale of its own. What bounds q is the message (16 bits), the sum (24 bits) and the weights (8 bits);
calibration may use a part of the first two. Since a weight of 64 is a factor of 1, scales cannot grow from layer to
layer as they like: the largest weights come out with 4 to 6 bits, and it matters how they are rounded
(:mod:`gascnn.toolkit.lowering.rounding`).

Biases are weights from always-on planes, which hold 32 and which the host feeds with the image: so the first wave that
passes the network is the answer, and without an image nothing is sent. A relay repeats what it receives, with a weight
of 64: exactly, as long as the messages it has received add up to 0 or more, as those of activations do. (Messages are
rounded down; where their sum has drifted below 0, where no activation is, the relay holds 0.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import ConversionError
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.graph import FloatPopulation, SpikeGraph
from gascnn.toolkit.lowering.network import InputLayer, NetxNetwork, SigmaDeltaNeuron
from gascnn.toolkit.lowering.plan import LayerPlan, plan_layers
from gascnn.toolkit.lowering.quantise import Scales, built_layer, integer_weights, population_rows
from gascnn.toolkit.lowering.rounding import diffused

Floats = npt.NDArray[np.floating]

HEADROOM, SUM_HEADROOM, READ_OUT_HEADROOM = 2.0, 1.5, 1.25
"""What calibration met times this must fit, of messages and of sums: other images may go further."""

MESSAGE_RANGE = limits.MESSAGE_MAX >> limits.MESSAGE_EXPONENT
"""511: the largest activation whose message has 16 bits."""

STATE_RANGE = limits.SIGMA_DELTA_THRESHOLD_MAX
"""2047: the largest sum, in activations, that 24 bits hold."""

PIXEL_MAX = 2**limits.GRADED_INPUT_BITS - 1
"""Activation of a pixel of intensity 1."""

BIAS_FACTOR = limits.MESSAGE_UNIT / limits.SIGMA_DELTA_BIAS_LEVEL
"""Weight from an always-on plane that makes a bias of 1 activation."""

LARGEST_THRESHOLD = limits.SIGMA_DELTA_BIAS_LEVEL
"""With a larger one, layers would hold back what the always-on planes send."""

MAX_BIAS_PLANES = 4
"""More always-on planes than these would cost more than they give."""

USUAL = 0.9
"""Share of a population's channels whose biases the planes must hold; larger ones lower their channel's scale."""

_EXACT = 1e-9
"""Weights may exceed their range by this share, for rounding in the division and product of two scales."""


@dataclass(frozen=True, eq=False)
class SigmaDelta:
    """A network made integer, without a deployment record, and how each of its layers came about.

    Attributes:
        network: integers.
        plans, scales: of each layer.
    """

    network: NetxNetwork
    plans: list[LayerPlan]
    scales: list[Scales]


def sigma_delta_network(graph: SpikeGraph, *, hardware: bool = True) -> SigmaDelta:
    """Make a graph of ReLUs integer; its last population is read out as the running sum of its input (Sigma).

    Args:
        graph: its populations stand for ReLUs of threshold-free activations, with what calibration met.
        hardware: keep weights to 8 bits with sign; else convolutions take the integers Lava's CPU model holds.

    Raises:
        ConversionError: populations with a memory or without calibration, topologies that cannot be a sequence.
    """
    for population in graph.populations:
        _check_population(population)
    planes = _bias_planes(graph)
    plans = plan_layers(graph, planes, from_input=True)
    channels = graph.input_shape[0]
    scale = np.array([float(PIXEL_MAX)] * channels + [float(limits.SIGMA_DELTA_BIAS_LEVEL)] * planes)
    layers, found = [], []
    for index, plan in enumerate(plans):
        last = index == len(plans) - 1
        factor = limits.MESSAGE_UNIT / _column_scales(plan, scale)
        scaled = replace(plan, weight=plan.weight * factor, bias=plan.bias * BIAS_FACTOR)
        scale = _row_scales(scaled, scale, hardware, last)
        step = limits.WEIGHT_STEP if hardware else 1
        largest = limits.WEIGHT_MAX if hardware or plan.geometry is None else limits.WEIGHT_SIMULATOR_MAX
        rounded = partial(diffused, low=-largest, high=largest)
        weight = integer_weights(scaled, scale, np.full(len(scale), limits.MESSAGE_UNIT), step, rounded)
        neuron = SigmaDeltaNeuron(read_out=True) if last else SigmaDeltaNeuron(_threshold(plan))
        layers.append(built_layer(plan, weight, neuron, None, None))
        found.append(_report(scaled, scale, last))
    network = NetxNetwork(
        input=InputLayer(
            (channels + planes, *graph.input_shape[1:]),
            SigmaDeltaNeuron(np.array(integer_threshold(graph.notes.input_threshold))),
        ),
        layers=tuple(layers),
        constant_channels=planes,
    )
    return SigmaDelta(network, plans, found)


def integer_threshold(share: float) -> int:
    """The threshold, in activations, that is so large a share of the largest message; at most 32."""
    return min(round(share * MESSAGE_RANGE), LARGEST_THRESHOLD)


def _check_population(population: FloatPopulation) -> None:
    if population.current_keep > 0 or population.voltage_keep < 1 or population.notes.initial_membrane > 0:
        raise ConversionError(
            f"{population.name}: sigma-delta neurons stand for ReLUs, which have no memory; use IF nodes "
            "that start at 0"
        )
    if population.notes.current_peak is None or population.notes.membrane_peak is None:
        raise ConversionError(
            f"{population.name}: its calibration is missing, and with it the scale of its messages; convert the "
            "network with --neuron sdnn"
        )


def _bias_planes(graph: SpikeGraph) -> int:
    """Always-on planes that let every bias be 8-bit weights without lowering its channel's scale."""
    needed = 0
    for population in graph.populations:
        bias = np.abs(np.sum([path.map.bias for path in population.paths], axis=0)) * _factor(population)
        if np.any(bias):
            share = bias * BIAS_FACTOR * _room(population, len(bias)) / limits.WEIGHT_MAX
            needed = max(needed, 1 if len(population.shape) == 1 else math.ceil(np.quantile(share, USUAL)))
    return min(needed, MAX_BIAS_PLANES)


def _room(population: FloatPopulation, channels: int) -> Floats:
    """(channels,) the largest scale that messages and sums allow; 0 for a channel that was never active."""
    notes = population.notes
    activation, current = (_filled(peak, channels) for peak in (notes.membrane_peak, notes.current_peak))
    room = np.zeros(channels)
    active = activation > 0
    room[active] = MESSAGE_RANGE / HEADROOM / activation[active]
    limited = active & (current > 0)
    room[limited] = np.minimum(room[limited], STATE_RANGE / SUM_HEADROOM / current[limited])
    return room


def _factor(population: FloatPopulation) -> Floats:
    factor: Floats = population.gain / population.threshold
    return factor


def _filled(peak: Floats | None, channels: int) -> Floats:
    return np.broadcast_to(0.0 if peak is None else peak, (channels,))


def _column_scales(plan: LayerPlan, before: Floats) -> Floats:
    """(rows or 1, columns, ...) scale of the channel that each weight reads."""
    rows, columns = plan.weight.shape[:2]
    if plan.geometry is None:
        return np.repeat(before, columns // len(before))[None]
    group = np.arange(rows) // (rows // plan.geometry.groups)
    scales: Floats = before[group[:, None] * columns + np.arange(columns)]
    return scales[:, :, None, None]


def _row_scales(plan: LayerPlan, before: Floats, hardware: bool, last: bool) -> Floats:
    """(rows,) scales: as large as messages, sums, weights and biases allow; relays keep that of what they repeat."""
    current, activation = _peaks(plan)
    largest = np.abs(plan.weight).reshape(len(plan.weight), -1).max(axis=1)
    room = np.full(len(largest), np.inf)
    limit = limits.WEIGHT_MAX if hardware or plan.geometry is None else limits.WEIGHT_SIMULATOR_MAX
    for most, values in (
        (limit, largest),
        (limits.WEIGHT_MAX * len(plan.bias_columns), np.abs(plan.bias)),
        (STATE_RANGE / (READ_OUT_HEADROOM if last else SUM_HEADROOM), current),
        (np.inf if last else MESSAGE_RANGE / HEADROOM, activation),
    ):
        used = values > 0
        room[used] = np.minimum(room[used], most / values[used])
    rows = population_rows(plan)
    if last:
        room[rows] = room[rows].min()
    scale = np.where(np.isfinite(room), room * (1 - _EXACT), 1.0)
    columns = np.repeat(before, plan.weight.shape[1] // len(before)) if plan.geometry is None else before
    for row, column in plan.relays:
        scale[row] = columns[column]
    return scale


def _peaks(plan: LayerPlan) -> tuple[Floats, Floats]:
    """(rows,) largest sums and activations that calibration met, in thresholds; 0 for relays."""
    current, activation = np.zeros(plan.shape[0]), np.zeros(plan.shape[0])
    start = 0
    for population in plan.populations:
        stop = start + population.shape[0]
        current[start:stop] = _filled(population.notes.current_peak, stop - start)
        activation[start:stop] = _filled(population.notes.membrane_peak, stop - start)
        start = stop
    return current, activation


def _threshold(plan: LayerPlan) -> npt.NDArray[np.int64]:
    """One for the layer, relays included: the smallest of its populations'."""
    return np.array(min(integer_threshold(p.notes.message_threshold) for p in plan.populations))


def _report(plan: LayerPlan, scale: Floats, last: bool) -> Scales:
    rows = population_rows(plan)
    current, activation = _peaks(plan)
    largest = np.abs(plan.weight).reshape(len(plan.weight), -1).max(axis=1)[rows] * scale[rows]
    used = (current * scale).max() / STATE_RANGE
    if not last:
        used = max(used, (activation * scale).max() / MESSAGE_RANGE)
    return Scales(
        scale=np.where(rows, scale, 0.0),
        weight_bits=float(np.median(np.log2(np.maximum(largest, 1.0)))),
        headroom=float(used),
    )
