"""Measure the networks of a folder on this machine: answers, latency, energy, memory; without torch or numba."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from gascnn.benchmarks import machine
from gascnn.benchmarks.board.conditions import board_name, describe_conditions
from gascnn.benchmarks.board.contenders import Contender, expected_classes, open_contenders, simulator_method
from gascnn.benchmarks.board.energy import EnergyPlan, choose_meter, measure_all
from gascnn.benchmarks.board.figures import accuracy, latency
from gascnn.benchmarks.board.folder import PackFolder, open_pack
from gascnn.benchmarks.board.results import RESULT_FORMAT, RESULT_KIND
from gascnn.benchmarks.board.timing import Progress, Task, take_turns, warm_up
from gascnn.exporters.onnx.metadata import own_version
from gascnn.hardware.process import peak_memory_bytes
from gascnn.toolkit.errors import UsageError

TIME_LIMIT_S = 120.0
FEW_SNN_IMAGES = 3
"""Images the simulator answers however long they take."""

_VERSIONS = ("numpy", "onnxruntime", "h5py")
_LOW_AGREEMENT = 0.95


def run_board(
    folder: str | os.PathLike[str],
    *,
    threads: int = 1,
    snn_images: int | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    meter: str | None = None,
    energy: EnergyPlan | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Check a folder of :func:`gascnn.benchmarks.board.pack.pack` and measure what is in it.

    Every network answers single images in turns (:mod:`gascnn.benchmarks.board.timing`): the ANNs all of them, the
    spiking network as many as fit ``time_limit_s``, spread evenly over the folder, but :data:`FEW_SNN_IMAGES` at least.

    Args:
        folder: the folder.
        threads: of onnxruntime and the simulator.
        snn_images: so many exactly, whatever the time (or all there are).
        time_limit_s: for the simulator's timed answers.
        meter: name of an energy meter, or the file of a meter's log, which may come to be during the run; None takes
            the first meter that can be read, ``none`` measures no energy.
        energy: how long energy is measured.
        name: of this board in tables; default the board's or processor's own.
        progress: told who is measured, how many images are done, and of how many.

    Returns:
        Plain values, ``docs/board.md`` lists them. ``agrees`` says whether the spiking network is bit-equal and the
        float32 ANN within rounding.

    Raises:
        FormatError: the folder is not as it was made.
        UsageError: an argument out of range, or a meter that cannot be read.
        BackendError: a network that gives NaN or infinity here, or onnxruntime broke.
    """
    _check_arguments(threads, snn_images, time_limit_s)
    started, begun = datetime.now(timezone.utc), time.perf_counter()
    pack = open_pack(folder)
    plan = energy or EnergyPlan()
    chosen = choose_meter(meter)
    before = describe_conditions()
    contenders = open_contenders(pack, threads)
    tasks = [_task(contender, pack, snn_images, time_limit_s) for contender in contenders]
    turns = take_turns(tasks, progress)
    measured = measure_all(chosen, plan, {task.name: (task.call, task.images) for task in tasks}, progress)
    rows = [_row(c, task, pack) for c, task in zip(contenders, tasks, strict=True)]
    for row in rows:
        row["energy"] = measured[row["name"]]
    return {
        "kind": RESULT_KIND,
        "format": RESULT_FORMAT,
        "name": name or board_name(),
        "started": started.isoformat(timespec="seconds"),
        "duration_s": round(time.perf_counter() - begun, 3),
        "pack": {"manifest_sha256": pack.manifest_sha256, **pack.manifest},
        "machine": machine.describe(),
        "versions": _versions(),
        "settings": {
            "threads": threads,
            "snn_images": snn_images,
            "time_limit_s": time_limit_s,
            "turns": turns,
            "simulator_method": simulator_method(),
        },
        "conditions": {"before": before, "after": describe_conditions()},
        "meters": chosen.to_dict(),
        "contenders": rows,
        "peak_memory_bytes": peak_memory_bytes(),
        "agrees": all(row["comparison"]["agrees"] is not False for row in rows),
        "notes": _notes(rows, pack),
    }


def _check_arguments(threads: int, snn_images: int | None, time_limit_s: float) -> None:
    for what, value in (("threads", threads), ("snn_images", snn_images)):
        if value is not None and value < 1:
            raise UsageError(f"{what} is {value}; it must be at least 1")
    if not 0 < time_limit_s < float("inf"):
        raise UsageError(f"time_limit_s is {time_limit_s:g}; it must be above 0")


def _task(contender: Contender, pack: PackFolder, snn_images: int | None, time_limit_s: float) -> Task:
    """What a network is to answer, after warming it up."""
    warm_s = warm_up(contender.answer, 0)
    there = len(pack.images)
    task = Task(contender.name, contender.answer, contender.keep, range(there), warm_s=warm_s)
    if contender.name != "snn":
        return task
    if snn_images is not None:
        task.images = _spread(min(snn_images, there), there)
        return task
    task.images = _spread(min(there, max(FEW_SNN_IMAGES, int(time_limit_s / warm_s))), there)
    task.limit_s, task.least = time_limit_s, FEW_SNN_IMAGES
    return task


def _spread(count: int, there: int) -> Sequence[int]:
    """Numbers of ``count`` images evenly over all of them."""
    return [i * there // count for i in range(count)]


def _row(contender: Contender, task: Task, pack: PackFolder) -> dict[str, Any]:
    labels, expected = pack.labels, expected_classes(pack, contender.name)
    answers = contender.classes(task.answers)
    return {
        "name": contender.name,
        "accuracy": accuracy(sum(int(labels[i]) == category for i, category in answers.items()), len(answers)),
        "accuracy_where_packed": accuracy(int((expected == labels).sum()), len(labels)),
        "latency": latency(task.seconds),
        "comparison": contender.compare(task.answers),
    }


def _notes(rows: Sequence[dict[str, Any]], pack: PackFolder) -> list[str]:
    """What a reader must not overlook, a sentence each."""
    notes = []
    for row in rows:
        name, found = row["name"], row["comparison"]
        if name == "snn" and not found["bit_equal"]:
            notes.append(
                f"snn: {found['unequal_images']} of {found['images']} images are not bit-equal to those of the machine "
                f"that packed (of an output neuron up to {found['largest_count_difference']} spikes and "
                f"{found['largest_membrane_difference']} of membrane potential apart)"
            )
        if found["agrees"] is False and found["different_answers"]:
            notes.append(f"{name}: {found['different_answers']} of {found['images']} answers are not those expected")
        elif found["agrees"] is False and name != "snn":
            notes.append(f"{name}: logits differ by {found['of_largest_logit']:.1e} of the largest, more than rounding")
        elif found["agrees"] is None and found["agreement"] < _LOW_AGREEMENT:
            notes.append(f"{name}: only {found['equal_answers']} of {found['images']} answers are those expected")
        if found["images"] < len(pack.images):
            notes.append(f"{name}: answered {found['images']} of the {len(pack.images)} images")
    return notes


def _versions() -> dict[str, str]:
    used = _VERSIONS if simulator_method() == "plain" else (*_VERSIONS, "numba")
    return {"gascnn": own_version(), **{package: version(package) for package in used}}
