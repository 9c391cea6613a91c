"""All firing thresholds times a factor: less than 1 makes a network fire more, more than 1 less.

The read-out keeps its own: it only says how finely answers are counted. Of a spiking graph the factor is exact; of a
deployed network it is as close as its integers allow, and what they do not allow the weights into the neurons give: a
threshold that cannot rise is the same as weights that fall.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import nir
import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.annotations import graph_notes, neuron_notes, set_neuron_notes
from gascnn.toolkit.lowering.network import CubaNeuron, NetxNetwork, SigmaDeltaNeuron, SynapticLayer
from gascnn.toolkit.lowering.rules import check_network

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FACTOR_MIN, FACTOR_MAX = 0.05, 20.0


def checked_factor(factor: float) -> float:
    """The factor, if it can be one.

    Raises:
        UsageError: out of range.
    """
    if not FACTOR_MIN <= factor <= FACTOR_MAX:
        raise UsageError(f"threshold factor is {factor:g}; it must be {FACTOR_MIN:g}..{FACTOR_MAX:g}")
    return factor


def scale_graph(graph: nir.NIRGraph, factor: float) -> nir.NIRGraph:
    """A spiking graph with every population's threshold but the read-out's multiplied.

    Of sigma-delta neurons it is the smallest change that is sent, in the hidden layers.

    Args:
        graph: as converted or read; it is left as it is.
        factor: above 0.

    Raises:
        UsageError: a factor out of range.
    """
    if checked_factor(factor) == 1.0:
        return graph
    outputs = {name for name, node in graph.nodes.items() if isinstance(node, nir.Output)}
    readouts = {source for source, target in graph.edges if target in outputs}
    scaled = _scaled_messages if graph_notes(graph).neuron == "sdnn" else _scaled_node
    nodes = {
        name: scaled(node, factor)
        if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF) and name not in readouts
        else node
        for name, node in graph.nodes.items()
    }
    return nir.NIRGraph(nodes=nodes, edges=graph.edges, metadata=dict(graph.metadata or {}), type_check=False)


def _scaled_node(node: nir.NIRNode, factor: float) -> nir.NIRNode:
    scaled = copy.copy(node)
    scaled.v_threshold = np.asarray(node.v_threshold, dtype=np.float64) * factor
    scaled.metadata = dict(node.metadata or {})
    notes = neuron_notes(node)
    current, membrane = (  # they are told in thresholds
        None if peak is None else peak / factor for peak in (notes.current_peak, notes.membrane_peak)
    )
    set_neuron_notes(scaled, replace(notes, current_peak=current, membrane_peak=membrane))
    return scaled


def _scaled_messages(node: nir.NIRNode, factor: float) -> nir.NIRNode:
    scaled = copy.copy(node)
    scaled.metadata = dict(node.metadata or {})
    notes = neuron_notes(node)
    set_neuron_notes(scaled, replace(notes, message_threshold=min(1.0, notes.message_threshold * factor)))
    return scaled


def scale_network(network: NetxNetwork, factor: float) -> NetxNetwork:
    """A deployed network with every layer's thresholds but the last one's multiplied; relays repeat as before.

    Args:
        network: integers; it is left as it is.
        factor: above 0.

    Raises:
        UsageError: a factor out of range.
        LimitError: integers beyond what the file's grade allows, which would be a fault of this function.
    """
    if checked_factor(factor) == 1.0:
        return network
    scale = _sigma_delta if network.sigma_delta else _subtract if network.reset == "subtract" else _zero
    hidden = [scale(network, k, layer, factor) for k, layer in enumerate(network.layers[:-1])]
    scaled = replace(network, layers=(*hidden, network.layers[-1]))
    check_network(scaled)
    return scaled


def _rows(layer: SynapticLayer, kind: str) -> Mask:
    """(C,) rows of one kind; where a file does not say, all of them compute."""
    mask = np.zeros(layer.shape[0], dtype=bool)
    for segment in layer.segments:
        if segment.kind == kind:
            mask[segment.start : segment.stop] = True
    return mask if layer.segments or kind != "population" else ~mask


def _hardware(network: NetxNetwork) -> bool:
    return network.deployment is None or network.deployment.grade == "hardware"


def _sigma_delta(network: NetxNetwork, index: int, layer: SynapticLayer, factor: float) -> SynapticLayer:
    """The smallest change that is sent, in whole activations."""
    assert isinstance(layer.neuron, SigmaDeltaNeuron)
    old = np.asarray(layer.neuron.threshold)
    new = np.clip(np.rint(old * factor), 0, limits.SIGMA_DELTA_THRESHOLD_MAX).astype(np.int64)
    return replace(layer, neuron=replace(layer.neuron, threshold=new))


# --- reset to zero ---------------------------------------------------------------------------------------------------


def _zero(network: NetxNetwork, index: int, layer: SynapticLayer, factor: float) -> SynapticLayer:
    """The threshold, one for all rows or one each, as far as relays and the chip let it rise; the rest in weights."""
    old = np.asarray(layer.cuba.threshold, dtype=np.int64)
    rows = _rows(layer, "population")
    wanted = np.maximum(old, 1) * factor
    if old.ndim:
        new = np.where(rows, np.clip(np.rint(wanted), 1, limits.THRESHOLD_MAX), old).astype(np.int64)
    else:
        new = np.array(int(np.clip(np.rint(wanted), 1, _highest_shared(network, index, layer))), dtype=np.int64)
    lowered = _as_weights(layer, rows, np.broadcast_to(new / wanted, rows.shape), new < np.rint(wanted))
    generated = _generated(layer)
    bias = lowered.bias
    if generated.any():
        assert bias is not None
        bias = bias.astype(np.int64).copy()
        bias[generated] = (np.broadcast_to(new, rows.shape) + 1)[generated]
    return replace(lowered, neuron=replace(layer.cuba, threshold=new), bias=bias)


def _highest_shared(network: NetxNetwork, index: int, layer: SynapticLayer) -> int:
    """The highest threshold with which relays still answer one spike, and rows on by their bias are always on."""
    highest = limits.THRESHOLD_MAX
    level = 2**network.input_bits - 1 if index == 0 and network.input_bits else 1
    repeats = (_rows(layer, "relay") | _rows(layer, "always-on")) & ~_generated(layer)
    if repeats.any():
        flat = layer.weight[repeats].reshape(int(repeats.sum()), -1)
        highest = int(flat.max(axis=1).min()) * level - 1
    if _generated(layer).any():
        highest = min(highest, (limits.BIAS_MAX if _hardware(network) else limits.BIAS_SIMULATOR_MAX) - 1)
    return max(1, highest)


def _generated(layer: SynapticLayer) -> Mask:
    """Always-on rows that no synapse reaches: their bias alone makes them spike."""
    silent: Mask = ~np.any(layer.weight.reshape(len(layer.weight), -1), axis=1)
    return silent & _rows(layer, "always-on")


def _as_weights(layer: SynapticLayer, rows: Mask, ratio: npt.NDArray[np.floating], needed: object) -> SynapticLayer:
    """Weights and bias of the rows times ``ratio``, where the threshold did not come as far as was wanted."""
    chosen = rows & np.broadcast_to(np.asarray(needed), rows.shape)
    if not chosen.any():
        return layer
    share = np.where(chosen, ratio, 1.0)
    along = share.reshape(-1, *(1,) * (layer.weight.ndim - 1))
    even = 2 * np.rint(layer.weight * along / 2)
    weight = np.where(along == 1.0, layer.weight, even).astype(layer.weight.dtype)
    if layer.bias is None or layer.self_weight is not None:  # there the bias shifts thresholds, and does not integrate
        return replace(layer, weight=weight)
    bias = np.broadcast_to(layer.bias, (len(rows), *layer.bias.shape[1:]))
    spread = share.reshape(-1, *(1,) * (bias.ndim - 1))
    return replace(layer, weight=weight, bias=np.rint(bias * spread).astype(np.int64))


# --- reset by subtraction --------------------------------------------------------------------------------------------


def _subtract(network: NetxNetwork, index: int, layer: SynapticLayer, factor: float) -> SynapticLayer:
    """Self-weights ``k 2^e`` and firing thresholds of the rows that compute; relays keep theirs."""
    assert layer.self_weight is not None
    rows = _rows(layer, "population")
    old = layer.self_weight.astype(np.int64)
    offset = np.zeros(len(rows), dtype=np.int64) if layer.bias is None else np.asarray(layer.bias, dtype=np.int64)
    fire = np.broadcast_to(layer.cuba.threshold, rows.shape).astype(np.int64) - offset
    wanted = old * factor
    # Firing thresholds lie within twice the bias range of each other, and are not negative.
    room = np.where(fire > 0, old * (2 * limits.BIAS_MAX / np.maximum(fire, 1)), np.inf)
    limit = np.minimum(wanted, room)
    new = np.where(rows, _representable(limit, rows, old) if _hardware(network) else np.rint(limit), old)
    new = new.astype(np.int64)
    moved = np.where(rows, np.floor(fire * new / np.maximum(old, 1)), fire).astype(np.int64)
    threshold = int((moved.min() + moved.max() + 1) // 2)
    short = new < np.floor(wanted * (1 - 1 / limits.SELF_WEIGHT_MANTISSA_MAX))
    lowered = _as_weights(layer, rows, new / np.maximum(wanted, 1.0), short)
    neuron = CubaNeuron(np.array(threshold), layer.cuba.current_decay, layer.cuba.voltage_decay)
    return replace(lowered, neuron=neuron, bias=threshold - moved, self_weight=new)


def _representable(wanted: npt.NDArray[np.floating], rows: Mask, old: Integers) -> npt.NDArray[np.floating]:
    """Nearest ``k 2^e``, k 1..127, with one e that the relays' self-weights allow too: the least that holds all."""
    kept = old[~rows & (old > 0)]
    shared = int((kept & -kept).min()).bit_length() - 1 if kept.size else limits.SELF_WEIGHT_EXPONENT_MAX
    most = limits.SELF_WEIGHT_MANTISSA_MAX
    needed = math.ceil(math.log2(max(float(wanted[rows].max(initial=1.0)) / (most + 0.5), 1.0)))
    least = math.ceil(math.log2(max(int(kept.max(initial=1)) / most, 1.0)))
    exponent = max(least, min(needed, shared, limits.SELF_WEIGHT_EXPONENT_MAX))
    found: npt.NDArray[np.floating] = np.clip(np.rint(wanted / 2**exponent), 1, most) * 2.0**exponent
    return found
