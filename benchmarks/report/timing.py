"""Latency of both networks in one race, and their energy where a meter can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gascnn.benchmarks.latency.contender import Contender, Unavailable
from gascnn.benchmarks.latency.makers import (
    ann_in_onnxruntime,
    ann_in_torch,
    snn_in_lava,
    snn_in_simulator,
    snn_on_loihi,
)
from gascnn.benchmarks.latency.race import race
from gascnn.benchmarks.report.settings import ReportSettings
from gascnn.benchmarks.report.sides import Baseline, Images, Labels
from gascnn.hardware.backends import NetxFile
from gascnn.hardware.power import detect_meters, measure_energy
from gascnn.toolkit.errors import BackendError

ROUNDS, CALLS = 12, 10
BATCH_SIZES = (1, 16)
RACE_IMAGES = 32
"""Of the first images: what they answer to all of them is counted elsewhere, and one thread would take minutes."""

METER_IDLE_S, METER_ROUNDS, METER_SECONDS = 2.0, 4, 2.0
"""Of each contender; the power page says how to measure longer."""

Begin = Callable[[str, int], Callable[[int], None]]
"""Told what begins and of how many; gives what is told how many are done."""


def contenders(
    file: NetxFile, baseline: Baseline, exported: Mapping[str, Path], settings: ReportSettings
) -> list[Contender | Unavailable]:
    """Who takes part, one thread each; those that cannot say why."""
    found = [
        ann_in_onnxruntime(exported["fp32"], "fp32"),
        ann_in_onnxruntime(exported["int8"], "int8"),
        ann_in_torch(baseline.bundle),
        snn_in_simulator(file),
    ]
    if settings.lava_images:
        found.append(snn_in_lava(file, images=settings.lava_images))
    else:
        title = "SNN in Lava on the processor"
        found.append(Unavailable("lava", title, "not asked for; --lava-images N runs N images in it"))
    return [*found, snn_on_loihi(file)]


def measure_latency(
    file: NetxFile,
    baseline: Baseline,
    exported: Mapping[str, Path],
    images: Images,
    labels: Labels,
    settings: ReportSettings,
    load_before: float,
    begin: Begin,
) -> dict[str, Any]:
    """The race of all contenders; see :func:`gascnn.benchmarks.latency.race.race`."""
    return race(
        contenders(file, baseline, exported, settings),
        images[:RACE_IMAGES],
        labels=labels[:RACE_IMAGES],
        rounds=ROUNDS,
        calls=CALLS,
        batch_sizes=BATCH_SIZES,
        limit_s=settings.latency_s,
        load_before=load_before,
        progress=lambda text: _told(begin, text),
    )


def measure_power(
    file: NetxFile, exported: Mapping[str, Path], images: Images, settings: ReportSettings, begin: Begin
) -> dict[str, Any]:
    """Joules an image by every meter that can be read.

    Returns:
        ``measured``: one entry a meter and contender; ``failed``: meters that gave up while they measured;
        ``unavailable``: meters that cannot be read; both with ``name`` and ``why``. ``skipped``: whether none was
        asked.
    """
    if not settings.meters:
        return {"measured": [], "failed": [], "unavailable": [], "skipped": True}
    meters, missing = detect_meters()
    measured, failed = [], []
    parties = [ann_in_onnxruntime(exported["fp32"], "fp32"), ann_in_onnxruntime(exported["int8"], "int8"),
               snn_in_simulator(file)] if meters else []  # fmt: skip
    for meter in meters:
        for party in parties:
            if isinstance(party, Unavailable):
                continue
            begin(f"energy: {party.title} by {meter.name}", 1)
            try:
                found = measure_energy(
                    meter, _work(party, images), idle_s=METER_IDLE_S, rounds=METER_ROUNDS, seconds=METER_SECONDS
                )
            except BackendError as error:  # minutes of other figures are not thrown away for it
                failed.append({"name": meter.name, "why": f"{party.title}: {error}"})
                break
            measured.append({"contender": party.name, "title": party.title, **found.to_dict()})
    unavailable = [vars(one) for one in missing]
    return {"measured": measured, "failed": failed, "unavailable": unavailable, "skipped": False}


def _work(party: Contender, images: Images) -> Callable[[], int]:
    place = 0

    def work() -> int:
        nonlocal place
        party.run(images[place : place + 1])
        place = (place + 1) % len(images)
        return 1

    return work


def _told(begin: Begin, text: str) -> None:
    begin(text, 1)
