"""How integrate-and-fire neurons answer a current, in floating point, with thresholds of 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class NeuronModel:
    """The neuron a network is converted for.

    Attributes:
        reset: ``zero`` (Lava's own) or ``subtract`` (the paper's: "the membrane is lowered by the threshold").
        leak: share of the membrane potential kept each step, the paper's factor in eq. 1; 1 is none.
        initial_membrane: membrane potential at the start, in thresholds.
    """

    reset: Literal["zero", "subtract"]
    leak: float = 1.0
    initial_membrane: float = 0.0


@dataclass(frozen=True, eq=False)
class Response:
    """Spikes and the extremes met on the way.

    Attributes:
        spikes: bool, shape of the current.
        membrane: (image, C, ...) membrane potential after the last step.
        membrane_peak: (C,) largest absolute membrane potential before reset, start value excluded.
    """

    spikes: Tensor
    membrane: Tensor
    membrane_peak: Tensor


def respond(current: Tensor, neuron: NeuronModel) -> Response:
    """Integrate ``v[t] = leak v[t-1] + current[t]``, spike where ``v > 1``, then reset (paper, eq. 1 and its text).

    With reset to zero and a constant current x the rate is the staircase ``1 / ceil(1 / x)`` (at integer 1 / x the
    strict comparison takes one step more); with reset by subtraction it is ``min(x, 1)``.

    Args:
        current: (image, T, C, ...) in thresholds.
        neuron: its dynamics.
    """
    membrane = torch.full_like(current[:, 0], neuron.initial_membrane)
    quiet = torch.empty_like(membrane)
    spikes = torch.empty(current.shape, dtype=torch.bool)
    axes = [0, *range(2, membrane.ndim)]
    peak = torch.zeros(membrane.shape[1])
    for t in range(current.shape[1]):
        if neuron.leak != 1.0:
            membrane.mul_(neuron.leak)
        membrane.add_(current[:, t])
        for extreme in (membrane.amax(axes), membrane.amin(axes)):
            peak = torch.maximum(peak, (extreme - neuron.initial_membrane).abs())
        torch.le(membrane, 1.0, out=quiet)
        spikes[:, t] = quiet == 0
        if neuron.reset == "zero":
            membrane.mul_(quiet)
        else:
            membrane.add_(quiet).sub_(1.0)
    return Response(spikes, membrane, peak)


def staircase_counts(current: Tensor, threshold: Tensor, leak: float = 1.0) -> Tensor:
    """How often neurons with reset to zero spike, for a current and thresholds in any unit.

    Args:
        current: (image, T, C, ...).
        threshold: positive, shaped to broadcast over (image, C, ...).
        leak: share of the membrane potential kept each step.

    Returns:
        (image, C, ...) float.
    """
    membrane = torch.zeros_like(current[:, 0])
    # Comparisons into a float buffer and products are several times faster than masks: this is what fitting waits for.
    quiet, silent_steps = torch.empty_like(membrane), torch.zeros_like(membrane)
    for t in range(current.shape[1]):
        if leak != 1.0:
            membrane.mul_(leak)
        membrane.add_(current[:, t])
        torch.le(membrane, threshold, out=quiet)
        silent_steps.add_(quiet)
        membrane.mul_(quiet)
    return current.shape[1] - silent_steps
