"""Relays under reset by subtraction, by brute force in Lava's integer arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.toolkit.lowering.repeater import find_repeater


@pytest.mark.parametrize("decay", [0, 1, 41, 205, 410, 1024, 2048, 3000])
@pytest.mark.parametrize("exponent", range(8))
def test_a_repeater_answers_every_spike_with_one(decay, exponent):
    """Lava's integer arithmetic, on trains from silence to a spike at every step."""
    found = find_repeater(1 - decay / 4096, exponent, 1, 100)
    if decay == 0:
        assert found.self_weight == found.weight == max(2, 2**exponent)
    if found is None:
        assert decay > 0
        return
    assert found.weight % 2 == 0
    assert found.self_weight % 2**exponent == 0
    assert found.self_weight >> exponent <= 127
    train = np.random.default_rng(0).random((100, 64)) < np.linspace(0, 1, 64)
    u, before = np.zeros(64, dtype=np.int64), np.zeros(64, dtype=bool)
    for now in train:
        u = np.sign(u) * (np.abs(u) * (4096 - decay) >> 12) + 64 * (found.weight * now - found.self_weight * before)
        before = u > 64 * found.fire
        np.testing.assert_array_equal(before, now)


def test_some_exponent_always_has_a_repeater():
    for decay in range(0, 4000, 37):
        assert any(find_repeater(1 - decay / 4096, e, 1, 1000) for e in range(8)), decay


@pytest.mark.parametrize("steps", [10, 64, 256, 500])
@pytest.mark.parametrize("exponent", [0, 2, 7])
def test_a_plane_of_graded_input_is_repeated_as_spikes(exponent, steps):
    """The plane holds 255 while the input lasts; the relay spikes at each of those steps, and nothing wraps."""
    found = find_repeater(1.0, exponent, 255, steps)
    if exponent == 0:
        assert found is None  # 127 is the most such a self-weight can take away of at least 510
        return
    u, before = 0, False
    for step in range(steps):
        u = u + 255 * found.weight - found.self_weight * before
        before = u > found.fire
        assert before, step
        assert u < 131071
    assert find_repeater(1.0, exponent, 255, 100_000) is None
