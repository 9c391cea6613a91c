"""Scales, thresholds and corrected biases for sigma-delta neurons.

A ReLU of activations up to ``high`` becomes a population with gain ``1 / high``, one a channel; messages are graded, so
there is no rate to fit. What the integers lose on average a channel (8-bit weights, messages rounded down or held back
by a threshold) is given back through its bias: without it small losses of one sign add up from layer to layer
(M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2).

Thresholds trade synaptic operations for error. What every threshold of every layer alone costs is measured; then all
are chosen together, by one price of an error, and the price is lowered until the logits' error reaches what is allowed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gascnn.toolkit.conversion.calibrate import Activations
from gascnn.toolkit.conversion.emit import emit
from gascnn.toolkit.conversion.fit import Scale
from gascnn.toolkit.conversion.ir import OpGraph, evaluate
from gascnn.toolkit.conversion.response import NeuronModel
from gascnn.toolkit.conversion.wave import Wave
from gascnn.toolkit.lowering.annotations import GraphNotes
from gascnn.toolkit.lowering.graph import read_graph
from gascnn.toolkit.lowering.limits import SIGMA_DELTA_SHIFT
from gascnn.toolkit.lowering.sigma_delta import LARGEST_THRESHOLD, MESSAGE_RANGE, SigmaDelta, sigma_delta_network

RELU = NeuronModel("subtract")
"""What its nodes say of a population that stands for a ReLU: no leak, no start."""

LEVELS = (0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 24, LARGEST_THRESHOLD)
"""Thresholds tried, in activations."""

LOG_PRICES, HALVINGS = (-5.0, 12.0), 8
"""Logarithm of what an error as large as the logits' variance costs, in shares of all operations, and how closely it is
met."""

WORK = 1_000_000_000_000
"""Products that choosing thresholds may take: a minute or two on two cores."""

_ELEMENTS = 64_000_000
_ANN_AT_ONCE = 32


@dataclass(frozen=True)
class MessageCost:
    """What was chosen.

    Attributes:
        thresholds: of the input and of each layer but the read-out, in activations.
        operations: synaptic operations an image with these thresholds.
        all_operations: and with none.
        error: mean squared change of the logits by the thresholds, as a share of their variance.
    """

    thresholds: tuple[int, ...]
    operations: float
    all_operations: float
    error: float


def relu_scales(graph: OpGraph, activations: Mapping[str, Activations]) -> dict[str, Scale]:
    """One scale a channel from the largest activations met; one for all classes at the read-out."""
    scales = {}
    for op in graph:
        if op.kind != "neurons":
            continue
        seen = activations[op.name]
        low, high = seen.low.abs().float(), seen.high.float()
        current = torch.maximum(low, high.abs()).clamp_min(1e-9)
        base = current.max().expand_as(current).clone() if op.readout else torch.where(high > 0, high, current)
        activation = current if op.readout else high.clamp_min(0.0)
        scales[op.name] = Scale(1.0 / base, base, 0.0, current / base, activation / base, 0.0)
    return scales


def fit_sigma_delta(
    graph: OpGraph,
    scales: dict[str, Scale],
    pixels: Tensor,
    intensities: Tensor,
    error: float,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, Scale], MessageCost]:
    """Choose thresholds and correct biases.

    Args:
        graph: operations with their neurons marked.
        scales: of :func:`relu_scales`.
        pixels: (image, C, H, W) integers 0..255, what the network is fed.
        intensities: (image, C, H, W) float 0..1, what the ANN is given for them.
        error: how much thresholds may change the logits: mean square, as a share of their variance.
        progress: called with what is done, and of how much.

    Returns:
        The scales with thresholds and offsets, and what they cost.
    """
    made = _made_integer(graph, scales)
    cost, corrections, rates = _Fitter(graph, scales, made, pixels, intensities).choose(error, progress)
    result = dict(scales)
    for index, plan in enumerate(made.plans):
        start = 0
        share = 0.0 if index == len(made.plans) - 1 else cost.thresholds[index + 1] / MESSAGE_RANGE
        for population in plan.populations:
            stop = start + population.shape[0]
            result[population.name] = replace(
                scales[population.name],
                offset=corrections[index][start:stop],
                message_threshold=share,
                rate=rates[index],
            )
            start = stop
    return result, cost


def _made_integer(graph: OpGraph, scales: dict[str, Scale]) -> SigmaDelta:
    return sigma_delta_network(read_graph(emit(graph, scales, RELU, GraphNotes(coding="constant"))))


class _Fitter:
    """A network made integer without thresholds, run on the calibration images."""

    def __init__(
        self, graph: OpGraph, scales: dict[str, Scale], made: SigmaDelta, pixels: Tensor, intensities: Tensor
    ) -> None:
        network = made.network
        depth = network.depth
        self._wave = Wave(network)
        neurons = math.prod(network.input_shape) + network.neurons
        runs = depth * len(LEVELS) // 2 + HALVINGS
        images = min(len(pixels), _ELEMENTS // neurons, WORK // (runs * network.multiply_accumulates))
        self._pixels = pixels[: max(1, images)]
        self._rows = [torch.from_numpy(scale.scale > 0) for scale in made.scales]
        self._scale = [torch.from_numpy(s.scale[s.scale > 0]) * (1 << SIGMA_DELTA_SHIFT) for s in made.scales]
        means = _means(graph, scales, made, intensities[: len(self._pixels)])
        self._targets = [mean * scale for mean, scale in zip(means, self._scale, strict=True)]

    def choose(
        self, error: float, progress: Callable[[int, int], None]
    ) -> tuple[MessageCost, list[Tensor], list[float]]:
        """The cost, the offsets in thresholds, and the messages a neuron of each layer's populations."""
        depth = self._wave.network.depth
        steps = depth + HALVINGS if error > 0 else 0
        run = self._run([0] * depth)
        self._exact, all_operations = run.logits, sum(run.operations)
        best, chosen = run, [0] * depth
        if error > 0:
            table = np.empty((2, depth, len(LEVELS)))
            for layer in range(depth):
                table[:, layer] = self._alone(layer, run.states[layer])
                progress(layer + 1, steps)
            best, chosen = self._search(table, error, run, lambda n: progress(depth + n, steps))
        offsets = [c / s for c, s in zip(best.corrections, self._scale, strict=True)]
        cost = MessageCost(tuple(chosen), sum(best.operations), all_operations, self._error(best.logits))
        return cost, [offset.float() for offset in offsets], best.rates

    def _search(
        self, table: npt.NDArray[np.float64], error: float, run: _Run, progress: Callable[[int], None]
    ) -> tuple[_Run, list[int]]:
        """The thresholds of the lowest price of an error at which it is still allowed, by halving the interval."""
        low, high = LOG_PRICES
        best, chosen = run, [0] * table.shape[1]
        operations, errors = table[0] / sum(run.operations), table[1]
        for step in range(HALVINGS):
            middle = (low + high) / 2
            levels = (operations + errors * math.exp(middle)).argmin(axis=1)
            wanted = [LEVELS[level] for level in levels]
            tried = self._run(wanted)
            if self._error(tried.logits) <= error:
                high = middle
                if sum(tried.operations) < sum(best.operations):
                    best, chosen = tried, wanted
            else:
                low = middle
            progress(step + 1)
        return best, chosen

    def _alone(self, layer: int, states: Tensor) -> npt.NDArray[np.float64]:
        """(2, threshold) operations and error of each threshold of one layer (0: the input), with none elsewhere."""
        found = []
        for level in LEVELS:
            thresholds = [0] * self._wave.network.depth
            thresholds[layer] = level
            run = self._run(thresholds, layer, states)
            found.append((run.operations[0], self._error(run.logits)))
        return np.array(found).T

    def _error(self, logits: Tensor) -> float:
        """Mean squared difference to the network without thresholds, as a share of the variance; a constant is none."""
        centred = self._exact - self._exact.mean(1, keepdim=True)
        change = logits - self._exact
        change = change - change.mean(1, keepdim=True)
        return float(change.square().mean() / centred.square().mean().clamp_min(1e-12))

    def _run(self, thresholds: list[int], start: int = 0, states: Tensor | None = None) -> _Run:
        """One wave from a layer's states on, every channel's mean put right on the way."""
        wave, depth = self._wave, self._wave.network.depth
        value = wave.input(self._pixels) if states is None else states
        run = _Run([], [], [], [], value)
        for index in range(start, depth):
            run.states.append(value)
            messages = wave.messages(value, thresholds[index])
            run.operations.append(wave.operations(index, messages))
            if index:
                run.rates.append(float((messages[:, self._rows[index - 1]] != 0).double().mean()))
            sums = wave.sums(index, messages)
            rows = self._rows[index]
            correction = self._targets[index] - _channel_means(sums[:, rows])
            sums[:, rows] += correction.to(sums.dtype).view(1, -1, *(1,) * (sums.ndim - 2))
            run.corrections.append(correction)
            value = sums if index == depth - 1 else sums.relu()
        run.rates.append(float((value[:, self._rows[-1]] != 0).double().mean()))
        run.logits = value[:, self._rows[-1]].flatten(1).double()
        return run


@dataclass
class _Run:
    """What a wave met: layer by layer its states, operations, corrections of the sums, messages a neuron."""

    states: list[Tensor]
    operations: list[float]
    corrections: list[Tensor]
    rates: list[float]
    logits: Tensor


def _means(graph: OpGraph, scales: dict[str, Scale], made: SigmaDelta, intensities: Tensor) -> list[Tensor]:
    """(rows,) of each layer: the ANN's mean pre-activation of each channel, in thresholds."""
    names = [[p.name for p in plan.populations] for plan in made.plans]
    wanted = {graph.ops[name].inputs[0] for name in itertools.chain(*names)}
    sums: dict[str, Tensor] = {}
    for part in intensities.split(_ANN_AT_ONCE):
        values = evaluate(graph, part, wanted)
        for name in itertools.chain(*names):
            mean = _channel_means(values[graph.ops[name].inputs[0]]) * len(part)
            sums[name] = sums.get(name, 0) + mean * scales[name].gain.double()
    return [torch.cat([sums[name] for name in layer]) / len(intensities) for layer in names]


def _channel_means(values: Tensor) -> Tensor:
    """(C,) of (image, C, ...)."""
    return values.transpose(0, 1).flatten(1).double().mean(1)
