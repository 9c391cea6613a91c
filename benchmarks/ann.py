"""The ANN of a benchmark: what the same network is without spikes, told node by node to whoever builds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AnnNode:
    """One operation.

    Attributes:
        name: of its result.
        kind: ``conv``, ``dense`` (flattens what comes in), ``add`` or ``average`` (over all positions).
        inputs: names of what it takes; ``input`` is the network's.
        weight: (C, C_in, k, k) or (N, M) float32 of ``conv`` and ``dense``.
        stride, padding: of ``conv``, both axes.
        relu: whether a ReLU follows.
    """

    name: str
    kind: Literal["conv", "dense", "add", "average"]
    inputs: tuple[str, ...]
    weight: Floats | None = None
    stride: int = 1
    padding: int = 0
    relu: bool = True


def he_scaled(normal: npt.NDArray[np.float64]) -> Floats:
    """Standard normal numbers as weights that keep the size of activations: sqrt(2 / fan-in), K. He et al. 2015."""
    fan_in = math.prod(normal.shape[1:])
    return (normal * math.sqrt(2 / fan_in)).astype(np.float32)
