"""Choose each layer's integers: 8-bit weights, thresholds, biases, self-inhibition, so that nothing wraps.

Floating-point weights arrive in units of the neuron's threshold. A scale ``q`` turns them into weight units:
``W = 2 round(q w / 2)``, ``threshold = round(q)``. The larger ``q``, the finer the weights; what bounds it is 8 bits
(``q max|w| <= 254``), the relays (their weight, at most 254, must exceed the threshold), the bias range, and the 24-bit
state: with the largest current or membrane potential seen in calibration ``m`` (in thresholds), ``q m`` stays below
half of 131071.

Reset to zero has one threshold a layer, so one ``q``. Reset by subtraction has one a channel: there the bias does not
integrate (``vDecay`` 4096 makes ``v = u + bias``) but shifts the channel's threshold, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import ConversionError, LimitError
from gascnn.toolkit.lowering import limits
from gascnn.toolkit.lowering.graph import FloatPopulation
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, Neuron, SynapticLayer
from gascnn.toolkit.lowering.plan import LayerPlan
from gascnn.toolkit.lowering.repeater import Repeater, find_repeater

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

HALF_RANGE = limits.STATE_LIMIT_WEIGHT_UNITS // 2
"""Calibration may use half of the state's range; the other half is for images that were not in it."""


@dataclass(frozen=True)
class Scheme:
    """How a network is made integer.

    Attributes:
        reset: ``zero`` or ``subtract``.
        hardware: keep to the chip's documented ranges; else only to what Lava's CPU models hold (32-bit weights of
            convolutions, one threshold a channel).
        shared_output_scale: the last layer has one scale for all neurons, so that their spike counts compare.
        steps: T, for how long the network must run.
    """

    reset: str
    hardware: bool = True
    shared_output_scale: bool = True
    steps: int = 64


@dataclass(frozen=True, eq=False)
class Scales:
    """What was chosen for a layer, for the report.

    Attributes:
        scale: (rows,) weight units that make one threshold; relays excluded (0 there).
        weight_bits: effective bits of the largest weight of each population row, median over the rows.
        headroom: share of the 24-bit state that calibration used, 0..1; None if nothing was measured.
    """

    scale: Floats
    weight_bits: float
    headroom: float | None


def quantise_layer(plan: LayerPlan, scheme: Scheme, *, last: bool, name: str) -> tuple[SynapticLayer, Scales]:
    """Make one layer integer.

    Args:
        plan: floating-point weights in thresholds.
        scheme: the target.
        last: whether its neurons are read out.
        name: of the layer, for messages.

    Raises:
        LimitError: no scale fits the target's ranges.
        ConversionError: neurons that the reset cannot run: relays in a layer whose current has a memory, a start
            above 0 with reset to zero or with a leak.
    """
    rows = population_rows(plan)
    bounds = _upper_bounds(plan, scheme, rows, name)
    if last and scheme.shared_output_scale:
        bounds = np.where(rows, bounds[rows].min(), 0.0)
    if scheme.reset == "subtract":
        return _subtract(plan, scheme, rows, bounds, name)
    return _zero(plan, scheme, rows, bounds, name)


def population_rows(plan: LayerPlan) -> npt.NDArray[np.bool_]:
    """(rows,) which of a layer's rows compute."""
    rows = np.zeros(plan.shape[0], dtype=bool)
    for segment in plan.segments:
        if segment.kind == "population":
            rows[segment.start : segment.stop] = True
    return rows


def _peaks(plan: LayerPlan, which: str) -> Floats | None:
    """(rows,) calibration peaks in thresholds, relays 0; None if any population was never measured."""
    result = np.zeros(plan.shape[0])
    for segment, population in zip(plan.segments, plan.populations, strict=False):
        peak = getattr(population.notes, which)
        if peak is None:
            return None
        result[segment.start : segment.stop] = peak
    return result


def _upper_bounds(plan: LayerPlan, scheme: Scheme, rows: npt.NDArray[np.bool_], name: str) -> Floats:
    """(rows,) largest scale each row can have; 0 for relays."""
    flat = np.abs(plan.weight).reshape(len(plan.weight), -1)
    largest = flat.max(axis=1, initial=0.0)
    bias = np.abs(plan.bias if plan.bias_columns else _direct_bias(plan))
    room = np.full(len(rows), float(limits.THRESHOLD_MAX))
    weight_limit = limits.WEIGHT_MAX if scheme.hardware or plan.geometry is None else limits.WEIGHT_SIMULATOR_MAX
    _lower(room, weight_limit, largest)
    if plan.bias_columns:
        _lower(room, limits.WEIGHT_MAX * len(plan.bias_columns), bias)
    else:
        _lower(room, limits.BIAS_MAX if scheme.hardware else limits.BIAS_SIMULATOR_MAX, bias)
    for which in ("current_peak", "membrane_peak"):
        peaks = _peaks(plan, which)
        if peaks is not None and (which == "current_peak" or scheme.reset == "subtract"):
            _lower(room, HALF_RANGE, peaks)
    if np.any(room[rows] < 2):
        worst = int(np.flatnonzero(rows)[np.argmin(room[rows])])
        raise LimitError(
            f"{name}: neuron channel {worst} has weights up to {largest[worst]:.3g} and a bias of {bias[worst]:.3g} "
            "thresholds; 8-bit weights and a 24-bit state cannot hold both it and its threshold; "
            "train with more weight decay, or convert with fewer steps"
        )
    return np.where(rows, room, 0.0)


def _lower(room: Floats, limit: float, values: Floats) -> None:
    used = values > 0
    room[used] = np.minimum(room[used], limit / values[used])


def _floor(values: Floats) -> Floats:
    """Whole numbers below; 99.99999999999999, which was meant to be 100, counts as 100."""
    result: Floats = np.floor(values * (1 + 1e-12))
    return result


def _multiples(values: Floats, step: int = limits.WEIGHT_STEP) -> Integers:
    """Nearest multiples of ``step``."""
    return (step * np.rint(values / step)).astype(np.int64)


def _direct_bias(plan: LayerPlan) -> Floats:
    """(rows,) what a bias current, given to the membrane potential directly, comes to.

    A current with a memory settles at ``b / (1 - keep)``.
    """
    return plan.bias / (1.0 - plan.populations[0].current_keep)


def integer_weights(
    plan: LayerPlan,
    scale: Floats,
    relay_weights: Integers,
    step: int = limits.WEIGHT_STEP,
    rounded: Callable[[Floats, int], Integers] | None = None,
) -> Integers:
    """A layer's weights, multiples of ``step``: rows times their scale, relays, biases on the always-on columns.

    Args:
        plan: in floating point.
        scale: (rows,) factors; biases times these are spread over the always-on columns.
        relay_weights: (rows,) what each relay is connected with.
        step: 2 for 8-bit weights of mixed sign.
        rounded: gives multiples of a step for the weights of populations; default the nearest.
    """
    weight = (rounded or _multiples)(plan.weight * scale.reshape(-1, *(1,) * (plan.weight.ndim - 1)), step)
    origin = (plan.geometry.tap(0, 0), plan.geometry.tap(1, 0)) if plan.geometry is not None else ()
    for row, column in plan.relays:
        weight[(row, column, *origin)] = relay_weights[row]
    if plan.bias_columns:
        _spread_bias(weight, plan, _multiples(plan.bias * scale, step), origin)
    return weight


def _spread_bias(weight: Integers, plan: LayerPlan, bias: Integers, origin: tuple[int, ...]) -> None:
    """Put each row's bias on as few always-on columns as its size needs."""
    left = bias
    for column in plan.bias_columns:
        part = np.clip(left, limits.WEIGHT_MIN + 2, limits.WEIGHT_MAX)
        taps = weight[:, column]
        if origin:
            taps[:, origin[0], origin[1]] += part
        else:
            taps += part
        left = left - part


# --- reset to zero ---------------------------------------------------------------------------------------------------


def _zero(
    plan: LayerPlan, scheme: Scheme, rows: npt.NDArray[np.bool_], bounds: Floats, name: str
) -> tuple[SynapticLayer, Scales]:
    """One threshold for the layer (one a channel where only the simulator must hold it)."""
    population = plan.populations[0]
    _check_zero(plan, population, name)
    relay_weight = limits.WEIGHT_MAX
    if not scheme.hardware and plan.geometry is not None:
        relay_weight = 2
        scale = _floor(bounds)
        threshold = np.where(rows, scale, 1).astype(np.int64)
        firing = threshold[list(plan.generated)]
    else:
        limit = min(relay_weight * plan.level - 2, limits.THRESHOLD_MAX) if plan.relays else limits.THRESHOLD_MAX
        if plan.generated:
            limit = min(limit, limits.BIAS_MAX - 1)
        shared = min(int(_floor(bounds[rows]).min()), limit)
        scale = np.where(rows, float(shared), 0.0)
        threshold = firing = np.array(shared)
    bias = None
    if plan.generated or (not plan.bias_columns and np.any(plan.bias)):
        bias = np.rint(_direct_bias(plan) * scale).astype(np.int64)
        bias[list(plan.generated)] = firing + 1
    weight = integer_weights(plan, scale, np.full(len(rows), relay_weight))
    neuron = CubaNeuron(
        threshold=threshold,
        current_decay=np.array(_decay(population.current_keep)),
        voltage_decay=np.array(_decay(population.voltage_keep)),
    )
    return built_layer(plan, weight, neuron, bias, None), _scales(plan, rows, scale, "current_peak")


def _check_zero(plan: LayerPlan, population: FloatPopulation, name: str) -> None:
    start = float(_initial(plan).max(initial=0.0))
    if start > 0:
        raise ConversionError(
            f"{name}: its neurons start at {start:g} thresholds, but with reset to zero Lava's start at 0; "
            "convert the network for reset zero"
        )
    if plan.relays and population.current_keep > 0:
        raise ConversionError(
            f"{name}: a skip (or an always-on channel for biases) passes this layer, but its synaptic current has a "
            "memory, so a relay could not answer one spike with one; use neurons without synaptic decay (IF or LIF) "
            "in residual networks, and bias neuron"
        )


def _decay(keep: float) -> int:
    """1/4096 lost a step, from the share kept."""
    return round((1.0 - keep) * limits.DECAY_UNITY)


# --- reset by subtraction --------------------------------------------------------------------------------------------


def _subtract(
    plan: LayerPlan, scheme: Scheme, rows: npt.NDArray[np.bool_], bounds: Floats, name: str
) -> tuple[SynapticLayer, Scales]:
    """Membrane in ``u``; self-inhibition ``k 2^e`` with one e; the firing threshold of each channel by its bias."""
    decay = _decay(plan.populations[0].voltage_keep)
    keep = 1.0 - decay / limits.DECAY_UNITY
    start = _initial(plan)
    _check_subtract(plan, keep, start, name)
    # Firing thresholds must lie within twice the bias range of each other, and of a relay's.
    bounds = np.where(rows, np.minimum(bounds, 2 * limits.BIAS_MAX / np.maximum(1.0 - start, 1e-3)), 0.0)
    exponent, mantissa, repeaters = _self_weights(plan, scheme, bounds[rows] * keep, keep, name)
    self_weight = np.zeros(len(rows), dtype=np.int64)
    self_weight[rows] = mantissa << exponent
    theta = np.where(rows, self_weight / keep, 0.0)
    fire = np.floor(theta * (1.0 - start)).astype(np.int64)
    relay_weights = np.zeros(len(rows), dtype=np.int64)
    for (row, _), repeater in zip(plan.relays, repeaters, strict=True):
        self_weight[row], fire[row], relay_weights[row] = repeater.self_weight, repeater.fire, repeater.weight
    threshold = int((fire.min() + fire.max() + 1) // 2)
    neuron = CubaNeuron(
        threshold=np.array(threshold), current_decay=np.array(decay), voltage_decay=np.array(limits.DECAY_UNITY)
    )
    weight = integer_weights(plan, theta, relay_weights)
    return built_layer(plan, weight, neuron, threshold - fire, self_weight), _scales(plan, rows, theta, "membrane_peak")


def _check_subtract(plan: LayerPlan, keep: float, start: Floats, name: str) -> None:
    if plan.populations[0].current_keep > 0:
        raise ConversionError(f"{name}: reset by subtraction keeps the membrane in the current; use IF or LIF neurons")
    if keep == 0.0:
        raise ConversionError(
            f"{name}: its neurons forget everything in one step, so there is nothing to subtract from; use reset zero"
        )
    if keep < 1.0 and np.any(start):
        raise ConversionError(
            f"{name}: its neurons start at {start.max():g} thresholds and leak; a shifted threshold would not decay; "
            "use an initial membrane of 0"
        )


def _initial(plan: LayerPlan) -> Floats:
    """(rows,) initial membrane as a share of the threshold."""
    result = np.zeros(plan.shape[0])
    for segment, population in zip(plan.segments, plan.populations, strict=False):
        result[segment.start : segment.stop] = population.notes.initial_membrane
    return result


def _self_weights(
    plan: LayerPlan, scheme: Scheme, wanted: Floats, keep: float, name: str
) -> tuple[int, Integers, list[Repeater]]:
    """Exponent e <= 7, mantissas k <= 127 with ``k 2^e <= wanted`` that keep most bits, and what its relays need."""
    best: tuple[float, int, Integers, list[Repeater]] | None = None
    always_on = set(plan.bias_columns)
    levels = [plan.level if column in always_on else 1 for _, column in plan.relays]
    for exponent in range(limits.SELF_WEIGHT_EXPONENT_MAX + 1):
        mantissa = np.minimum(_floor(wanted / (1 << exponent)), limits.SELF_WEIGHT_MANTISSA_MAX).astype(np.int64)
        if mantissa.min() < 1:
            break
        found = {level: find_repeater(keep, exponent, level, scheme.steps) for level in set(levels)}
        repeaters = [repeater for level in levels if (repeater := found[level]) is not None]
        bits = float(np.log2(mantissa.astype(float)).sum() + exponent * len(mantissa))
        if len(repeaters) == len(levels) and (best is None or bits > best[0]):
            best = (bits, exponent, mantissa, repeaters)
    if best is None:
        raise LimitError(
            f"{name}: no self-weight k * 2^e with k <= {limits.SELF_WEIGHT_MANTISSA_MAX} serves thresholds down to "
            f"{wanted.min():.3g} weight units{f' and relays over {scheme.steps} steps' if levels else ''}; "
            "train with more weight decay, or use fewer steps"
        )
    return best[1:]


def built_layer(
    plan: LayerPlan, weight: Integers, neuron: Neuron, bias: Integers | None, self_weight: Integers | None
) -> SynapticLayer:
    """The layer of a plan with its numbers."""
    if plan.geometry is None:
        return DenseLayer(
            shape=plan.shape,
            weight=weight,
            neuron=neuron,
            flatten=plan.flatten,
            bias=bias,
            self_weight=self_weight,
            segments=plan.segments,
        )
    geometry = plan.geometry
    return ConvLayer(
        shape=plan.shape,
        weight=weight,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        neuron=neuron,
        bias=bias,
        self_weight=self_weight,
        segments=plan.segments,
    )


def _scales(plan: LayerPlan, rows: npt.NDArray[np.bool_], scale: Floats, which: str) -> Scales:
    largest = np.abs(plan.weight).reshape(len(plan.weight), -1).max(axis=1, initial=0.0)[rows] * scale[rows]
    bits = np.log2(np.maximum(largest, 1.0))
    peaks = _peaks(plan, which)
    used = None if peaks is None else float((peaks * scale).max()) / limits.STATE_LIMIT_WEIGHT_UNITS
    return Scales(scale=scale, weight_bits=float(np.median(bits)), headroom=used)
