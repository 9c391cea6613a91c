"""What is flat or jumps in the integer machine, and the slope that learning takes in its place.

Forward passes are exact integers held in floating point; only the gradients are made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gascnn.toolkit.lowering.limits import DECAY_UNITY, WEIGHT_MAX
from gascnn.toolkit.spike_learning import kernels


def even_weights(weights: Tensor, scale: Tensor, largest: int = WEIGHT_MAX) -> Tensor:
    """``2 round(scale w / 2)`` within +-``largest``; the gradient passes where nothing is cut off (straight-through).

    Args:
        weights: in thresholds, outputs first.
        scale: weight units a threshold, shaped to broadcast.
        largest: even; 254 where weights have 8 bits.

    Returns:
        Even integers as floating point.
    """
    result: Tensor = _Even.apply(weights * scale, largest)
    return result


def whole_numbers(values: Tensor, largest: int) -> Tensor:
    """Nearest integers within +-``largest``, with the gradient passed through where nothing is cut off."""
    result: Tensor = _Whole.apply(values, largest)
    return result


class _Even(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, largest: int) -> Tensor:
        ctx.save_for_backward(values.abs() <= largest)
        return (torch.round(values / 2) * 2).clamp(-largest, largest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, largest: int) -> Tensor:
        ctx.save_for_backward(values.abs() <= largest)
        return torch.round(values).clamp(-largest, largest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None


@dataclass(frozen=True, eq=False)
class Dynamics:
    """Numbers of one layer's neurons; see :class:`gascnn.toolkit.lowering.network.CubaNeuron`.

    Attributes:
        threshold: (C,) weight units.
        width: (C,) of the surrogate's triangle: what a neuron needs to go from reset to spike.
        inhibition: (C,) weight units subtracted from ``u`` one step after a spike.
        keep_current, keep_voltage: shares of ``u`` and ``v`` kept each step, in 1/4096.
        height: of the triangle.
    """

    threshold: Tensor
    width: Tensor
    inhibition: Tensor
    keep_current: int
    keep_voltage: int
    height: float = 1.0


State = tuple[Tensor, Tensor, Tensor]
"""``u``, ``v`` (after reset) and the last spikes, each (image, ..., C), in weight units."""


def integrate(sums: Tensor, bias: Tensor, state: State, neurons: Dynamics) -> tuple[Tensor, State]:
    """All steps of one layer's neurons, exactly as ``PyLifModelBitAcc`` (Lava) computes them.

    ``u = wrap24(rtz(u ku) + sums - inhibition s); v = clip(rtz(v kv) + u + bias); s = v > threshold; v = v (1 - s)``.
    The gradient of a spike is a triangle around the threshold, ``height max(0, 1 - |v - threshold| / width) / width``
    (Bellec et al. 2018). The reset passes no gradient; wrapping and clipping pass it unchanged.

    Args:
        sums: (step, image, ..., C) synaptic sums, integers in weight units.
        bias: (C,) integers in weight units.
        state: at the start.
        neurons: their numbers.

    Returns:
        Spikes, (step, image, ..., C), and the state at the end.
    """
    spikes, u, v = _Integrate.apply(sums, bias, *state, neurons)
    return spikes, (u, v, spikes[-1])


class _Integrate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, bias: Tensor, u: Tensor, v: Tensor, last: Tensor, neurons: Dynamics) -> Any:
        sums = sums.contiguous()
        before, spikes = torch.empty_like(sums), torch.empty_like(sums)
        u, v, last = (value.clone(memory_format=torch.contiguous_format) for value in (u, v, last))
        kernels.forward(
            _rows(sums),
            bias.detach().numpy(),
            neurons.threshold.numpy(),
            neurons.inhibition.numpy(),
            (neurons.keep_current, neurons.keep_voltage),
            u.view(-1).numpy(),
            v.view(-1).numpy(),
            last.view(-1).numpy(),
            _rows(before),
            _rows(spikes),
        )
        ctx.save_for_backward(before, spikes)
        ctx.neurons = neurons
        return spikes, u, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        before, spikes = ctx.saved_tensors
        neurons = ctx.neurons
        of_spikes, of_u, of_v = (grad.contiguous() for grad in grads)
        of_u, of_v = of_u.clone(), of_v.clone()
        of_sums = torch.empty_like(before)
        of_bias = torch.zeros(len(neurons.threshold), dtype=torch.float64)
        kernels.backward(
            _rows(before),
            _rows(spikes),
            neurons.threshold.numpy(),
            neurons.width.numpy(),
            neurons.height,
            (neurons.keep_current / DECAY_UNITY, neurons.keep_voltage / DECAY_UNITY),
            _rows(of_spikes),
            of_u.view(-1).numpy(),
            of_v.view(-1).numpy(),
            _rows(of_sums),
            of_bias.numpy(),
        )
        return of_sums, of_bias.to(before.dtype), of_u, of_v, None, None


def _rows(value: Tensor) -> Any:
    """(step, neuron) without a copy."""
    return value.detach().view(len(value), -1).numpy()
