"""Our simulator, and the real Lava through our supervisor, in a process of their own like every other contender."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from gascnn.exporters.netx import read_netx
from gascnn.hardware import lava
from gascnn.hardware.lava.environment import require_lava
from gascnn.hardware.simulator import Simulator

METHODS = {
    "ours": "auto",
    "ours-1-thread": "auto",
    "ours-plain": "plain",
    "ours-events": "events",
    "ours-dense": "dense",
}
"""The simulator's method for each contender of ours."""


def load(name: str, plan: Path, threads: int) -> Any:
    """The contender of that name, its network read."""
    description = json.loads(plan.read_text())
    network = read_netx(plan.parent / description["network"])
    spikes = np.load(plan.parent / description["input"])
    return Lava(network, spikes) if name == "lava" else Ours(network, spikes, METHODS[name], threads)


class Ours:
    """The simulator; its weights are laid out once, as the peers' are.

    Args:
        network: integers.
        spikes: (image, T, ...).
        method: of the simulator.
        threads: at most so many.
    """

    def __init__(self, network: Any, spikes: Any, method: str, threads: int) -> None:
        self._simulator = Simulator(network, method=method, threads=threads)
        self._spikes = spikes
        self.options = (method,)
        self.versions = _versions("gascnn", "numpy", "numba")

    def prepare(self, option: str, images: int) -> Callable[[], None]:
        """Counts of every layer are made: nothing less can be asked of the simulator."""
        del option
        return lambda: _done(self._simulator.run(self._spikes[:images]))

    def counts(self, images: int) -> list[Any]:
        """Each layer's spikes of every neuron, (image, ...)."""
        return list(self._simulator.run(self._spikes[:images]).counts)


class Lava:
    """Lava's own process models, one image at a time; the start of its interpreter and of its graph does not count.

    Args:
        network: integers.
        spikes: (image, T, ...).
    """

    options = ("stock models",)

    def __init__(self, network: Any, spikes: Any) -> None:
        environment = require_lava()
        self._network, self._spikes = network, spikes
        self._checked: Any = None
        self.versions = {"lava-nc": environment.lava_nc, "lava-dl": environment.lava_dl}

    @property
    def peak_bytes(self) -> int:
        """Memory of the largest of Lava's processes; there is one for each layer."""
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024

    def prepare(self, option: str, images: int) -> Callable[[], float]:
        """Run, and give the time Lava took from the first step to the final state.

        The run whose spikes were checked is the first of them: each takes minutes.
        """
        del option
        return lambda: sum(self._run(images).image_s)

    def counts(self, images: int) -> list[Any]:
        """Each layer's spikes of every neuron, (image, ...)."""
        self._checked = self._run(images)
        return list(self._checked.counts)

    def _run(self, images: int) -> Any:
        done, self._checked = self._checked, None
        if done is not None and done.images == images:
            return done
        return lava.run(self._network, self._spikes[:images], record="counts", stock_models=True)


def _done(result: Any) -> None:
    del result


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
