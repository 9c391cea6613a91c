"""The chip's probes, as the benchmark tutorial uses them; their figures are fixed and there after a run, not before.

The chip's runtime service calls the probes of a run configuration before and after each run; here the wrapped compiler
and runtime do.
"""

from typing import ClassVar

import numpy as np
from lava.magma.compiler.compiler import Compiler
from lava.magma.core.callback_fx import NxSdkCallbackFx
from lava.magma.runtime.runtime import Runtime


class _Probe(NxSdkCallbackFx):
    figures: ClassVar[dict] = {}

    def __init__(self):
        super().__init__()
        self.runs = 0

    def pre_run_callback(self, board=None, var_id_to_var_model_map=None):
        self.runs += 1
        if self.runs > 1:
            raise RuntimeError("a probe takes one run")

    def post_run_callback(self, board=None, var_id_to_var_model_map=None):
        for name, value in self.figures.items():
            setattr(self, name, value)


class Loihi2ExecutionTime(_Probe):
    """Microseconds."""

    figures: ClassVar[dict] = {
        "execution_time_per_step": np.array([10.0, 12.0, 14.0]),
        "avg_time_per_step": np.float64(12.0),
    }


class Loihi2Power(_Probe):
    """Watts."""

    figures: ClassVar[dict] = {
        "total_power": np.array([1.0, 1.5]),
        "vdd_power": np.array([0.25, 0.75]),
        "vddm_power": np.array([0.5, 0.5]),
        "vddio_power": np.array([0.125, 0.125]),
        "static_total_power": 0.8,
        "static_vdd_power": 0.2,
        "static_vddm_power": 0.4,
        "static_vddio_power": 0.08,
    }

    def __init__(self, num_steps):
        super().__init__()
        self.num_steps = num_steps


class Loihi2Activity(_Probe):
    """Counts a core."""

    figures: ClassVar[dict] = {
        "core_idx": np.array([0, 1]),
        "syn_ops": np.array([100, 200]),
        "dendrite_updates": np.array([30, 40]),
        "axon_out": np.array([5, 6]),
        "spikes_in": np.array([7, 8]),
    }


class Loihi2Memory(_Probe):
    """Used / total."""

    figures: ClassVar[dict] = {"core_idx": np.array([0, 1]), "total_mpds": np.array([0.5, 0.25])}


_asked = []


def _compile(self, process, run_cfg, original=Compiler.compile):
    _asked[:] = run_cfg.callback_fxs
    return original(self, process, run_cfg)


def _start(self, condition, original=Runtime.start):
    for probe in _asked:
        probe.pre_run_callback()
    original(self, condition)
    for probe in _asked:
        probe.post_run_callback()


Compiler.compile = _compile
Runtime.start = _start
