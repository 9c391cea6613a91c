"""Run cases in the real Lava and in the simulator, and compare both with the reference."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from pathlib import Path

from fidelity.comparison import first_difference
from fidelity.foreign import write_foreign
from fidelity.ways import WAYS, simulated

from gascnn.exporters.netx import read_netx
from gascnn.hardware import lava
from gascnn.hardware.lava.jobs import Task


def simulator_difference(case, network=None):
    """The first difference between the reference and any way of running the simulator, or None.

    Args:
        case: what to run.
        network: in the place of the case's, as read from a file of it.
    """
    for way in WAYS:
        difference = first_difference(case, simulated(case, way, network), case.record, "simulator")
        if difference is not None:
            return f"{difference} ({way})"
    return None


class LavaRun:
    """Cases to be run in one start of Lava.

    Args:
        cases: (name, case) pairs.
        folder: for the files of other programs.
        models: ``stock`` for Lava's own process models, ``fast`` for this package's.
    """

    def __init__(self, cases, folder, models="stock"):
        self._cases, self._models = cases, models
        self._networks, self._tasks = {}, []
        for number, (name, case) in enumerate(cases):
            self._networks[name] = case.network
            self._tasks.append(self._task(name, case, Path(folder) / f"{number}.net"))

    def _task(self, name, case, path):
        # Lava records everything, whatever the simulator is asked for.
        settings = {"steps": case.steps, "skip_steps": case.skip_steps, "record": "spikes"}
        settings["stock_models"] = self._models == "stock"
        if not case.foreign:
            return Task(case.network, case.spikes, **settings)
        reading = write_foreign(case.network, path, case.spelling)
        with _no_warnings():
            self._networks[name] = read_netx(path, **reading)
        return Task(path, case.spikes, **settings, **reading)

    def differences(self):
        """Every case that differs, as (name, what differs first) pairs; Lava's come first, for Lava is right.

        Raises:
            GascnnError: Lava refused or did not survive one of them; the message has its number.
        """
        found = []
        with _no_warnings():
            results = lava.run_many(self._tasks)
        for (name, case), result in zip(self._cases, results, strict=True):
            assert result.models == self._models or result.why_stock is not None, f"{name}: {result.models} models ran"
            difference = first_difference(case, result, "spikes", "Lava")
            difference = difference or simulator_difference(case, self._networks[name])
            if difference is not None:
                found.append((name, difference))
        return found


@contextmanager
def _no_warnings():
    """Without those about delays of convolutions, which Lava ignores."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[\\s\\S]*Lava ignores the delay of a convolution")
        yield
