"""Read the neurons of a NetX file as Lava itself would."""

from __future__ import annotations

import numpy as np

from gascnn.exporters.netx.fields import Fields
from gascnn.toolkit.lowering.limits import SIGMA_DELTA_SHIFT, STATE_LIMIT_WEIGHT_UNITS, STATE_SHIFT
from gascnn.toolkit.lowering.network import CubaNeuron, Neuron, SigmaDeltaNeuron

_INT32 = 1 << 31


def read_neuron(fields: Fields) -> Neuron:
    """A layer's neurons from its group ``neuron``.

    Raises:
        FormatError: a type that is not supported, numbers with which Lava cannot compute.
    """
    kind = fields.text("type")
    if kind not in ("CUBA", "LOIHI", "SDNN"):
        raise fields.error(f"neuron type {kind} is not supported; supported: CUBA, LOIHI, SDNN")
    if fields.has("messageBits"):
        raise fields.error("messageBits cannot be loaded by NetX itself; remove it and give the input bits instead")
    return _read_sigma_delta(fields) if kind == "SDNN" else _read_cuba(fields)


def _read_threshold(fields: Fields, shift: int) -> np.ndarray:
    """The threshold; Lava shifts it in the type it is stored in."""
    stored, value = fields.array("vThMant"), fields.whole("vThMant")
    if stored.ndim > 0 and stored.dtype.kind in "iu":
        held = np.iinfo(stored.dtype)
        if int(value.min()) << shift < held.min or int(value.max()) << shift > held.max:
            raise fields.error(
                f"vThMant up to {np.abs(value).max()} is stored as {stored.dtype}, in which Lava's shift by "
                f"{shift} bits overflows; store it as int64"
            )
    return value


def _read_sigma_delta(fields: Fields) -> SigmaDeltaNeuron:
    if fields.has("sigma_output"):  # NetX asks whether it is there, not what it says
        return SigmaDeltaNeuron(read_out=True)
    threshold = _read_threshold(fields, SIGMA_DELTA_SHIFT)
    most = (_INT32 - 1) >> SIGMA_DELTA_SHIFT
    if threshold.min() < 0 or threshold.max() > most:
        raise fields.error(
            f"vThMant is {threshold.min()}..{threshold.max()}; with neuron type SDNN Lava holds 0..{most}; lower it"
        )
    return SigmaDeltaNeuron(threshold)


def _read_cuba(fields: Fields) -> CubaNeuron:
    beyond = STATE_LIMIT_WEIGHT_UNITS + 1  # beyond the states its size means nothing
    neuron = CubaNeuron(
        threshold=_read_threshold(fields, STATE_SHIFT).clip(-beyond, beyond),
        current_decay=fields.whole("iDecay"),
        voltage_decay=fields.whole("vDecay"),
    )
    for name in ("vThMant", "iDecay", "vDecay"):
        stored = fields.array(name).dtype
        if stored.kind == "f" or stored == np.uint64:
            raise fields.error(f"{name} is stored as {stored}, with which Lava cannot compute; store it as int64")
    for name, value in (("iDecay", neuron.current_decay), ("vDecay", neuron.voltage_decay)):
        if np.any(value < 0) or np.any(value > 4096):
            raise fields.error(f"{name} must be 0..4096; found {value.min()}..{value.max()}")
    return neuron
