"""Which rows of a deployed layer learn, which only repeat, and which weights stay as they are.

A layer of a lowered network holds populations, relays and always-on channels (``Segment``). Populations learn, within
the connections they have. A relay or an always-on channel must answer exactly as it did: where that is proved from its
integers it is copied instead of computed, else its row is computed with the integers it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import ConversionError
from gascnn.toolkit.lowering.limits import DECAY_UNITY
from gascnn.toolkit.lowering.network import ConvLayer, Segment, SynapticLayer

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows (channels, or neurons of a dense layer) of one layer.

    Attributes:
        learning: rows of populations.
        computed: rows that are computed, the learning ones among them, in ascending order.
        copied: (row, input row) of relays that repeat an input spike for spike.
        constant: rows that spike at every step.
        trainable: of the learning rows' weights, those that may change; shaped like them.
    """

    learning: npt.NDArray[np.intp]
    computed: npt.NDArray[np.intp]
    copied: npt.NDArray[np.intp]
    constant: npt.NDArray[np.intp]
    trainable: Mask


def sort_rows(layer: SynapticLayer, before: tuple[Segment, ...], largest_input: int, label: str) -> Rows:
    """Look at a layer's integers.

    Args:
        layer: as lowered or read from a file.
        before: segments of the layer in front, or of the input.
        largest_input: 1 for spikes, else the largest graded input, which always-on planes hold.
        label: for messages.

    Raises:
        ConversionError: the file does not say what the layer's channels are for.
    """
    if not layer.segments:
        raise ConversionError(f"{label} does not say which channels compute; learn a network that gascnn exported")
    learning = np.concatenate([np.arange(s.start, s.stop) for s in layer.segments if s.kind == "population"])
    others = [row for s in layer.segments if s.kind != "population" for row in range(s.start, s.stop)]
    copied, constant = [], []
    for row in others:
        source = _repeated(layer, row, largest_input)
        if source is not None:
            copied.append((row, source))
        elif _always_spikes(layer, row):
            constant.append(row)
    known = {row for row, _ in copied} | set(constant)
    computed = np.array(sorted({*learning.tolist(), *(row for row in others if row not in known)}), dtype=np.intp)
    return Rows(
        learning=learning,
        computed=computed,
        copied=np.array(copied, dtype=np.intp).reshape(-1, 2),
        constant=np.array(constant, dtype=np.intp),
        trainable=_trainable(layer, before),
    )


def _threshold(layer: SynapticLayer, row: int) -> int:
    return int(np.broadcast_to(layer.neuron.threshold.ravel(), (layer.shape[0],))[row])


def _bias(layer: SynapticLayer, row: int) -> int:
    if layer.bias is None:
        return 0
    bias = layer.bias.reshape(len(layer.bias), -1)
    values = bias[row] if len(bias) > 1 else bias[0]
    return int(values[0]) if np.all(values == values[0]) else 0


def _forgets(layer: SynapticLayer) -> bool:
    """Whether nothing stays in ``u`` and reset is to zero: then what a relay does in a step depends on it alone."""
    return layer.self_weight is None and bool(np.all(layer.cuba.current_decay == DECAY_UNITY))


def _repeated(layer: SynapticLayer, row: int, largest_input: int) -> int | None:
    """The input that a row repeats spike for spike, at position ``stride * i``; None if that is not proved."""
    weights = layer.weight[row]
    used = np.argwhere(weights != 0)
    if len(used) != 1 or not _forgets(layer) or _bias(layer, row) != 0 or largest_input > 1:
        return None
    where = tuple(used[0])
    if weights[where] <= _threshold(layer, row):
        return None
    if not isinstance(layer, ConvLayer):
        return int(where[0])
    origin = all(tap * d == p for tap, d, p in zip(where[1:], layer.dilation, layer.padding, strict=True))
    return int(where[0]) if origin and layer.groups == 1 else None


def _always_spikes(layer: SynapticLayer, row: int) -> bool:
    return not np.any(layer.weight[row]) and _forgets(layer) and _bias(layer, row) > _threshold(layer, row)


def _trainable(layer: SynapticLayer, before: tuple[Segment, ...]) -> Mask:
    """Weights of the populations that may change: connections that are there.

    Between a population and a range of inputs, a tap whose weights are all zero stays unconnected; one that only
    connects like with like (a shortcut through a relay) stays so; any other is connected throughout. Always-on
    inputs are all alike: a bias may change where it is, and at the first of them. Were all of them free, they would
    drift together and be rounded together, by whole thresholds at once.
    """
    parts = []
    for segment in layer.segments:
        if segment.kind != "population":
            continue
        used = layer.weight[segment.start : segment.stop] != 0
        part = np.zeros_like(used)
        area = 1
        if not isinstance(layer, ConvLayer):
            area = used.shape[1] // before[-1].stop
        for source in before:
            start, stop = source.start * area, source.stop * area
            block = used[:, start:stop]
            if source.kind == "always-on":
                part[:, start:stop] = block
                part[:, start : start + 1] |= block.any(axis=(0, 1))
                continue
            one_to_one = (block.sum(axis=0).max(axis=0) <= 1) & (block.sum(axis=1).max(axis=0) <= 1)
            part[:, start:stop] = block | (block.any(axis=(0, 1)) & ~one_to_one)
        parts.append(part)
    return np.concatenate(parts)
