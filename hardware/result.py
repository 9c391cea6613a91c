"""What a run gives back, whichever backend ran it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.lowering.network import NetxNetwork


@dataclass(frozen=True, eq=False)
class RunResult:
    """Spikes and read-out of a batch of images; axes in PyTorch's order.

    A network of K synaptic layers, given T input steps, runs T + K steps; layer k (from 1) can answer from step k on.

    Attributes:
        steps: T.
        counts: one int32 array a synaptic layer, (image, ...): each neuron's spikes over the whole run.
        output_counts: (image, N) int32, spikes of the last layer in steps [K + skip, K + T).
        output_membrane: (image, N) int64, membrane potential of the last layer after the last step, in 1/64 weight
            units; for subtract reset it is what is left after the last subtraction.
        spikes: one bool array a synaptic layer, (image, T + K, ...), unshifted, or None if only counts were asked.
        wraps: how often the 24-bit current ``u`` wrapped, one number a synaptic layer; None where a backend cannot
            tell.
        messages: of a sigma-delta network, in the place of spikes 0/1: one int32 array a synaptic layer,
            (image, T + K, ...).

    In a sigma-delta network a spike is a message that is not 0; its read-out is the last layer's sum at the end: the
    ``output_membrane``, in 1/4096 activations; ``output_counts`` are 0. ``wraps`` counts messages beyond 16 bits and
    sums beyond 24.
    """

    steps: int
    counts: list[npt.NDArray[np.int32]]
    output_counts: npt.NDArray[np.int32]
    output_membrane: npt.NDArray[np.int64]
    spikes: list[npt.NDArray[np.bool_]] | None = None
    wraps: list[int] | None = None
    messages: list[npt.NDArray[np.int32]] | None = None

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.output_counts)

    def predictions(self) -> npt.NDArray[np.int64]:
        """(image,) class with the most spikes; ties go to the higher membrane potential, then to the lower class."""
        return predict(self.output_counts, self.output_membrane)

    def scores(self) -> npt.NDArray[np.float64]:
        """(image, class) firing rates of the output neurons, 0..1; where none spikes, their membrane potentials."""
        return class_scores(self.output_counts, self.output_membrane, self.steps)


def class_scores(
    counts: npt.NDArray[np.integer], membrane: npt.NDArray[np.integer], steps: int
) -> npt.NDArray[np.float64]:
    """Scores a row: spikes a step, or membrane potentials in a run in which no output neuron spikes at all."""
    return counts / max(steps, 1) if counts.any() else membrane.astype(np.float64)


def population_rates(network: NetxNetwork, counts: Sequence[npt.NDArray[np.integer]], steps: int) -> list[float]:
    """Mean spikes a neuron and input step of each layer's populations, relays and always-on channels left out.

    Args:
        network: says which channels compute; in a foreign file all do.
        counts: (image, ...) spikes of each synaptic layer.
        steps: T.
    """
    rates = []
    for layer, count in zip(network.layers, counts, strict=True):
        computed = [s for s in layer.segments if s.kind == "population"]
        parts = [count[:, s.start : s.stop] for s in computed] if computed else [count]
        neurons = sum(part.size for part in parts)
        rates.append(sum(int(part.sum(dtype=np.int64)) for part in parts) / (max(neurons, 1) * steps))
    return rates


def predict(counts: npt.NDArray[np.integer], membrane: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Class a row: most spikes, then highest membrane potential, then lowest number.

    Args:
        counts: (image, class) spikes.
        membrane: (image, class) membrane potential at the end.
    """
    best = counts == counts.max(axis=1, keepdims=True)
    floor = np.iinfo(np.int64).min
    chosen: npt.NDArray[np.int64] = np.argmax(np.where(best, membrane.astype(np.int64), floor), axis=1)
    return chosen


def concatenate(results: Sequence[RunResult]) -> RunResult:
    """Join the results of several batches of the same run, in order."""
    first = results[0]
    spikes = [r.spikes for r in results if r.spikes is not None]
    messages = [r.messages for r in results if r.messages is not None]
    wraps = [r.wraps for r in results if r.wraps is not None]
    return RunResult(
        steps=first.steps,
        counts=[np.concatenate(layers) for layers in zip(*(r.counts for r in results), strict=True)],
        output_counts=np.concatenate([r.output_counts for r in results]),
        output_membrane=np.concatenate([r.output_membrane for r in results]),
        spikes=[np.concatenate(layers) for layers in zip(*spikes, strict=True)] if spikes else None,
        wraps=[sum(layer) for layer in zip(*wraps, strict=True)] if wraps else None,
        messages=[np.concatenate(layers) for layers in zip(*messages, strict=True)] if messages else None,
    )
