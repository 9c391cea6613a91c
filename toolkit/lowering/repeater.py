"""Relay neurons under reset by subtraction: numbers with which every spike is answered by exactly one, a step later.

A relay's current follows ``u[t] = keep u[t-1] + w level x[t-1] - s spike[t-1]``. Without a leak ``s = w`` leaves
nothing behind. With one, ``s`` can only come close to ``keep w``, since it is ``k 2^e`` with the layer's exponent
``e``; each spike then leaves ``keep w - s``, and what has piled up must never reach half of ``w``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gascnn.toolkit.lowering import limits


@dataclass(frozen=True)
class Repeater:
    """A relay's numbers, in weight units.

    Attributes:
        weight: of the synapse from what is repeated.
        self_weight: what the relay subtracts from itself one step after a spike.
        fire: it spikes where its current is above this.
    """

    weight: int
    self_weight: int
    fire: int


def find_repeater(keep: float, exponent: int, level: int, steps: int) -> Repeater | None:
    """The relay that piles up least, or None if every one would fail within the run.

    Args:
        keep: share of the current kept each step, above 0 and at most 1.
        exponent: e of the layer's self-weights ``k 2^e``, k at most 127.
        level: what the repeated input holds where it is not 0: 1 for spikes, 255 for an always-on plane of graded
            input. The latter may leave something behind as long as it is positive and nothing wraps: such a relay
            never has to be silent while the input lasts.
        steps: T, for how long this must hold.
    """
    best: tuple[float, Repeater] | None = None
    lasting = steps if keep == 1.0 else min(steps, 1.0 / (1.0 - keep))
    rounding = 0.0 if keep == 1.0 else 2.0**-limits.STATE_SHIFT
    for weight in range(limits.WEIGHT_STEP, limits.WEIGHT_MAX + 1, limits.WEIGHT_STEP):
        wanted = keep * weight * level
        mantissa = math.floor(wanted / (1 << exponent)) if level > 1 else round(wanted / (1 << exponent))
        if not 1 <= mantissa <= limits.SELF_WEIGHT_MANTISSA_MAX:
            continue
        left = (abs(wanted - (mantissa << exponent)) + rounding) * lasting
        enough = left <= limits.STATE_LIMIT_WEIGHT_UNITS // 2 if level > 1 else left < weight / 2
        if enough and (best is None or left / weight < best[0]):
            best = (left / weight, Repeater(weight, mantissa << exponent, weight // 2))
    return None if best is None else best[1]
