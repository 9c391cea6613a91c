"""The real Lava, its own models only: a fixed set of random networks in one start, and every spike of every layer.

``make fidelity`` does the same with hundreds; see ``docs/simulator.md``.
"""

from __future__ import annotations

import pytest
from fidelity.comparison import Summary
from fidelity.networks import QUICK, seeded_case
from fidelity.parity import LavaRun

from gascnn.hardware import lava

pytestmark = [pytest.mark.lava, pytest.mark.slow]

# Of the first seven hundred, those that together have every feature at least twice and cost Lava least.
SEEDS = (
    *(16, 87, 88, 105, 116, 117, 121, 189, 202, 236, 273, 275, 280, 301, 318, 319, 346, 367, 375, 378),
    *(379, 389, 400, 406, 420, 427, 439, 454, 483, 485, 495, 504, 511, 516, 558, 561, 571, 585, 657, 690),
)


@pytest.fixture(scope="module")
def cases():
    return [(f"seed {seed}", seeded_case(seed, QUICK)) for seed in SEEDS]


def test_lava_the_simulator_and_the_reference_agree(cases, tmp_path):
    assert lava.find_lava() is not None, "Lava is missing: run make setup"

    assert LavaRun(cases, tmp_path).differences() == []


def test_the_fixed_set_has_everything_in_it(cases):
    summary = Summary()
    for _, case in cases:
        summary.add(case)

    assert list(summary.hollow(least=2)) == []
    assert summary.busy > 0.85 * summary.layers
    assert summary.silent < 0.1 * summary.layers
    assert summary.spikes > 50_000
