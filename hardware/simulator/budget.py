"""What results take, and the refusal where a memory limit leaves too little; for the fast and the plain version."""

from __future__ import annotations

import math

from gascnn.toolkit.errors import LimitError
from gascnn.toolkit.lowering.network import NetxNetwork


def result_bytes(network: NetxNetwork, images: int, steps: int, every_spike: bool) -> int:
    """What the results of a run take.

    Args:
        network: what runs.
        images: in all.
        steps: T + K.
        every_spike: whether spikes are kept, or only counts.
    """
    sizes = [math.prod(layer.shape) for layer in network.layers]
    counts, read_out = 4, 4 + 8
    return images * ((counts + (steps if every_spike else 0)) * sum(sizes) + read_out * sizes[-1])


def too_little(need: int, steps: int, room: int) -> LimitError:
    """The error where one image does not fit.

    Args:
        need: bytes one image takes.
        steps: that it takes them for.
        room: bytes there are.
    """
    return LimitError(
        f"one image of this network needs {_mib(need)} MiB for {steps} steps at once; "
        f"{_mib(max(room, 0))} MiB are left beside what this process holds already; allow more memory"
    )


def _mib(size: int) -> int:
    return math.ceil(size / (1 << 20))
