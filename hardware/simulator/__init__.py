"""Bit-exact simulation of NetX networks: every spike Lava's fixed-point CPU models would give, whole batches at once.

Dynamics, with 0-based steps ``t``, layers ``k`` from 1, ``s_0`` the input (``docs/netx.md`` has the derivation)::

    a_k[t] = W_k s_{k-1}[t-1]                one step of delay a synaptic layer; a_k[0] = 0
    u[t]   = wrap24(rtz(u[t-1] (4096 - iDecay)) + 64 a_k[t])
    v[t]   = clip(rtz(v[t-1] (4096 - vDecay)) + u[t] + 64 bias)
    s_k[t] = v[t] > 64 vThMant, then v[t] = 0

and, for reset by subtraction, ``a_k[t] -= theta s_k[t-1]``.
"""

from gascnn.hardware.simulator.engine import METHODS, Simulator, simulate

__all__ = ["METHODS", "Simulator", "simulate"]
