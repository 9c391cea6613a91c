"""What a deployed network does for an image: synaptic operations, spikes, neuron updates, counted on its own integers.

A synapse is a weight other than zero between a source and a neuron that lies inside the layer: a spike near the border
reaches fewer neurons, one that a stride passes over may reach none. A synaptic operation is one spike over one synapse:
``operations = sum over sources of spikes * fan-out``. Every spike that is sent counts, those of the last step too.

Sources are told apart, for not all of them are in the ANN: ``input``, ``population``, ``relay`` (what a skip connection
costs here), ``always-on`` (what biases cost here) and ``own`` (reset by subtraction: a spike's way back to its own
neuron; recurrent synapses). So are the neurons they reach. Additions of a weight and multiplications by a graded value
are counted apart: where the first layer takes graded input, each synapse from it multiplies at every step, whatever the
pixel is; in a sigma-delta network every message multiplies, over each of its synapses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.network import (
    CubaNeuron,
    DenseLayer,
    NetxNetwork,
    Segment,
    SigmaDeltaNeuron,
    SynapticLayer,
)

SourceKind = Literal["input", "population", "relay", "always-on", "own"]
SOURCES: tuple[SourceKind, ...] = ("input", "population", "relay", "always-on", "own")
TARGETS = ("population", "relay", "always-on")

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Way:
    """The synapses from one kind of source to one kind of neuron in one layer, and what went over them.

    Attributes:
        layer: number of the synaptic layer, from 0.
        source: one of :data:`SOURCES`.
        target: one of :data:`TARGETS`.
        graded: whether the sources send integers, so that a synapse multiplies and adds.
        synapses: weights other than zero, at every position they are used.
        stored_synapses: zero weights too, as a kernel or matrix stores them.
        spikes: how many spikes or messages these sources sent, all images together; graded input sends at every step.
        operations: of all images together, additions or, if graded, multiplications with addition.
    """

    layer: int
    source: SourceKind
    target: str
    graded: bool
    synapses: int
    stored_synapses: int
    spikes: int
    operations: int


@dataclass(frozen=True)
class Counts:
    """The operations of a run.

    Attributes:
        images: how many were run.
        steps: T.
        ways: every way of every layer that has synapses.
        neurons: of the synaptic layers that send anything, by kind.
        spikes: that these neurons sent, all images together, by kind.
        neuron_updates: of one image: every neuron at every one of T + K steps.
    """

    images: int
    steps: int
    ways: tuple[Way, ...]
    neurons: dict[str, int]
    spikes: dict[str, int]
    neuron_updates: int

    def operations(self, source: str | None = None, target: str | None = None) -> float:
        """Synaptic operations an image; of one kind of source or neuron, or of all."""
        return sum(way.operations for way in self._chosen(source, target)) / self.images

    def additions(self, source: str | None = None, target: str | None = None) -> float:
        """Those that add a weight."""
        return sum(way.operations for way in self._chosen(source, target) if not way.graded) / self.images

    def multiply_accumulates(self) -> float:
        """Those that multiply: of graded input and messages."""
        return sum(w.operations for w in self.ways if w.graded) / self.images

    def synapses(self) -> int:
        """Synapses that spikes go over."""
        return sum(way.synapses for way in self.ways if not way.graded)

    def spikes_per_source(self, ways: Iterable[Way] | None = None) -> float | None:
        """Spikes a synaptic source and image, each source weighted by its fan-out: operations over synapses.

        Args:
            ways: of which; default all that spikes go over. None is the answer where there is no synapse.
        """
        chosen = [way for way in (self.ways if ways is None else ways) if not way.graded]
        synapses = sum(way.synapses for way in chosen)
        return sum(way.operations for way in chosen) / (synapses * self.images) if synapses else None

    def spikes_per_neuron(self, kind: str = "population") -> float | None:
        """Spikes a neuron and image of one kind, over the whole run; None where there is no such neuron."""
        count = self.neurons.get(kind, 0)
        return self.spikes[kind] / (count * self.images) if count else None

    def _chosen(self, source: str | None, target: str | None) -> list[Way]:
        return [w for w in self.ways if source in (None, w.source) and target in (None, w.target)]

    def to_dict(self) -> dict[str, Any]:
        """Figures of one image, as plain values; see ``docs/sweep.md``."""
        layers = sorted({way.layer for way in self.ways})
        return {
            "images": self.images,
            "steps": self.steps,
            "synaptic_operations": self.operations(),
            "additions": self.additions(),
            "multiply_accumulates": self.multiply_accumulates(),
            "operations_by_source": {kind: self.operations(source=kind) for kind in SOURCES},
            "operations_into_relays": self.operations(target="relay") + self.operations(target="always-on"),
            "synapses": self.synapses(),
            "spikes_per_source": self.spikes_per_source(),
            "spikes_per_neuron": {kind: self.spikes_per_neuron(kind) for kind in TARGETS},
            "neuron_updates": self.neuron_updates,
            "layers": [self._layer(k) for k in layers],
        }

    def _layer(self, index: int) -> dict[str, Any]:
        ways = [way for way in self.ways if way.layer == index]
        return {
            "layer": f"layer_{index:02d}",
            "spikes_per_source": self.spikes_per_source(ways),
            "ways": [
                {
                    "source": way.source,
                    "target": way.target,
                    "graded": way.graded,
                    "synapses": way.synapses,
                    "stored_synapses": way.stored_synapses,
                    "operations": way.operations / self.images,
                }
                for way in ways
            ],
        }


def count_operations(
    network: NetxNetwork, input_totals: Integers, totals: Sequence[Integers], *, images: int, steps: int
) -> Counts:
    """Count the synaptic operations of a run.

    Args:
        network: that ran.
        input_totals: (C, H, W) or (N,), spikes (or messages, in a sigma-delta network) that each input element or input
            neuron sent, summed over steps and images, constant channels included; :func:`sent_by_input` gives them. Not
            looked at where graded input goes into the first layer itself.
        totals: spikes (messages) of each neuron of each synaptic layer, summed over images, in the layer's shape.
        images: how many were run.
        steps: T, the input steps.

    Raises:
        UsageError: no images or steps.
        DataError: totals that do not fit the network.
    """
    if images < 1 or steps < 1:
        raise UsageError(f"{images} images of {steps} steps; both must be at least 1")
    sent = [np.asarray(total, dtype=np.int64) for total in (input_totals, *totals)]
    _check_totals(network, sent)
    kinds = [input_kinds(network), *(channel_kinds(layer.segments, layer.shape[0]) for layer in network.layers)]
    ways: list[Way] = []
    for k, layer in enumerate(network.layers):
        pixels = k == 0 and network.input_bits > 0 and network.input.neuron is None
        given = np.full(network.input_shape, images * steps, dtype=np.int64) if pixels else sent[k]
        ways += _ways(k, layer, given, kinds[k], kinds[k + 1], pixels or network.sigma_delta)
        ways += _own_ways(k, layer, sent[k + 1], kinds[k + 1])
    neurons, spikes = dict.fromkeys(TARGETS, 0), dict.fromkeys(TARGETS, 0)
    for k, layer in enumerate(network.layers):
        if isinstance(layer.neuron, SigmaDeltaNeuron) and layer.neuron.read_out:
            continue  # it sends nothing: the host reads its sum
        for kind, mask in kinds[k + 1].items():
            neurons[kind] += int(mask.sum()) * math.prod(layer.shape[1:])
            spikes[kind] += int(sent[k + 1][mask].sum())
    return Counts(images, steps, tuple(ways), neurons, spikes, network.neurons * (steps + network.depth))


def fan_out(layer: SynapticLayer, input_shape: Sequence[int], rows: Mask | None = None, *, stored: bool = False) -> Any:
    """How many neurons each input element reaches.

    Args:
        layer: convolution or dense.
        input_shape: of what it receives.
        rows: (C,) or (N,), the channels or neurons that count; default all.
        stored: zero weights too.

    Returns:
        int64 in ``input_shape``.
    """
    present = np.ones(layer.weight.shape, dtype=bool) if stored else layer.weight != 0
    if rows is not None:
        present = present & rows.reshape(-1, *(1,) * (present.ndim - 1))
    if isinstance(layer, DenseLayer):
        return present.sum(axis=0, dtype=np.int64).reshape(tuple(input_shape))
    return conv_fan_out(present, input_shape, layer.shape, layer.stride, layer.padding, layer.dilation, layer.groups)


def conv_fan_out(
    present: Mask,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Integers:
    """How many outputs of a convolution each input element reaches; taps in the padding reach nothing.

    Args:
        present: (C, C_in / groups, kH, kW), which taps there are.
        input_shape, output_shape: (C, H, W).
        stride, padding, dilation: (vertical, horizontal).
        groups: as in PyTorch.

    Returns:
        (C_in, H, W) int64.
    """
    taps = present.reshape(groups, -1, *present.shape[1:]).sum(axis=1, dtype=np.int64)
    taps = taps.reshape(input_shape[0], *present.shape[2:])
    rows, columns = (
        _reached(present.shape[2 + axis], input_shape[1 + axis], output_shape[1 + axis], stride[axis], padding[axis],
                 dilation[axis])
        for axis in (0, 1)
    )  # fmt: skip
    found: Integers = np.einsum("cyj,jx->cyx", np.einsum("cij,iy->cyj", taps, rows), columns)
    return found


def _reached(kernel: int, size: int, outputs: int, stride: int, padding: int, dilation: int) -> Integers:
    """(kernel, size) 0/1: whether a tap reads this position for some output. Different outputs read different ones."""
    result = np.zeros((kernel, size), dtype=np.int64)
    for tap in range(kernel):
        read = np.arange(outputs) * stride + tap * dilation - padding
        result[tap, read[(read >= 0) & (read < size)]] = 1
    return result


def _ways(
    index: int,
    layer: SynapticLayer,
    sent: Integers,
    sources: dict[SourceKind, Mask],
    targets: dict[SourceKind, Mask],
    graded: bool,
) -> list[Way]:
    """Ways from what comes in."""
    ways = []
    for target, rows in targets.items():
        reach = fan_out(layer, sent.shape, rows)
        stored = fan_out(layer, sent.shape, rows, stored=True)
        for source, mask in sources.items():
            synapses = int(reach[mask].sum())
            if not synapses:
                continue
            operations = int((sent[mask] * reach[mask]).sum())
            spikes = int(sent[mask].sum())
            ways.append(Way(index, source, target, graded, synapses, int(stored[mask].sum()), spikes, operations))
    return ways


def _own_ways(index: int, layer: SynapticLayer, sent: Integers, kinds: dict[SourceKind, Mask]) -> list[Way]:
    """Ways from a layer's neurons back into it: self-inhibition and recurrent synapses."""
    ways = []
    recurrent = layer.weight_rec if isinstance(layer, DenseLayer) else None
    for kind, mask in kinds.items():
        reach = np.zeros(layer.shape, dtype=np.int64)
        stored = reach.copy()
        if layer.self_weight is not None:
            reach[mask & (layer.self_weight != 0)] += 1
            stored[mask] += 1
        if recurrent is not None:
            reach += (recurrent[mask] != 0).sum(axis=0, dtype=np.int64)
            stored += int(mask.sum())
        if reach.any():
            operations, spikes = int((sent * reach).sum()), int(sent[reach > 0].sum())
            ways.append(Way(index, "own", kind, False, int(reach.sum()), int(stored.sum()), spikes, operations))
    return ways


def channel_kinds(segments: Sequence[Segment], channels: int) -> dict[SourceKind, Mask]:
    """Channels by what they are for; where a file does not say, all of them compute."""
    found: dict[SourceKind, Mask] = {}
    for segment in segments or [Segment("population", "", 0, channels)]:
        found.setdefault(segment.kind, np.zeros(channels, dtype=np.bool_))[segment.start : segment.stop] = True
    return found


def input_kinds(network: NetxNetwork) -> dict[SourceKind, Mask]:
    """The input's channels: ``input``, and ``always-on`` where the host adds planes."""
    planes = np.arange(network.input_shape[0]) >= network.input_shape[0] - network.constant_channels
    return {"input": ~planes, "always-on": planes} if planes.any() else {"input": ~planes}


def sent_by_input(network: NetxNetwork, fed: npt.NDArray[np.uint8]) -> Integers:
    """How many spikes or messages the input sent: what is fed, or what its input neurons make of that.

    Args:
        network: that is fed.
        fed: (image, T, ...) in the network's full input shape (:func:`gascnn.hardware.inputs.checked_spikes`).

    Returns:
        int64 in the input's shape, summed over images and steps.
    """
    neuron = network.input.neuron
    messages: Integers
    if neuron is None:
        messages = (fed != 0).sum(axis=(0, 1), dtype=np.int64)
        return messages
    if isinstance(neuron, CubaNeuron):
        from gascnn.hardware.simulator.plain import run_input_neurons

        silent = np.zeros((len(fed), network.depth, *fed.shape[2:]), dtype=fed.dtype)
        spikes = run_input_neurons(network, np.concatenate([fed, silent], axis=1))
        messages = spikes.sum(axis=(0, 1), dtype=np.int64)
        return messages
    from gascnn.hardware.simulator.sigma_delta import input_message_counts

    messages = input_message_counts(network, fed).sum(axis=0, dtype=np.int64)
    return messages


def input_spikes(network: NetxNetwork, fed: npt.NDArray[np.uint8]) -> Mask:
    """At which steps each element of the input sends: what is fed, or what its input neurons make of that.

    Args:
        network: that is fed.
        fed: (image, T, ...) in the network's full input shape.

    Returns:
        (image, T + K, ...) bool; for graded input without input neurons, where the value is not zero.
    """
    images, steps = fed.shape[:2]
    silent = np.zeros((images, network.depth, *fed.shape[2:]), dtype=fed.dtype)
    if isinstance(network.input.neuron, CubaNeuron):
        from gascnn.hardware.simulator.plain import run_input_neurons

        return run_input_neurons(network, np.concatenate([fed, silent], axis=1))
    if network.input.neuron is None:
        sent: Mask = np.concatenate([fed, silent], axis=1) != 0
        return sent
    from gascnn.hardware.simulator.sigma_delta import input_message_counts

    result = np.zeros((images, steps + network.depth, *fed.shape[2:]), dtype=np.bool_)
    before = np.zeros((images, *fed.shape[2:]), dtype=np.int32)
    for t in range(steps):
        if t and np.array_equal(fed[:, t], fed[:, t - 1]):
            continue  # no change, no message
        until = input_message_counts(network, fed[:, : t + 1])
        result[:, t], before = until > before, until
    return result


def _check_totals(network: NetxNetwork, sent: Sequence[Integers]) -> None:
    expected = [network.input_shape, *(layer.shape for layer in network.layers)]
    found = [total.shape for total in sent]
    if found != expected:
        raise DataError(f"spike totals have shapes {found}; this network's input and layers have {expected}")


def own_synapses(network: NetxNetwork) -> int:
    """Synapses that stand for the ANN's own weights: into populations, without biases and self-inhibition.

    An estimate of the ANN's multiply-accumulates where the ANN is not there: weights that rounding made zero are
    missing, and poolings that were folded into a kernel are in it.
    """
    total = 0
    for k, layer in enumerate(network.layers):
        before = network.layers[k - 1] if k else None
        sources = input_kinds(network) if before is None else channel_kinds(before.segments, before.shape[0])
        reach = fan_out(layer, network.input_of(k), channel_kinds(layer.segments, layer.shape[0]).get("population"))
        total += sum(int(reach[mask].sum()) for kind, mask in sources.items() if kind != "always-on")
    return total
