"""Checks of a network that is to run and of what is fed to it, shared by all backends."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gascnn.toolkit.errors import DataError, LimitError, UsageError
from gascnn.toolkit.lowering.limits import (
    DECAY_UNITY,
    DELAY_MAX,
    MESSAGE_BITS_MAX,
    SIGMA_DELTA_SHIFT,
    STATE_LIMIT,
    STATE_LIMIT_WEIGHT_UNITS,
)
from gascnn.toolkit.lowering.network import (
    DenseLayer,
    NetxNetwork,
    Neuron,
    SigmaDeltaNeuron,
    SynapticLayer,
    layer_label,
)
from gascnn.toolkit.lowering.rules import check_structure


def checked_spikes(
    network: NetxNetwork, spikes: npt.NDArray[np.generic], steps: int | None = None
) -> npt.NDArray[np.uint8]:
    """Spikes as every backend takes them: (image, T, ...) uint8 with the network's full input shape.

    Args:
        network: gives the shape, the constant channels and whether integers are allowed.
        spikes: (image, step, ...); the constant channels may be left out and are then added, always on.
        steps: T; fewer steps than given are cut off; missing ones are silent, or, where input neurons send changes,
            the last one again.

    Raises:
        UsageError: ``steps`` is below 1.
        DataError: no images, another shape or kind, NaN, or values out of range.
        FormatError, LimitError: see :func:`check_runnable`.
    """
    check_runnable(network)
    if steps is not None and steps < 1:
        raise UsageError(f"steps is {steps}; it must be at least 1")
    values = np.asarray(spikes)
    shape, constant = network.input_shape, network.constant_channels
    bare = (shape[0] - constant, *shape[1:])
    if values.ndim < 3 or values.shape[0] < 1 or values.shape[1] < 1:
        raise DataError(f"spikes have shape {values.shape}; expected (image, step, {', '.join(map(str, bare))})")
    if values.shape[2:] not in (shape, bare):
        if len(shape) == 1 and values[0, 0].size == shape[0]:
            values = values.reshape(*values.shape[:2], *shape)
        else:
            raise DataError(f"spikes of one step have shape {values.shape[2:]}; this network takes {bare}")
    values = _integers(values, network)
    wanted = steps if steps is not None else values.shape[1]
    result = np.zeros((values.shape[0], wanted, *shape), dtype=np.uint8)
    filled = min(wanted, values.shape[1])
    if values.shape[2:] == shape:
        result[:, :filled] = values[:, :filled]
    else:
        result[:, :filled, : bare[0]] = values[:, :filled]
        result[:, :, bare[0] :] = network.constant_level
    if network.holds_input:
        result[:, filled:] = result[:, filled - 1 : filled]
    return result


def check_runnable(network: NetxNetwork) -> None:
    """Refuse a network that Lava could not build, or whose numbers it would turn into others.

    A file that was read fulfils most of this already; networks made by hand need not. What depends on the sums of a
    layer's weights is checked where they are laid out.

    Raises:
        FormatError: layers or parameters that do not fit together.
        LimitError: a decay, threshold, delay, self-weight or the message bits out of range.
    """
    check_structure(network)
    if not 0 <= network.input_bits <= MESSAGE_BITS_MAX:
        raise LimitError(f"input_bits is {network.input_bits}; it must be 0..{MESSAGE_BITS_MAX}")
    if network.input.neuron is not None:
        _check_neuron(network.input.neuron, "the input's neurons")
        for value in _parameters(network.input.neuron).values():
            if np.shape(value) not in ((), network.input_shape[:1]):
                raise LimitError(
                    f"a parameter of the input's neurons has shape {np.shape(value)}; expected one a channel"
                )
    for index, layer in enumerate(network.layers):
        label = layer_label(network, index)
        _check_neuron(layer.neuron, label)
        _check_synapses(layer, label)


def _parameters(neuron: Neuron) -> dict[str, npt.NDArray[np.integer]]:
    if isinstance(neuron, SigmaDeltaNeuron):
        return {"threshold": neuron.threshold}
    return {"threshold": neuron.threshold, "iDecay": neuron.current_decay, "vDecay": neuron.voltage_decay}


def _check_neuron(neuron: Neuron, label: str) -> None:
    for name, value in _parameters(neuron).items():
        if name != "threshold" and (np.min(value) < 0 or np.max(value) > DECAY_UNITY):
            raise LimitError(f"{label}: {name} {np.min(value)}..{np.max(value)}; 0..{DECAY_UNITY}; correct it")
    low, high, most = int(np.min(neuron.threshold)), int(np.max(neuron.threshold)), STATE_LIMIT_WEIGHT_UNITS + 1
    if isinstance(neuron, SigmaDeltaNeuron):
        most = (2**31 - 1) >> SIGMA_DELTA_SHIFT
        if low < 0 or high > most:
            raise LimitError(f"{label}: threshold {low}..{high}; 0..{most}, which Lava holds in 32 bits; use that")
    elif low < -most or high > most:
        raise LimitError(f"{label}: threshold {low}..{high}; +-{most}, which always or never spikes; use that")


def _check_synapses(layer: SynapticLayer, label: str) -> None:
    if layer.self_weight is not None and layer.self_weight.max() >= STATE_LIMIT:
        raise LimitError(
            f"{label}: self_weight {layer.self_weight.max()}; below {STATE_LIMIT} (Lava wraps it at 24 bits); "
            "lower the layer's integer scale"
        )
    if not isinstance(layer, DenseLayer):
        return
    if layer.weight_rec is not None and layer.weight_rec.shape != (*layer.shape, *layer.shape):
        raise LimitError(
            f"{label}: weight_rec has shape {layer.weight_rec.shape}; {(*layer.shape, *layer.shape)}; correct it"
        )
    if layer.delay is None:
        return
    if layer.delay.shape != layer.weight.shape:
        raise LimitError(f"{label}: delay has shape {layer.delay.shape}; {layer.weight.shape}; give one a synapse")
    if layer.delay.min() < 0 or layer.delay.max() > DELAY_MAX:
        raise LimitError(f"{label}: delays {layer.delay.min()}..{layer.delay.max()}; 0..{DELAY_MAX}; correct them")


def _integers(values: npt.NDArray[np.generic], network: NetxNetwork) -> npt.NDArray[np.uint8]:
    largest = 255 if network.input_bits or network.input.neuron is not None else 1
    if network.input_bits:
        largest = min(largest, 2**network.input_bits - 1)
    if values.dtype.kind not in "biuf":
        raise DataError(f"spikes have type {values.dtype}; expected integers 0..{largest}")
    if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
        raise DataError(f"spikes hold NaN or infinity; expected integers 0..{largest}")
    if values.dtype.kind != "b" and (values.min() < 0 or values.max() > largest or np.any(values != np.trunc(values))):
        kind = "graded input" if largest > 1 else "spikes"
        raise DataError(f"{kind} must be integers 0..{largest}; found {values.min()}..{values.max()}")
    return values.astype(np.uint8)
