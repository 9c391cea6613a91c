"""A contender's process: ``python worker.py CONTENDER PLAN THREADS``; told what to do by JSON lines on standard input.

Each line is an object with ``do``: ``check`` (run all images, tell each layer's spikes), ``time`` (one repetition) or
``stop``. Each gets one line of answer with ``ok``. Whatever a library prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

PACKAGE = "gascnn.benchmarks.peers"
MODULES = {
    "spikingjelly": "frameworks",
    "snntorch": "frameworks",
    "sinabs": "frameworks",
    "onnxruntime": "ann_runtime",
    "lava": "own",
}
"""Which file runs a contender; all others are ours (``own``)."""


class Contender(Protocol):
    """What a file of this folder offers for one contender, through its function ``load(name, plan, threads)``."""

    versions: dict[str, str]
    options: tuple[str, ...]

    def prepare(self, option: str, images: int) -> Callable[[], float | None]:
        """Function that runs the first ``images`` images once; it may give its own time in seconds."""

    def counts(self, images: int) -> list[Any]:
        """Each layer's spike counts, (image, ...) integers."""


def provide_package() -> None:
    """Make this folder, and nothing else of the project, importable under its installed name."""
    parts = PACKAGE.split(".")
    for depth in range(1, len(parts) + 1):
        module = types.ModuleType(".".join(parts[:depth]))
        module.__path__ = [str(Path(__file__).resolve().parent)] if depth == len(parts) else []
        sys.modules[module.__name__] = module


def peak_bytes() -> int:
    """The most memory this process ever held, from the kernel's ``VmHWM``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak() -> None:
    """Have the kernel count the peak anew (``clear_refs`` of Linux); where that is refused it stays the highest."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def digest(counts: Any) -> str:
    """SHA-256 of spike counts as little-endian int32 in C order."""
    return hashlib.sha256(counts.astype("<i4").tobytes()).hexdigest()


class Worker:
    """Carries out what it is told, one contender long.

    Args:
        contender: what to run.
    """

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._ready: dict[tuple[str, int], Callable[[], float | None]] = {}

    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; gives the answer."""
        if order["do"] == "check":
            return self._check(order["images"])
        if order["do"] == "time":
            return self._time(order["option"], order["images"], order["at_least_s"], order["keep"])
        raise ValueError(f"unknown order {order['do']!r}")

    def _check(self, images: int) -> dict[str, Any]:
        layers = [{"spikes": int(c.sum()), "sha256": digest(c)} for c in self._contender.counts(images)]
        return {"layers": layers}

    def _time(self, option: str, images: int, at_least_s: float, keep: bool) -> dict[str, Any]:
        """One run that does not count, unless a single one takes long, then as many as fill the time asked for."""
        if not keep:
            self._ready.clear()
            gc.collect()
            forget_peak()
        run = self._ready.get((option, images)) or self._contender.prepare(option, images)
        if keep:
            self._ready[option, images] = run
        first = _timed(run)
        times = [first] if first > 2 * at_least_s else []
        while sum(times) < at_least_s:
            times.append(_timed(run))
        return {"per_image_s": sum(times) / len(times) / images, "runs": len(times), "peak_bytes": self._peak()}

    def _peak(self) -> int:
        own: int | None = getattr(self._contender, "peak_bytes", None)
        return peak_bytes() if own is None else own


def _timed(run: Callable[[], float | None]) -> float:
    started = time.perf_counter()
    told = run()
    return time.perf_counter() - started if told is None else told


def main(arguments: list[str]) -> int:
    """Serve orders until told to stop or until the parent is gone."""
    name, plan, threads = arguments[0], Path(arguments[1]), int(arguments[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")

    try:
        module = importlib.import_module(f"{PACKAGE}.{MODULES.get(name, 'own')}")
        contender: Contender = module.load(name, plan, threads)
        worker = Worker(contender)
        answer(ok=True, versions=contender.versions, options=list(contender.options))
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "stop":
                break
            answer(ok=True, **worker(order))
    except BaseException as error:
        lines = str(error).strip().splitlines()
        answer(ok=False, error=f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    if importlib.util.find_spec("gascnn") is None:
        provide_package()
    sys.exit(main(sys.argv[1:]))
