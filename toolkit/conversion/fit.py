"""Choose every population's scale for the neuron that will run, layer by layer, on real spikes.

A population of channel c is driven with ``gain_c z + offset`` (z: what the ANN's ReLU would get, computed from the
spikes already fitted before it) and its spikes are read as activation ``decode_c * spike``. Reset by subtraction is
linear up to a rate of 1, so gain is 1 / percentile and decode its inverse. Reset to zero answers with a staircase,
and loses what a sum overshoots: there the gain is searched and decode is the least-squares factor between the rates
measured and the ANN's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gascnn.toolkit.conversion.ir import Op, OpGraph, apply, evaluate
from gascnn.toolkit.conversion.response import NeuronModel, Response, respond

GAINS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.25, 1.5)
"""Multiples of 1 / percentile tried for reset to zero."""

_ELEMENTS_AT_ONCE = 48_000_000


@dataclass(frozen=True, eq=False)
class Scale:
    """What was fitted for one population.

    Attributes:
        gain: (C,) thresholds a unit of the ANN's pre-activation.
        decode: (C,) ANN activation a spike and step stands for.
        offset: current added at every step, in thresholds (read-out only).
        current_peak, membrane_peak: (C,) largest absolute values met, in thresholds.
        rate: mean spikes a neuron and step.
    """

    gain: Tensor
    decode: Tensor
    offset: float
    current_peak: Tensor
    membrane_peak: Tensor
    rate: float


class Fitter:
    """Runs the network layer by layer on a batch of calibration images.

    Args:
        graph: operations with their neurons marked.
        images: (image, C, H, W) float in 0..1.
        inputs: (image, T, C, H, W) what is fed: spikes, or the pixels for constant coding.
        neuron: what will run.
    """

    def __init__(self, graph: OpGraph, images: Tensor, inputs: Tensor, neuron: NeuronModel) -> None:
        self._graph, self._images, self._neuron = graph, images, neuron
        self._trains: dict[str, tuple[Tensor, Tensor | None]] = {
            op.name: (inputs, None) for op in graph if op.kind == "input"
        }
        self._readers = {op.name: len(_later_populations(graph, op)) for op in graph if op.kind in ("input", "neurons")}
        self._output = graph.ops["output"].inputs[0]

    def fit(self, percentiles: dict[str, Tensor], progress: Callable[[str], None] | None = None) -> dict[str, Scale]:
        """Fit all populations in order.

        Args:
            percentiles: (C,) scale of each population's activation in the ANN.
            progress: called with the name of each population when it is done.
        """
        scales = {}
        for op in self._graph:
            if op.kind != "neurons":
                continue
            if op.name == self._output:
                scales[op.name] = self._fit_readout(op)
            else:
                scales[op.name] = self._fit_population(op, percentiles[op.name])
            if progress is not None:
                progress(op.name)
        return scales

    # --- populations between input and read-out ---

    def _fit_population(self, op: Op, percentile: Tensor) -> Scale:
        live = percentile > 0
        base = torch.where(live, percentile, torch.ones_like(percentile)).to(torch.float32)
        if self._neuron.reset == "subtract":
            return self._settled(op, 1.0 / base, base, 0.0)
        gain, decode = self._search(op, base)
        return self._settled(op, gain, decode, 0.0)

    def _search(self, op: Op, base: Tensor) -> tuple[Tensor, Tensor]:
        """Gain with the least squared error a channel, and its decode factor."""
        target = evaluate(self._graph, self._images, {op.name})[op.name].transpose(0, 1).flatten(1)
        best_error = torch.full_like(base, float("inf"))
        best_gain, best_decode = 1.0 / base, base.clone()
        for multiple in GAINS:
            gain = multiple / base
            rates = torch.cat([r.spikes.float().mean(1) for r, _ in self._responses(op, gain, 0.0)])
            rates = rates.transpose(0, 1).flatten(1)
            power = (rates * rates).sum(1)
            decode = torch.where(power > 0, (target * rates).sum(1) / power.clamp_min(1e-12), base)
            error = ((target - decode[:, None] * rates) ** 2).sum(1)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_gain = torch.where(better, gain, best_gain)
            best_decode = torch.where(better & (power > 0), decode, best_decode)
        return best_gain, best_decode

    # --- the read-out ---

    def _fit_readout(self, op: Op) -> Scale:
        """One gain and offset for all classes: adding a constant to every logit does not change the class.

        Logits are mapped into 0..1 so that no membrane drifts below its start (where 24 bits would overflow) and
        every class can spike; counts then order the classes as the logits do.
        """
        logits = evaluate(self._graph, self._images, {op.name})[op.name]
        low, high = (float(torch.quantile(logits.flatten().double(), q)) for q in (0.001, 0.999))
        span = max(high - low, 1e-6)
        classes = logits.shape[1]
        if self._neuron.reset == "subtract":
            choice = (0.95 / span, -0.95 * low / span)
        else:
            choice = self._search_readout(op, logits, low, span)
        gain = torch.full((classes,), choice[0])
        return self._settled(op, gain, 1.0 / gain, choice[1])

    def _search_readout(self, op: Op, logits: Tensor, low: float, span: float) -> tuple[float, float]:
        """Agreement with the ANN's classes, by counts alone and with the membrane breaking ties, on average.

        Few spikes leave ties, many lose more by overshooting; which is better depends on T and the network.
        """
        best, choice = -1.0, (1.0 / span, 0.0)
        wanted = logits.argmax(1)
        for share in (0.0, 0.25):
            floor = low + share * span
            for top in (0.5, 0.35, 0.25, 0.18, 0.12):
                gain = top / (span * (1.0 - share))
                responses = [r for r, _ in self._responses(op, torch.full((logits.shape[1],), gain), -gain * floor)]
                counts = torch.cat([r.spikes.sum(1) for r in responses])
                membrane = torch.cat([r.membrane for r in responses])
                # Membranes stay below one threshold: added to the counts they only break ties.
                settled = counts + membrane.clamp(-1.0, 1.0) * 0.499
                agreement = sum(float((x.argmax(1) == wanted).double().mean()) for x in (counts, settled)) / 2
                if agreement > best:
                    best, choice = agreement, (gain, -gain * floor)
        return choice

    # --- running one population on the spikes before it ---

    def _settled(self, op: Op, gain: Tensor, decode: Tensor, offset: float) -> Scale:
        """Run with the final scale, keep the spikes for the populations behind."""
        responses = list(self._responses(op, gain, offset))
        spikes = torch.cat([r.spikes for r, _ in responses])
        self._trains[op.name] = (spikes, decode)
        self._release(op)
        return Scale(
            gain=gain,
            decode=decode,
            offset=offset,
            current_peak=torch.stack([peak for _, peak in responses]).amax(0),
            membrane_peak=torch.stack([r.membrane_peak for r, _ in responses]).amax(0),
            rate=float(spikes.float().mean()),
        )

    def _responses(self, op: Op, gain: Tensor, offset: float) -> Iterator[tuple[Response, Tensor]]:
        inputs = next(iter(self._trains.values()))[0]
        images, steps = inputs.shape[:2]
        widest = max(_size(self._graph.ops[n].shape) for n in (op.name, *op.inputs))
        batch = max(1, _ELEMENTS_AT_ONCE // (steps * widest))
        for start in range(0, images, batch):
            chosen = slice(start, min(start + batch, images))
            value = self._value(op.inputs[0], chosen)
            current = value.reshape(-1, steps, *op.shape)
            current = current * gain.view(1, 1, -1, *(1,) * (len(op.shape) - 1)) + offset
            peak = current.abs().amax([0, 1, *range(3, current.ndim)])
            yield respond(current, self._neuron), peak

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


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


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
