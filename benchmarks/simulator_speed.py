"""The race of ``gascnn bench simulator``: every contender runs the same network on the same spikes, in turns.

Each contender is one process from beginning to end. First all run the first image and tell each layer's spike counts,
which must be equal where the neuron is the same. Then each tries its options and numbers of images at once, and keeps
what is fastest an image. Then come the rounds that count: in each, every contender runs once, at its best and at one
image at once, and the order moves on by one. Medians over the rounds, and ratios taken within a round, are what is
given: what slows the machine for a while then slows both sides.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gascnn.benchmarks.child import Child
from gascnn.benchmarks.contenders import Contender, LeftOut
from gascnn.benchmarks.networks import BenchNetwork
from gascnn.benchmarks.plan import write_plan
from gascnn.benchmarks.ratios import Goal, goals, median
from gascnn.hardware.result import population_rates
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.errors import BackendError, UsageError

Say = Callable[[str], None]

FORMAT = 1
"""Of the JSON; counts up when a key changes its meaning."""

_PAUSE_S = 0.05
"""Between two contenders: threads of the one before that still wait by spinning come to rest."""

_TUNING_SHARE = 0.5
_IMAGES_CHECKED = 1


@dataclass(frozen=True)
class Race:
    """How it is run.

    Attributes:
        rounds: that count.
        threads: of every contender.
        images_at_once: which numbers of images each may try; 1 is always among them.
        lava_rounds: rounds Lava takes part in; one takes minutes.
        at_least_s: how long a contender runs in a round.
        python: the peers' interpreter.
        compile_peers: whether the frameworks on torch also try torch's compiler: minutes for each network.
        time_limit_s: for one answer of a contender.
    """

    rounds: int = 5
    threads: int = 2
    images_at_once: tuple[int, ...] = (1, 4, 8, 64)
    lava_rounds: int = 1
    at_least_s: float = 0.3
    python: Path | None = None
    compile_peers: bool = False
    time_limit_s: float = 3600.0

    def check(self) -> None:
        """Refuse numbers that make no race.

        Raises:
            UsageError: names the number.
        """
        for name in ("rounds", "threads", "lava_rounds"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.at_least_s <= 0:
            raise UsageError(f"at_least_s is {self.at_least_s}; it must be above 0")
        if not self.images_at_once or min(self.images_at_once) < 1:
            raise UsageError(f"images at once are {self.images_at_once}; each must be at least 1")


@dataclass
class _Runner:
    """A contender in the race, and what it did."""

    child: Child
    layers: list[dict[str, Any]]
    option: dict[str, str] = field(default_factory=dict)
    images: int = 1
    peak_bytes: int = 0
    best: list[float | None] = field(default_factory=list)
    single: list[float | None] = field(default_factory=list)

    @property
    def contender(self) -> Contender:
        return self.child.contender


def race(
    bench: BenchNetwork, contenders: Sequence[Contender], settings: Race, say: Say | None = None
) -> dict[str, Any]:
    """Run one network through all contenders.

    Args:
        bench: network, input and ANN.
        contenders: who takes part; ``ours`` must.
        settings: how.
        say: told in a line what is being done.

    Returns:
        What JSON holds under ``networks``: the network with its measured firing rates, ``contenders`` with times,
        ratios and equality of spikes, ``goals``, and ``left_out`` for those that failed on the way.

    Raises:
        UsageError: settings that make no race, or no ``ours``.
        BackendError: our own simulator failed.
    """
    settings.check()
    if "ours" not in [one.name for one in contenders]:
        raise UsageError("every race needs 'ours', which all others are compared with")
    tell = say or _silent
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gascnn-bench-")))
        plan = write_plan(bench, folder, compile_peers=settings.compile_peers)
        runners, failed = _start(bench, contenders, plan, settings, stack, tell)
        for number in range(settings.rounds):
            tell(f"{bench.name}: round {number + 1} of {settings.rounds}")
            turn = number % len(runners)
            for runner in [*runners[turn:], *runners[:turn]]:
                _take_turn(runner, number, settings)
    return _result(bench, runners, failed)


def _start(
    bench: BenchNetwork,
    contenders: Sequence[Contender],
    plan: Path,
    settings: Race,
    stack: contextlib.ExitStack,
    tell: Say,
) -> tuple[list[_Runner], list[LeftOut]]:
    """Start, check and tune one contender after the other; those of other people may fail and are then left out."""
    runners, failed = [], []
    for contender in contenders:
        tell(f"{bench.name}: {contender.title} gets ready")
        with contextlib.ExitStack() as own:
            try:
                child = own.enter_context(
                    Child(contender, plan, settings.threads, settings.python, time_limit_s=settings.time_limit_s)
                )
                runner = _Runner(child, child.ask("check", images=_IMAGES_CHECKED)["layers"])
                _tune(runner, len(bench.spikes), settings)
            except BackendError as error:
                if contender.kind == "ours":
                    raise
                failed.append(LeftOut(contender.name, str(error)))
                continue
            stack.enter_context(own.pop_all())
        runners.append(runner)
    return runners, failed


def _tune(runner: _Runner, images: int, settings: Race) -> None:
    """Find the fastest option for one image, and the fastest option and number of images at once."""
    child = runner.child
    runner.option = dict.fromkeys(("best", "single"), child.options[0])
    if runner.contender.kind == "lava":  # each run takes minutes, and there is nothing to choose
        return
    several = settings.images_at_once if runner.contender.batches else ()
    quickest = {"best": math.inf, "single": math.inf}
    for size in sorted({1, *(n for n in several if n <= images)}):
        for option in child.options:
            spent_s = _TUNING_SHARE * settings.at_least_s
            found = child.ask("time", option=option, images=size, at_least_s=spent_s, keep=False)
            seconds = found["per_image_s"]
            if size == 1 and seconds < quickest["single"]:
                quickest["single"], runner.option["single"] = seconds, option
            if seconds < quickest["best"]:
                quickest["best"], runner.option["best"] = seconds, option
                runner.images, runner.peak_bytes = size, found["peak_bytes"]


def _take_turn(runner: _Runner, number: int, settings: Race) -> None:
    if runner.contender.kind == "lava" and number >= settings.lava_rounds:
        runner.best.append(None)
        runner.single.append(None)
        return
    same = runner.images == 1 and runner.option["single"] == runner.option["best"]
    for kind, images, times in (("best", runner.images, runner.best), ("single", 1, runner.single)):
        if kind == "single" and same:
            times.append(runner.best[-1])
            continue
        time.sleep(_PAUSE_S)
        answer = runner.child.ask(
            "time", option=runner.option[kind], images=images, at_least_s=settings.at_least_s, keep=True
        )
        times.append(answer["per_image_s"])
        if runner.contender.kind == "lava":
            runner.peak_bytes = answer["peak_bytes"]


def _result(bench: BenchNetwork, runners: list[_Runner], failed: list[LeftOut]) -> dict[str, Any]:
    times = {runner.contender.name: runner.best for runner in runners}
    kinds = {runner.contender.name: runner.contender.kind for runner in runners}
    reference = next(runner for runner in runners if runner.contender.name == "ours")
    return {
        **describe_network(bench),
        "contenders": [_described(runner, reference) for runner in runners],
        "goals": [_goal(goal) for goal in goals(bench.rate, times, kinds)],
        "left_out": [vars(one) for one in failed],
    }


def describe_network(bench: BenchNetwork) -> dict[str, Any]:
    """The network in numbers, its firing rates measured by the simulator on all its images."""
    network = bench.network
    result = simulate(network, bench.spikes)
    return {
        "name": bench.name,
        "promised_firing_rate": bench.rate,
        "input_shape": list(network.input_shape),
        "steps": bench.steps,
        "images": len(bench.spikes),
        "layers": [
            {"kind": layer.kind, "shape": list(layer.shape), "firing_rate": rate}
            for layer, rate in zip(network.layers, population_rates(network, result.counts, bench.steps), strict=True)
        ],
        "neurons": network.neurons,
        "multiply_accumulates_a_step": network.multiply_accumulates,
        "digest": network.digest(),
    }


def _described(runner: _Runner, reference: _Runner) -> dict[str, Any]:
    contender = runner.contender
    return {
        "name": contender.name,
        "title": contender.title,
        "kind": contender.kind,
        "threads": runner.child.threads,
        "option": runner.option["best"],
        "images_at_once": runner.images,
        "per_image_s": median(runner.best),
        "per_image_s_rounds": runner.best,
        "option_one_image": runner.option["single"],
        "per_image_s_one_image": median(runner.single),
        "per_image_s_one_image_rounds": runner.single,
        "peak_bytes": runner.peak_bytes,
        "equal_spikes": runner.layers == reference.layers if runner.layers else None,
        "spikes_a_layer": [layer["spikes"] for layer in runner.layers],
        "versions": runner.child.versions,
    }


def _goal(goal: Goal) -> dict[str, Any]:
    return {**vars(goal), "reached": goal.reached}


def load_note() -> str | None:
    """A line to show where others use the processors; None where they do not."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load < 0.5:
        return None
    return f"load average {load:.1f} on {cores} processors: figures of a busy machine are not to be quoted"


def _silent(line: str) -> None:
    del line
