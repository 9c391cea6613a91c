"""Exact forward arithmetic and the gradients made up for it, against loops written from their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gascnn.toolkit.spike_learning.surrogate import Dynamics, even_weights, integrate, whole_numbers


def start(shape):
    return tuple(torch.zeros(shape) for _ in range(3))


def rtz(value: int, keep: int) -> int:
    product = value * keep
    return (abs(product) >> 12) * (1 if product >= 0 else -1)


def by_hand(sums, bias, threshold, keep_u, keep_v, inhibition):
    """Lava's arithmetic on Python's integers, one neuron."""
    u = v = 0
    spikes, last = [], 0
    for a in sums:
        u = rtz(u, keep_u) + ((a - inhibition * last) << 6)
        u = u - (1 << 24) if u > 1 << 23 else u + (1 << 24) if u <= -(1 << 23) else u
        v = max(-(1 << 23) + 1, min((1 << 23) - 1, rtz(v, keep_v) + u + (bias << 6)))
        last = int(v > threshold << 6)
        v = 0 if last else v
        spikes.append(last)
    return spikes, u, v


@pytest.mark.parametrize(
    ("keep_u", "keep_v", "inhibition", "largest"),
    [
        (0, 4096, 0, 90),
        (0, 3686, 0, 90),
        (4096, 0, 70, 60),
        (3890, 0, 70, 60),
        (1000, 4000, 0, 90),
        (0, 4096, 0, 200_000),  # wraps u, clips v
        (4096, 0, 1000, 100_000),
    ],
)
def test_forward_is_the_integer_arithmetic(keep_u, keep_v, inhibition, largest):
    rng = np.random.default_rng(5)
    sums = rng.integers(-largest, largest, (40, 1, 60))
    bias, threshold = 3, min(largest, 90_000)
    each = [torch.full((60,), float(value)) for value in (threshold, threshold, inhibition, bias)]
    given = torch.from_numpy(sums).float()
    spikes, (u, v, _) = integrate(given, each[3], start((1, 60)), Dynamics(*each[:3], keep_u, keep_v))
    assert 0 < spikes.mean() < 1
    for n in range(60):
        wanted = by_hand(sums[:, 0, n].tolist(), bias, threshold, keep_u, keep_v, inhibition)
        assert spikes[:, 0, n].tolist() == wanted[0]
        assert (int(u[0, n] * 64), int(v[0, n] * 64)) == wanted[1:]


@pytest.mark.parametrize(
    ("keep_u", "keep_v", "inhibition"), [(0, 4096, 0), (0, 3686, 0), (4096, 0, 30), (2048, 2048, 0)]
)
def test_backward_is_that_of_the_unrolled_loop(keep_u, keep_v, inhibition):
    """torch differentiates a plain loop whose spike is a triangle's integral behind a straight-through step."""
    generator = torch.Generator().manual_seed(2)
    sums = torch.randint(-20, 40, (7, 2, 5), generator=generator).double()
    weights = torch.randn(7, 2, 5, generator=generator).double()
    threshold, width, height = 37.0, 37.0, 0.7

    def unrolled(given, bias):
        u = v = last = torch.zeros(2, 5, dtype=torch.float64)
        out = []
        for t in range(7):
            u = u * (keep_u / 4096) + given[t] - inhibition * last.detach()
            v = v * (keep_v / 4096) + u + bias
            hard = (v > threshold).double()
            ramp = ((v - threshold) / width).clamp(-1, 1)
            soft = height * (ramp - ramp.abs() * ramp / 2)  # slope: height (1 - |ramp|) / width
            last = soft + (hard - soft).detach()
            out.append(last)
            v = v * (1 - hard.detach())
        return torch.stack(out), v, u

    twos = torch.full((5,), 2.0, dtype=torch.float64)
    wanted_input, wanted_bias = sums.clone().requires_grad_(), twos.clone().requires_grad_()
    out, v, u = unrolled(wanted_input, wanted_bias)
    ((out * weights).sum() + 0.01 * v.sum() + 0.02 * u.sum()).backward()
    found_input, found_bias = sums.clone().requires_grad_(), twos.clone().requires_grad_()
    numbers = (torch.full((5,), value, dtype=torch.float64) for value in (threshold, width, float(inhibition)))
    neurons = Dynamics(*numbers, keep_u, keep_v, height)
    state = tuple(value.double() for value in start((2, 5)))
    spikes, (u, v, _) = integrate(found_input, found_bias, state, neurons)
    ((spikes * weights).sum() + 0.01 * v.sum() + 0.02 * u.sum()).backward()
    assert wanted_input.grad.abs().sum() > 0
    if keep_u in (0, 4096) and keep_v in (0, 4096):  # elsewhere the machine also truncates
        torch.testing.assert_close(spikes, out.detach(), rtol=0, atol=0)
        torch.testing.assert_close(found_input.grad, wanted_input.grad, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(found_bias.grad, wanted_bias.grad, rtol=1e-5, atol=1e-8)
    else:
        torch.testing.assert_close(found_input.grad, wanted_input.grad, rtol=0.01, atol=1e-3)


def test_weights_are_even_and_their_gradient_passes_straight_through():
    weights = torch.tensor([0.0, 0.031, -0.05, 2.6, -9.0]).requires_grad_()
    found = even_weights(weights, torch.tensor(100.0))
    assert found.tolist() == [0, 4, -4, 254, -254]  # 3.1 -> 4 and 5 -> 4: nearest even; 260 and -900 are cut off
    found.sum().backward()
    assert weights.grad.tolist() == [100, 100, 100, 0, 0]


def test_biases_are_whole_numbers():
    values = torch.tensor([1.4, -2.6, 5000.0]).requires_grad_()
    found = whole_numbers(values, 4095)
    assert found.tolist() == [1, -3, 4095]
    found.sum().backward()
    assert values.grad.tolist() == [1, 1, 0]
