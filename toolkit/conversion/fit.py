"""Choose every population's scale for the neuron that will run, layer by layer, on real spikes.

A population of channel c is driven with ``gain_c z + offset`` (z: what the ANN's ReLU would get, computed from the
spikes already fitted before it) and its spikes are read as activation ``decode_c * spike``. Reset by subtraction is
linear up to a rate of 1, so gain is 1 / percentile and decode its inverse. Reset to zero answers with a staircase,
and loses what a sum overshoots: there the gain is searched and decode is the least-squares factor between the rates
measured and the ANN's activations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gascnn.toolkit.conversion.calibrate import Activations
from gascnn.toolkit.conversion.ir import Op, OpGraph, apply, evaluate
from gascnn.toolkit.conversion.response import NeuronModel, respond, staircase_counts

GAINS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.25, 1.5)
"""Multiples of 1 / percentile tried for reset to zero."""

LARGEST_WEIGHT = 4.0
"""Thresholds that one spike may add. A channel that is hardly ever active would get weights far larger, and the 8 bits
that a layer's weights share would be spent on it; it is given a larger scale and fires less instead."""

READOUT_TOPS, READOUT_SHARES = (0.5, 0.35, 0.25, 0.18, 0.12), (0.0, 0.25)
"""Largest logit in thresholds, and share of the logits' range cut off below, tried for reset to zero."""

MEMBRANE_SHARE = 0.5
"""Of the way from its start to its threshold that a membrane read out at the end goes on the images it was fitted with:
so it never spikes, and images that were not among them have as much room again."""

_ELEMENTS_AT_ONCE = 8_000_000
_ELEMENTS_KEPT = 32_000_000
_SAMPLES = 4096
"""Neurons of a channel, over all images, that its gain is searched with; reset to zero tries many."""


@dataclass(frozen=True, eq=False)
class Scale:
    """What was fitted for one population.

    Attributes:
        gain: (C,) thresholds a unit of the ANN's pre-activation.
        decode: (C,) ANN activation a spike and step stands for.
        offset: current added at every step, in thresholds: one number (at the read-out), or (C,) with sigma-delta
            neurons.
        current_peak, membrane_peak: (C,) largest absolute values met or to be met, in thresholds.
        rate: mean spikes a neuron and step.
        message_threshold: of sigma-delta neurons; see :class:`gascnn.toolkit.lowering.annotations.NeuronNotes`.
    """

    gain: Tensor
    decode: Tensor
    offset: float | Tensor
    current_peak: Tensor
    membrane_peak: Tensor
    rate: float
    message_threshold: float = 0.0


class Fitter:
    """Runs the network layer by layer on a batch of calibration images.

    Args:
        graph: operations with their neurons marked.
        images: (image, C, H, W) float in 0..1.
        inputs: (image, T, C, H, W) what is fed: spikes, or the pixels for constant coding.
        neuron: what will run.
        readout: ``count`` of the last layer's spikes, or its ``membrane`` at the end.
    """

    def __init__(
        self,
        graph: OpGraph,
        images: Tensor,
        inputs: Tensor,
        neuron: NeuronModel,
        readout: Literal["count", "membrane"] = "count",
    ) -> None:
        self._graph, self._images, self._neuron, self._readout = graph, images, neuron, readout
        self._trains: dict[str, tuple[Tensor, Tensor | None]] = {
            op.name: (inputs, None) for op in graph if op.kind == "input"
        }
        self._readers = {op.name: len(_later_populations(graph, op)) for op in graph if op.kind in ("input", "neurons")}
        self._steps = inputs.shape[1]
        self._kept: dict[str, list[tuple[slice, Tensor]]] = {}
        self._output = graph.output.inputs[0]

    def fit(
        self, activations: dict[str, Activations], progress: Callable[[str], None] | None = None
    ) -> dict[str, Scale]:
        """Fit all populations in order.

        Args:
            activations: of each population in the ANN.
            progress: called with the name of each population when it is done.
        """
        scales = {}
        for op in self._graph:
            if op.kind != "neurons":
                continue
            if op.name == self._output:
                scales[op.name] = self._fit_readout(op)
            else:
                scales[op.name] = self._fit_population(op, activations[op.name].percentile)
            if self._neuron.reset == "subtract":
                scales[op.name] = self._with_drift(scales[op.name], activations[op.name])
            if progress is not None:
                progress(op.name)
        return scales

    def _with_drift(self, scale: Scale, seen: Activations) -> Scale:
        """Membranes drift by what a spike a step cannot balance, below 0 or above 1, for as long as the run lasts.

        Few images are run as spikes; the ANN's pre-activations, of many more, tell how far others will drift.
        """
        low, high = (value * scale.gain + scale.offset for value in (seen.low, seen.high))
        drift = torch.maximum(-low, high - 1.0).clamp_min(0.0)
        lasting = float(self._steps)
        if self._neuron.leak < 1.0:
            lasting = min(lasting, 1.0 / (1.0 - self._neuron.leak))
        return replace(scale, membrane_peak=torch.maximum(scale.membrane_peak, drift * lasting))

    # --- populations between input and read-out ---

    def _fit_population(self, op: Op, percentile: Tensor) -> Scale:
        base = torch.where(percentile > 0, percentile, torch.ones_like(percentile)).to(torch.float32)
        base = torch.maximum(base, self._largest(op.inputs[0]) / LARGEST_WEIGHT)
        if self._neuron.reset == "subtract":
            return self._settled(op, 1.0 / base, base, 0.0)
        if len(self._images) * self._steps * math.prod(op.shape) <= _ELEMENTS_KEPT:
            self._kept = {op.name: list(self._values(op))}
        gain, decode = self._search(op, base)
        scale = self._settled(op, gain, decode, 0.0)
        self._kept = {}
        return scale

    def _largest(self, name: str) -> Tensor:
        """(C,) what one spike adds to an operation's channels at most, in the ANN's units."""
        op = self._graph.ops[name]
        if name in self._trains:
            decode = self._trains[name][1]
            return torch.ones(op.shape[0]) if decode is None else decode
        inputs = torch.stack([self._largest(i) for i in op.inputs]).amax(0)
        if op.kind == "avgpool":
            return inputs / math.prod(op.kernel)
        if op.kind == "flatten":
            return inputs.repeat_interleave(op.shape[0] // len(inputs))
        if op.weight is None:
            return inputs
        if op.kind == "affine":
            return inputs * op.weight.abs().float()
        weight = op.weight.abs().float().flatten(2).amax(2) if op.kind == "conv" else op.weight.abs().float()
        inputs = inputs.view(op.groups, 1, -1).expand(-1, len(weight) // op.groups, -1)
        return (weight * inputs.reshape(weight.shape)).amax(1)

    def _search(self, op: Op, base: Tensor) -> tuple[Tensor, Tensor]:
        """Gain with the least squared error a channel, and its decode factor.

        With rates r and activations a, ``decode = sum(a r) / sum(r r)`` leaves ``sum(a a) - decode sum(a r)``.
        """
        targets = evaluate(self._graph, self._images, {op.name})[op.name]
        gains = torch.tensor(GAINS)[:, None] / base
        products, powers = (torch.zeros(len(GAINS), len(base), dtype=torch.float64) for _ in range(2))
        for chosen, value in self._values(op):
            sample = _sample(len(self._images), op.shape)
            value = value.flatten(3)[..., sample] if value.ndim > 3 else value
            target = _by_channel(targets[chosen].flatten(2)[..., sample] if value.ndim > 3 else targets[chosen])
            for i, gain in enumerate(gains):
                counts = staircase_counts(value, _along_channels(1.0 / gain, value)[0], self._neuron.leak)
                rates = _by_channel(counts) / self._steps
                products[i] += (target * rates).sum(1)
                powers[i] += (rates * rates).sum(1)
        decode = products / powers.clamp_min(1e-12)
        chosen_gain = (decode * products).argmax(0)
        channels = torch.arange(len(base))
        fired = powers[chosen_gain, channels] > 0
        best_gain = torch.where(fired, gains[chosen_gain, channels], 1.0 / base)
        return best_gain, torch.where(fired, decode[chosen_gain, channels].float(), base)

    # --- the read-out ---

    def _fit_readout(self, op: Op) -> Scale:
        """One gain and offset for all classes: adding a constant to every logit does not change the class.

        Logits are mapped into 0..1 so that no membrane drifts below its start (where 24 bits would overflow) and
        every class can spike; counts then order the classes as the logits do. Read out by the membrane, they are made
        so small that none spikes in the whole run: every count is 0, and the highest potential decides.
        """
        logits = evaluate(self._graph, self._images, {op.name})[op.name]
        low, high = (float(torch.quantile(logits.flatten().double(), q)) for q in (0.001, 0.999))
        span = max(high - low, 1e-6)
        classes = logits.shape[1]
        if self._readout == "membrane":
            room = MEMBRANE_SHARE * (1.0 - self._neuron.initial_membrane)
            choice = (room / max(self._largest_sum(op), 1e-6), 0.0)
        elif self._neuron.reset == "subtract":
            choice = (0.95 / span, -0.95 * low / span)
        else:
            choice = self._search_readout(op, logits, low, span)
        gain = torch.full((classes,), choice[0])
        return self._settled(op, gain, 1.0 / gain, choice[1])

    def _largest_sum(self, op: Op) -> float:
        """The largest absolute sum over the steps run so far that the read-out's input reaches, on any image."""
        return max(float(value.cumsum(1).abs().max()) for _, value in self._values(op))

    def _search_readout(self, op: Op, logits: Tensor, low: float, span: float) -> tuple[float, float]:
        """Agreement with the ANN's classes, by counts alone and with the membrane breaking ties, on average.

        Few spikes leave ties, many lose more by overshooting; which is better depends on T and the network.
        """
        best, choice = -1.0, (1.0 / span, 0.0)
        wanted = logits.argmax(1)
        values = torch.cat([value for _, value in self._values(op)])
        for share, top in itertools.product(READOUT_SHARES, READOUT_TOPS):
            gain, floor = top / (span * (1.0 - share)), low + share * span
            response = respond(values * gain - gain * floor, self._neuron)
            counts = response.spikes.sum(1)
            # Membranes stay below one threshold: added to the counts they only break ties.
            settled = counts + response.membrane.clamp(-1.0, 1.0) * 0.499
            agreement = sum(float((x.argmax(1) == wanted).double().mean()) for x in (counts, settled)) / 2
            if agreement > best:
                best, choice = agreement, (gain, -gain * floor)
        return choice

    # --- running one population on the spikes before it ---

    def _settled(self, op: Op, gain: Tensor, decode: Tensor, offset: float) -> Scale:
        """Run with the final scale, keep the spikes for the populations behind."""
        spikes = torch.empty((len(self._images), self._steps, *op.shape), dtype=torch.bool)
        current_peak, membrane_peak = torch.zeros(op.shape[0]), torch.zeros(op.shape[0])
        for chosen, value in self._values(op):
            current = value * _along_channels(gain, value) + offset
            response = respond(current, self._neuron)
            spikes[chosen] = response.spikes
            axes = [0, 1, *range(3, current.ndim)]
            current_peak = torch.maximum(current_peak, torch.maximum(current.amax(axes), -current.amin(axes)))
            membrane_peak = torch.maximum(membrane_peak, response.membrane_peak)
        self._trains[op.name] = (spikes, decode)
        self._release(op)
        rate = int(spikes.count_nonzero()) / spikes.numel()
        return Scale(gain, decode, offset, current_peak, membrane_peak, rate)

    def _values(self, op: Op) -> Iterator[tuple[slice, Tensor]]:
        """What the ANN's ReLU would get at every step, (image, T, C, ...), a few images at a time."""
        if op.name in self._kept:
            yield from self._kept[op.name]
            return
        widest = max(math.prod(self._graph.ops[n].shape) for n in (op.name, *op.inputs))
        batch = max(1, _ELEMENTS_AT_ONCE // (self._steps * widest))
        for start in range(0, len(self._images), batch):
            chosen = slice(start, min(start + batch, len(self._images)))
            yield chosen, self._value(op.inputs[0], chosen).reshape(-1, self._steps, *op.shape)

    def _value(self, name: str, chosen: slice) -> Tensor:
        """Value of an operation at every step of the chosen images, (image * T, ...), from spikes as activations."""
        if name in self._trains:
            train, decode = self._trains[name]
            part = train[chosen].flatten(0, 1).to(torch.float32)
            return part if decode is None else part * decode.view(1, -1, *(1,) * (part.ndim - 2))
        op = self._graph.ops[name]
        return apply(op, [self._value(i, chosen) for i in op.inputs])

    def _release(self, op: Op) -> None:
        """Forget spike trains that no later population reads."""
        for source in _source_populations(self._graph, op):
            self._readers[source] -= 1
            if self._readers[source] == 0 and self._graph.ops[source].kind != "input":
                self._trains[source] = (torch.empty(0), None)


def _sample(images: int, shape: tuple[int, ...]) -> Tensor:
    """Positions of a channel that are enough to fit it, the same ones for every image; seeded."""
    positions = math.prod(shape[1:])
    wanted = min(positions, max(1, _SAMPLES // images))
    return torch.randperm(positions, generator=torch.Generator().manual_seed(0))[:wanted]


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    """(C,) shaped to multiply (image, T, C, ...)."""
    return values.view(1, 1, -1, *(1,) * (like.ndim - 3))


def _by_channel(values: Tensor) -> Tensor:
    """(image, C, ...) as (C, everything else), in double precision for sums over many."""
    return values.transpose(0, 1).flatten(1).double()


def _source_populations(graph: OpGraph, op: Op) -> set[str]:
    """Populations (or the input) that reach ``op`` through linear operations."""
    found, stack = set(), list(op.inputs)
    while stack:
        current = graph.ops[stack.pop()]
        if current.kind in ("neurons", "input"):
            found.add(current.name)
        else:
            stack.extend(current.inputs)
    return found


def _later_populations(graph: OpGraph, op: Op) -> set[str]:
    return {other.name for other in graph if other.kind == "neurons" and op.name in _source_populations(graph, other)}
