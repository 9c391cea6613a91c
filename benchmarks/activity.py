"""What a deployed network did, layer by layer and step by step: spikes, synaptic operations, neuron updates.

All of it is from the spikes (or messages) that a run recorded and from the network's own synapses, as defined in
:mod:`gascnn.benchmarks.counts`. With 0-based steps ``t``::

    operations[layer, source, t] = sum over the sources that sent at t of their fan-out into the layer

An operation stands at the step in which its source sent, so the sums over all T + K steps are exactly the figures of
:func:`gascnn.benchmarks.counts.count_operations`; :meth:`Activity.counts` gives them. Batches are counted one by one
and added up. Needs no torch.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.counts import (
    SOURCES,
    TARGETS,
    Counts,
    SourceKind,
    Way,
    channel_kinds,
    fan_out,
    input_kinds,
    input_spikes,
)
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.result import RunResult
from gascnn.toolkit.errors import DataError, UsageError
from gascnn.toolkit.lowering.network import (
    DenseLayer,
    NetxNetwork,
    SigmaDeltaNeuron,
    SynapticLayer,
    layer_label,
)

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class WayActivity:
    """What went over the synapses from one kind of source to one kind of neuron; see :class:`counts.Way`.

    Attributes:
        layer, source, target, graded, synapses, stored_synapses: as in :class:`gascnn.benchmarks.counts.Way`.
        spikes: (T + K,) int64, what these sources sent at each step, all images together.
        operations: (T + K,) int64, over how many synapses that went.
    """

    layer: int
    source: SourceKind
    target: str
    graded: bool
    synapses: int
    stored_synapses: int
    spikes: Integers
    operations: Integers

    @property
    def total(self) -> Way:
        """The same, all steps together."""
        return Way(
            self.layer,
            self.source,
            self.target,
            self.graded,
            self.synapses,
            self.stored_synapses,
            int(self.spikes.sum()),
            int(self.operations.sum()),
        )


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """A synaptic layer: what came in over its synapses and what its neurons sent.

    Attributes:
        name: as in messages, :func:`gascnn.toolkit.lowering.network.layer_label`.
        kind: ``conv`` or ``dense``.
        shape: of the layer.
        neurons: by kind.
        sends: False for a sigma-delta read-out, whose sum the host reads.
        spikes: (T + K,) int64 by kind of neuron, all images together; messages in a sigma-delta network.
        ways: into this layer.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    neurons: dict[str, int]
    sends: bool
    spikes: dict[str, Integers]
    ways: tuple[WayActivity, ...]

    def operations(self, source: str) -> Integers:
        """(T + K,) synaptic operations from one kind of source, all images together."""
        chosen = [way.operations for way in self.ways if way.source == source]
        return functools.reduce(operator.add, chosen) if chosen else np.zeros_like(next(iter(self.spikes.values())))

    def to_dict(self, images: int, steps: int) -> dict[str, Any]:
        """Figures of one image; ``by_step`` has a list of T + K numbers for each."""
        sources = [source for source in SOURCES if any(way.source == source for way in self.ways)]
        operations = {source: self.operations(source) for source in sources}
        graded = sum(int(way.operations.sum()) for way in self.ways if way.graded)
        total = sum(int(each.sum()) for each in operations.values())
        neurons = sum(self.neurons.values())
        length = len(next(iter(self.spikes.values())))
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "neurons": self.neurons,
            "spikes": {kind: int(sent.sum()) / images for kind, sent in self.spikes.items()},
            "firing_rate": {
                kind: int(sent.sum()) / (images * steps * self.neurons[kind]) for kind, sent in self.spikes.items()
            },
            "synapses": sum(way.synapses for way in self.ways),
            "operations": total / images,
            "operations_by_source": {source: int(each.sum()) / images for source, each in operations.items()},
            "additions": (total - graded) / images,
            "multiply_accumulates": graded / images,
            "neuron_updates": neurons * length,
            "by_step": {
                "spikes": _each_image(self.spikes, images),
                "firing_rate": {
                    kind: (sent / (images * self.neurons[kind])).tolist() for kind, sent in self.spikes.items()
                },
                "operations": _each_image(operations, images),
                "neuron_updates": [neurons] * length,
            },
        }


@dataclass(frozen=True, eq=False)
class Activity:
    """A run, step by step; ``+`` adds another batch of the same network and T.

    Attributes:
        images: how many were run.
        steps: T.
        layers: the synaptic layers in order.
        input_spikes: (T + K,) int64 by kind of input, all images together; graded input is sent at each of T steps.
    """

    images: int
    steps: int
    layers: tuple[LayerActivity, ...]
    input_spikes: dict[str, Integers]

    @property
    def total_steps(self) -> int:
        """T + K."""
        return self.steps + len(self.layers)

    def counts(self) -> Counts:
        """All steps together: what :func:`gascnn.benchmarks.counts.count_operations` gives."""
        senders = [layer for layer in self.layers if layer.sends]
        return Counts(
            self.images,
            self.steps,
            tuple(way.total for layer in self.layers for way in layer.ways),
            {kind: sum(layer.neurons.get(kind, 0) for layer in senders) for kind in TARGETS},
            {kind: sum(int(layer.spikes[kind].sum()) for layer in senders if kind in layer.spikes) for kind in TARGETS},
            sum(sum(layer.neurons.values()) for layer in self.layers) * self.total_steps,
        )

    def __add__(self, other: Activity) -> Activity:
        """Both batches together.

        Raises:
            UsageError: they are of different networks or T.
        """
        if self._structure() != other._structure():
            raise UsageError("these activities are of different networks or T; add batches of the same run")
        layers = tuple(
            replace(
                mine,
                spikes=_added(mine.spikes, its.spikes),
                ways=tuple(
                    replace(a, spikes=a.spikes + b.spikes, operations=a.operations + b.operations)
                    for a, b in zip(mine.ways, its.ways, strict=True)
                ),
            )
            for mine, its in zip(self.layers, other.layers, strict=True)
        )
        sent = _added(self.input_spikes, other.input_spikes)
        return Activity(self.images + other.images, self.steps, layers, sent)

    def to_dict(self) -> dict[str, Any]:
        """Figures of one image as plain values; see ``docs/energy.md``."""
        counts = self.counts()
        return {
            "images": self.images,
            "steps": self.steps,
            "total_steps": self.total_steps,
            "synaptic_operations": counts.operations(),
            "additions": counts.additions(),
            "multiply_accumulates": counts.multiply_accumulates(),
            "operations_by_source": {kind: counts.operations(source=kind) for kind in SOURCES},
            "neuron_updates": counts.neuron_updates,
            "spikes_per_source": counts.spikes_per_source(),
            "input": {
                "spikes": {kind: int(sent.sum()) / self.images for kind, sent in self.input_spikes.items()},
                "by_step": {"spikes": _each_image(self.input_spikes, self.images)},
            },
            "layers": [layer.to_dict(self.images, self.steps) for layer in self.layers],
        }

    def _structure(self) -> tuple[Any, ...]:
        ways = [
            (w.layer, w.source, w.target, w.graded, w.synapses, w.stored_synapses) for n in self.layers for w in n.ways
        ]
        return self.steps, [(layer.shape, layer.neurons) for layer in self.layers], ways, list(self.input_spikes)


def activity(network: NetxNetwork, fed: npt.NDArray[np.generic], result: RunResult) -> Activity:
    """Count a run step by step.

    Args:
        network: that ran.
        fed: (image, T, ...) what it was fed, as for :func:`gascnn.hardware.inputs.checked_spikes`.
        result: of that run, with every spike (``record="spikes"``).

    Raises:
        UsageError: only counts were recorded.
        DataError: a result that is not of this network, or not of this input.
    """
    if result.spikes is None:
        raise UsageError('this run has only counts of its spikes; run it with record="spikes"')
    inputs = checked_spikes(network, fed, result.steps)
    total = result.steps + network.depth
    expected = [(len(inputs), total, *layer.shape) for layer in network.layers]
    if (found := [spikes.shape for spikes in result.spikes]) != expected:
        raise DataError(f"recorded spikes have shapes {found}; this network makes {expected} of this input")
    kinds = [input_kinds(network), *(channel_kinds(layer.segments, layer.shape[0]) for layer in network.layers)]
    pixels = network.input_bits > 0 and network.input.neuron is None
    spikes: list[dict[str, Integers]] = []
    ways: list[WayActivity] = []
    for k in range(network.depth + 1):
        shape = network.input_shape if k == 0 else network.layers[k - 1].shape
        if k == 0 and pixels:
            totals = _pixel_totals(len(inputs), result.steps, total, math.prod(shape))
        else:
            totals = _step_totals(input_spikes(network, inputs) if k == 0 else result.spikes[k - 1])
        paths = _paths_from(network, k, kinds, graded=network.sigma_delta or (k == 0 and pixels))
        masks = {kind: _spread(mask, shape) for kind, mask in kinds[k].items()}
        told, gone = _tally(totals, total, masks, paths)
        spikes.append(told)
        ways += gone
    layers = tuple(
        LayerActivity(
            layer_label(network, k),
            layer.kind,
            layer.shape,
            {kind: int(mask.sum()) * math.prod(layer.shape[1:]) for kind, mask in kinds[k + 1].items()},
            not (isinstance(layer.neuron, SigmaDeltaNeuron) and layer.neuron.read_out),
            spikes[k + 1],
            tuple(sorted((way for way in ways if way.layer == k), key=lambda way: way.source == "own")),
        )
        for k, layer in enumerate(network.layers)
    )
    return Activity(len(inputs), result.steps, layers, spikes[0])


@dataclass(frozen=True, eq=False)
class _Path:
    """A way without what went over it.

    Attributes:
        layer, source, target, graded: as in :class:`WayActivity`.
        sources: which elements are of this kind of source, in the source's shape.
        reach, stored: how many synapses each has; with zero weights, too.
    """

    layer: int
    source: SourceKind
    target: str
    graded: bool
    sources: Mask
    reach: Integers
    stored: Integers


def _paths_from(network: NetxNetwork, k: int, kinds: list[dict[SourceKind, Mask]], *, graded: bool) -> list[_Path]:
    """Ways from the input (0) or layer ``k - 1``: on into the next layer, and back into itself."""
    paths: list[_Path] = []
    if k < network.depth:
        layer, shape = network.layers[k], network.input_of(k)
        for target, rows in kinds[k + 1].items():
            reach, stored = fan_out(layer, shape, rows), fan_out(layer, shape, rows, stored=True)
            for source, mask in kinds[k].items():
                here = _spread(mask, shape)
                paths.append(_Path(k, source, target, graded, here, reach * here, stored * here))
    if k > 0:
        paths += [_own_path(network.layers[k - 1], k - 1, kind, rows) for kind, rows in kinds[k].items()]
    return [path for path in paths if path.reach.any()]


def _own_path(layer: SynapticLayer, index: int, kind: str, rows: Mask) -> _Path:
    """Self-inhibition and recurrent synapses into neurons of one kind."""
    reach, stored = np.zeros(layer.shape, dtype=np.int64), np.zeros(layer.shape, dtype=np.int64)
    if layer.self_weight is not None:
        reach[rows & (layer.self_weight != 0)] = 1
        stored[rows] = 1
    if isinstance(layer, DenseLayer) and layer.weight_rec is not None:
        reach += np.count_nonzero(layer.weight_rec[rows], axis=0)
        stored += int(rows.sum())
    return _Path(index, "own", kind, False, reach > 0, reach, stored)


def _tally(
    totals: Iterator[Integers], length: int, masks: Mapping[SourceKind, Mask], paths: list[_Path]
) -> tuple[dict[str, Integers], list[WayActivity]]:
    """What each kind sent at each step, and what that was over each path."""
    rows = [*masks.values(), *(path.sources for path in paths), *(path.reach for path in paths)]
    weights = np.stack([row.ravel() for row in rows]).astype(np.int64)
    found = np.zeros((len(weights), length), dtype=np.int64)
    for t, sent in enumerate(totals):
        found[:, t] = weights @ sent
    told: dict[str, Integers] = dict(zip(masks, found, strict=False))
    sent_by, over = found[len(masks) : len(masks) + len(paths)], found[len(masks) + len(paths) :]
    return told, [
        WayActivity(
            path.layer,
            path.source,
            path.target,
            path.graded,
            int(path.reach.sum()),
            int(path.stored.sum()),
            sent_by[i],
            over[i],
        )
        for i, path in enumerate(paths)
    ]


def _step_totals(spikes: Mask) -> Iterator[Integers]:
    """How many images each element sends in, step by step."""
    for t in range(spikes.shape[1]):
        yield spikes[:, t].sum(axis=0, dtype=np.int64).ravel()


def _pixel_totals(images: int, steps: int, length: int, elements: int) -> Iterator[Integers]:
    """Graded input multiplies at each of T steps, whatever the pixel is."""
    for t in range(length):
        yield np.full(elements, images if t < steps else 0, dtype=np.int64)


def _spread(channels: Mask, shape: Sequence[int]) -> Mask:
    """(C,) over all positions of (C, H, W)."""
    return np.broadcast_to(channels.reshape(-1, *(1,) * (len(shape) - 1)), tuple(shape))


def _added(mine: dict[str, Integers], its: dict[str, Integers]) -> dict[str, Integers]:
    return {kind: sent + its[kind] for kind, sent in mine.items()}


def _each_image(sent: Mapping[Any, Integers], images: int) -> dict[str, list[float]]:
    return {kind: (values / images).tolist() for kind, values in sent.items()}
