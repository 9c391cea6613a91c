"""Compare two backends spike for spike: every layer, every step, every neuron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.hardware.result import RunResult, population_rates
from gascnn.toolkit.lowering.network import NetxNetwork, layer_label


@dataclass(frozen=True)
class Difference:
    """The first spike on which two backends disagree.

    Attributes:
        layer: as named in the spike files.
        image, step: 0-based.
        neuron: index in the layer, (C, H, W) or (N,).
        expected, found: the reference's spike and the backend's; of a sigma-delta network the messages.
    """

    layer: str
    image: int
    step: int
    neuron: tuple[int, ...]
    expected: bool | int
    found: bool | int

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.layer}, image {self.image}, step {self.step}, neuron {self.neuron}: "
            f"{_words(self.found)} where the simulator has {_words(self.expected)}"
        )


def _words(sent: bool | int) -> str:
    if isinstance(sent, bool):
        return "a spike" if sent else "no spike"
    return f"message {sent}"


@dataclass(frozen=True)
class LayerCheck:
    """One layer's part in a verification.

    Attributes:
        name: with what it computes.
        shape: (C, H, W) or (N,), relays included.
        spikes: number of spikes compared that were there.
        firing_rate: mean spikes a neuron and input step of the populations, relays and always-on channels left out.
        silent: whether its populations never fired; parity would then mean nothing. A read-out whose membrane
            potentials differ is not called so.
        differences: spikes that differ.
    """

    name: str
    shape: tuple[int, ...]
    spikes: int
    firing_rate: float
    silent: bool
    differences: int


@dataclass(frozen=True)
class Verification:
    """Outcome of a comparison.

    Attributes:
        images, steps: how much was compared; steps is T.
        layers: one a synaptic layer.
        first_difference: the earliest in time, then by layer; None if all spikes are equal.
        readout_equal: whether spike counts, membrane potentials and classes of the read-out agree too.
        problems: other reasons to fail, in words.
    """

    images: int
    steps: int
    layers: tuple[LayerCheck, ...]
    first_difference: Difference | None
    readout_equal: bool
    problems: tuple[str, ...] = field(default_factory=tuple)

    @property
    def passed(self) -> bool:
        """Equal in everything, and every layer did something."""
        quiet = any(layer.silent for layer in self.layers)
        return self.first_difference is None and self.readout_equal and not quiet and not self.problems

    def reasons(self) -> list[str]:
        """Why it failed; empty if it passed."""
        reasons = list(self.problems)
        if self.first_difference is not None:
            reasons.append(f"first difference: {self.first_difference}")
        if not self.readout_equal and self.first_difference is None:
            reasons.append("the spikes agree but the read-out (counts or membrane potentials) does not")
        reasons += [f"{layer.name} is silent: its spikes prove nothing" for layer in self.layers if layer.silent]
        return reasons

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"passed": self.passed, "reasons": self.reasons(), **asdict(self)}


def compare(network: NetxNetwork, expected: RunResult, found: RunResult, problems: Sequence[str] = ()) -> Verification:
    """Compare all spikes (or messages) and the read-out of two runs of the same input.

    Args:
        network: what was run.
        expected: the simulator's result, with spikes recorded.
        found: the backend's, likewise.
        problems: reasons to fail that were found elsewhere.

    Raises:
        ValueError: a run without recorded spikes, or of other size.
    """
    if expected.spikes is None or found.spikes is None:
        raise ValueError("both runs must record their spikes")
    if [s.shape for s in expected.spikes] != [s.shape for s in found.spikes]:
        raise ValueError("the runs differ in images, steps or layers")
    if (expected.messages is None) != (found.messages is None):
        raise ValueError("only one of the runs has graded messages")
    layers, firsts = [], []
    sent = zip(expected.messages or expected.spikes, found.messages or found.spikes, strict=True)
    for index, (left, right) in enumerate(sent):
        differs = left != right
        count = int(np.count_nonzero(differs))
        if count:
            firsts.append(_first(differs, left, right, layer_label(network, index)))
        layers.append(_check(network, index, left != 0, expected.steps, count))
    equal = np.array_equal(expected.output_counts, found.output_counts) and np.array_equal(
        expected.output_membrane, found.output_membrane
    )
    if np.ptp(expected.output_membrane):  # read out by its potentials, which were compared, it need not spike
        layers[-1] = replace(layers[-1], silent=False)
    return Verification(
        images=expected.images,
        steps=expected.steps,
        layers=tuple(layers),
        first_difference=min(firsts, key=lambda d: (d.image, d.step, d.layer)) if firsts else None,
        readout_equal=bool(equal),
        problems=tuple(problems),
    )


def _first(
    differs: npt.NDArray[np.bool_], left: npt.NDArray[np.generic], right: npt.NDArray[np.generic], label: str
) -> Difference:
    where = np.unravel_index(int(np.argmax(differs)), differs.shape)
    image, step, *neuron = (int(i) for i in where)
    return Difference(label, image, step, tuple(neuron), left[where].item(), right[where].item())


def _check(network: NetxNetwork, index: int, spikes: npt.NDArray[np.bool_], steps: int, differences: int) -> LayerCheck:
    layer = network.layers[index]
    alone = replace(network, layers=(layer,))
    rate = population_rates(alone, [spikes.sum(axis=1, dtype=np.int64)], steps)[0]
    return LayerCheck(
        name=layer_label(network, index),
        shape=layer.shape,
        spikes=int(np.count_nonzero(spikes)),
        firing_rate=rate,
        silent=rate == 0,
        differences=differences,
    )
