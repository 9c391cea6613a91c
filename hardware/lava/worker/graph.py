"""What a Lava graph of a deployed network consists of, however it was built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Process = Any
Port = Any


@dataclass(frozen=True)
class Graph:
    """A network, ready to be fed and tapped.

    Attributes:
        entry: the port that receives the input.
        neurons: the neuron process of each synaptic layer.
        owner: what must be kept alive while the graph runs.
    """

    entry: Port
    neurons: list[Process]
    owner: object
