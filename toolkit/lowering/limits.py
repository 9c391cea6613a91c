"""What the target can hold: every number of the chip and of Lava's CPU models that checks, reports and tests use.

Sources: Lava 0.10.0 and lava-dl 0.6.0 as released (``lava/proc/lif/models.py``, ``lava/proc/conv/models.py``,
``lava/utils/weightutils.py``, ``lava/lib/dl/netx``), and the hardware ranges their docstrings document for Loihi.
Weight units: a membrane potential of ``64 * w`` follows from one spike over a weight ``w``; thresholds and biases
are stored in the same unit.
"""

from __future__ import annotations

STATE_BITS = 24
"""Bits of the current ``u`` (wraps) and of the membrane potential ``v`` (saturates)."""

STATE_SHIFT = 6
"""Synaptic sums, biases and thresholds are shifted left by this before they meet the state."""

STATE_LIMIT = 1 << (STATE_BITS - 1)
"""2^23: ``u`` lives in (-2^23, 2^23], ``v`` in [-2^23 + 1, 2^23 - 1]."""

STATE_LIMIT_WEIGHT_UNITS = (STATE_LIMIT - 1) >> STATE_SHIFT
"""131071: the largest ``u`` or ``v`` in weight units."""

DECAY_UNITY = 1 << 12
"""Decays are stored in 1/4096: 0 keeps everything, 4096 forgets everything."""

WEIGHT_MIN, WEIGHT_MAX, WEIGHT_STEP = -256, 254, 2
"""8-bit weights of mixed sign: even integers (``lava/utils/weightutils.py``)."""

WEIGHT_BITS = 8

WEIGHT_SIMULATOR_MAX = 1 << 15
"""What is used of the 32 bits that Lava's CPU model of a convolution holds."""

THRESHOLD_MAX = (1 << 17) - 1
"""vThMant has 17 bits; from 131072 on a neuron never spikes."""

BIAS_MAX = (1 << 12) - 1
"""Hardware bias mantissa: 13 bits with sign, here taken symmetric (-4095..4095)."""

BIAS_SIMULATOR_MAX = (1 << 15) - 1
"""Lava's CPU model stores the bias mantissa as int16 and wraps beyond it."""

SELF_WEIGHT_MANTISSA_MAX = 127
SELF_WEIGHT_EXPONENT_MAX = 7
"""Self-inhibition -theta is stored as -k * 2^e with k <= 127, one exponent e (at most 7) for a layer."""

GROUPS_MAX = 127
"""Lava stores ``groups`` and the kernel's geometry as int8: 128 groups give silence, 200 hang the simulator."""

GEOMETRY_MAX = 127

DELAY_MAX = 62
"""NetX clips synaptic delays of dense layers here; delays of convolutions are ignored silently."""

MESSAGE_BITS_MAX = 16
GRADED_INPUT_BITS = 8
"""Pixels given as graded spikes are integers 0..255."""

MESSAGE_EXPONENT = 6
"""Fraction bits of a sigma-delta message (``spike_exp`` of NetX's ``Network``, its default)."""

SIGMA_DELTA_SHIFT = 12
"""Fraction bits of sigma-delta states: those of a message and NetX's fixed ``state_exp`` of 6."""

MESSAGE_UNIT = 1 << MESSAGE_EXPONENT
"""A message of 64 is an activation of 1; a weight of 64 passes a message on as it is."""

MESSAGE_MAX = (1 << (MESSAGE_BITS_MAX - 1)) - 1
"""Messages have 16 bits with sign (what NetX asks for); Lava's CPU models hold 32 and do not check."""

SIGMA_DELTA_STATE_LIMIT = 1 << 23
"""Sigma-delta states have 24 bits with sign; Lava's CPU models hold 32 and do not check."""

SIGMA_DELTA_THRESHOLD_MAX = (SIGMA_DELTA_STATE_LIMIT - 1) >> SIGMA_DELTA_SHIFT
"""2047: the largest threshold, or bias, whose scaled value is a 24-bit state."""

SIGMA_DELTA_BIAS_LEVEL = 32
"""What always-on planes hold in sigma-delta networks: a weight from one is a bias of half as many activations."""

CONV_ACCUMULATOR_BITS = 24
"""Lava's fixed-point convolution wraps its sums at 24 bits."""
