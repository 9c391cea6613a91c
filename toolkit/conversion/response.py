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
    spikes = torch.empty(current.shape, dtype=torch.bool)
    axes = [0, *range(2, membrane.ndim)]
    peak = torch.zeros(membrane.shape[1])
    for t in range(current.shape[1]):
        if neuron.leak != 1.0:
            membrane.mul_(neuron.leak)
        membrane.add_(current[:, t])
        peak = torch.maximum(peak, (membrane - neuron.initial_membrane).abs().amax(axes))
        fired = membrane > 1.0
        spikes[:, t] = fired
        if neuron.reset == "zero":
            membrane.masked_fill_(fired, 0.0)
        else:
            membrane.sub_(fired.to(membrane.dtype))
    return Response(spikes, membrane, peak)
