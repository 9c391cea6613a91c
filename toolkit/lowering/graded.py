"""Graded input: the first layer multiplies the pixel itself, an integer of a few bits, instead of a spike.

A pixel of b bits is ``2^b - 1`` times what a spike is, so the first layer's weights are divided by that, and have to
be held in what is left below the scale that the 24-bit state allows. Reset to zero leaves room for 8 bits of both.
Reset by subtraction keeps its membrane potential in the current ``u``, where drifts over T steps take most of it:
there fewer bits a pixel give the better network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gascnn.toolkit.errors import ConversionError, LimitError
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.graph import INPUT, SpikeGraph
from gascnn.toolkit.lowering.plan import LayerPlan, population_depths

FEWEST_BITS = 2


def check_graded(graph: SpikeGraph) -> None:
    """Refuse graphs whose pixels would have to be relayed.

    Raises:
        ConversionError: a skip from the input.
    """
    depth = population_depths(graph)
    for population in graph.populations:
        if depth[population.name] > 1 and any(p.source == INPUT for p in population.paths):
            raise ConversionError(f"{population.name}: a skip from graded input; relays repeat spikes only; use spikes")


def graded(plan: LayerPlan, bits: int, from_input: bool) -> LayerPlan:
    """The first layer for pixels 0..``2^bits - 1`` where its weights were for intensities 0..1.

    Args:
        plan: the first layer.
        bits: of a pixel.
        from_input: whether its biases are weights too, from planes of the input that hold the largest pixel.
    """
    largest = 2**bits - 1
    bias = plan.bias / largest if from_input else plan.bias
    return replace(plan, weight=plan.weight / largest, bias=bias, level=largest if from_input else 1)


def choose_bits(weight_bits: Callable[[int], float]) -> int:
    """Bits of a pixel that lose least: the most for which neither pixels nor weights are the coarser ones.

    Args:
        weight_bits: bits that weights have at so many bits a pixel.

    Raises:
        LimitError: what ``weight_bits`` raises, if it does so even at the fewest bits.
    """
    best, best_bits = -1.0, FEWEST_BITS
    refused: LimitError | None = None
    for bits in range(limits.GRADED_INPUT_BITS, FEWEST_BITS - 1, -1):
        try:
            coarser = min(float(bits), weight_bits(bits) - 1.0)  # weights are even: one bit says nothing
        except LimitError as error:
            refused = error
            continue
        if coarser > best:
            best, best_bits = coarser, bits
    if best < 0 and refused is not None:
        raise refused
    return best_bits
