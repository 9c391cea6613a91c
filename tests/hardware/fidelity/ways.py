"""Every way of running the simulator that must not change a bit."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from gascnn.hardware.simulator import METHODS, memory, simulate

_SHORT_WINDOW = 8
"""Steps; the shortest the simulator cuts a run into."""


@dataclass(frozen=True)
class Way:
    """Keywords of ``simulate``, and whether it must cut the run into single images and short windows of steps.

    A limit of memory would cut such small networks as the suite's only if it were below what the process holds anyway.
    """

    keywords: dict[str, Any] = field(default_factory=dict)
    cut: bool = False

    def __str__(self) -> str:
        words = [f"{name} {value}" for name, value in self.keywords.items()]
        return ", ".join(words + (["in pieces"] if self.cut else []))


WAYS = (
    *(Way({"method": method, "threads": 1}) for method in METHODS),
    Way({"method": "auto", "threads": 2}),
    Way({"method": "events", "threads": 2}, cut=True),
    Way({"method": "dense", "threads": 1}, cut=True),
)


def simulated(case, way=WAYS[0], network=None):
    """The simulator's result.

    Args:
        case: what to run.
        way: how.
        network: in the place of the case's, as read from a file of it.
    """
    with ExitStack() as cut:
        if way.cut:
            cut.enter_context(mock.patch.object(memory, "_STEPS_AT_ONCE", _SHORT_WINDOW))
            cut.enter_context(mock.patch.object(memory, "_NEURON_STEPS", 1))
        return simulate(
            network or case.network,
            case.spikes,
            steps=case.steps,
            skip_steps=case.skip_steps,
            record=case.record,
            **way.keywords,
        )
