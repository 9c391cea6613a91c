"""How long an answer takes: a race of the ANN and the spiking network, and accuracy against the step of the answer.

- :func:`race` times :class:`Contender` records made by ``ann_in_torch``, ``ann_in_onnxruntime``, ``snn_in_simulator``,
  ``snn_in_lava`` and ``snn_on_loihi``; each of these gives :class:`Unavailable` where it cannot run here;
- :func:`decision_curve` tells what the answer would be if the run were stopped at step t.

numpy and h5py are enough to import it: torch, onnxruntime and numba are looked for when a contender is made.
"""

from gascnn.benchmarks.latency.contender import Contender, Timed, Unavailable
from gascnn.benchmarks.latency.curve import decision_curve
from gascnn.benchmarks.latency.makers import (
    ann_in_onnxruntime,
    ann_in_torch,
    snn_in_lava,
    snn_in_simulator,
    snn_on_loihi,
)
from gascnn.benchmarks.latency.race import race

__all__ = [
    "Contender",
    "Timed",
    "Unavailable",
    "ann_in_onnxruntime",
    "ann_in_torch",
    "decision_curve",
    "race",
    "snn_in_lava",
    "snn_in_simulator",
    "snn_on_loihi",
]
