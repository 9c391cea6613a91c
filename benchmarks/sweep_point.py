"""One point of a sweep: a network of one T and one threshold factor, run on validation and test images, and kept."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.counts import count_operations, own_synapses, sent_by_input
from gascnn.benchmarks.paper_energy import paper_energy
from gascnn.benchmarks.sweep_settings import Settings, Skip
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.simulator import Simulator
from gascnn.hardware.summary import RunSummary, join, summarise
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import FormatError, GascnnError
from gascnn.toolkit.files import write_json
from gascnn.toolkit.lowering.network import NetxNetwork
from gascnn.toolkit.training.inputs import ImageSetLike

FORMAT = 1
"""Schema number of a sweep's JSON and of the points kept in a run's folder."""

PARTS = ("val", "test")

_LATENCY_IMAGES = 5

Told = Callable[[int], None]


class Source(Protocol):
    """What gives the networks."""

    def network(self, steps: int, factor: float) -> NetxNetwork:
        """The integers for T ``steps``, thresholds times ``factor``; called with T ascending."""
        ...


def measure_point(
    source: Source,
    steps: int,
    factor: float,
    parts: Mapping[str, ImageSetLike],
    settings: Settings,
    ann_macs: int | None,
    told: Told,
) -> dict[str, Any]:
    """A point with its answers; what cannot be converted or held is told in it, for the sweep to go on.

    Args:
        source: gives the network.
        steps: T.
        factor: of the thresholds.
        parts: ``val`` and ``test``.
        settings: batch size, skipped steps, seed, threads.
        ann_macs: of the ANN; None takes the network's own synapses.
        told: takes the number of images done.
    """
    try:
        network = source.network(steps, factor)
        skip = _skip(network, settings.skip, steps)
        simulator = Simulator(network, threads=settings.threads, memory_bytes=settings.memory_bytes)
    except GascnnError as error:
        return {"steps": steps, "factor": factor, "error": str(error)}
    macs = own_synapses(network) if ann_macs is None else ann_macs
    point: dict[str, Any] = {
        "steps": steps,
        "factor": factor,
        "skip_steps": skip,
        "depth": network.depth,
        "total_steps": steps + network.depth,
        "network_digest": network.digest(),
        "neurons": network.neurons,
        "load": round(os.getloadavg()[0], 2),
    }
    before = 0
    for name in PARTS:
        point[name] = run_part(network, simulator, parts[name], steps, skip, settings, macs, _shifted(told, before))
        before += len(parts[name].images)
    point["latency_s"] = latency_s(network, simulator, parts["val"].images, steps, settings.seed)
    return point


def _skip(network: NetxNetwork, skip: Skip | None, steps: int) -> int:
    if skip is not None:
        return skip.of(steps)
    return min(network.deployment.skip_steps if network.deployment is not None else 0, steps - 1)


def _shifted(told: Told, before: int) -> Told:
    return lambda images: told(before + images)


def run_part(
    network: NetxNetwork,
    simulator: Simulator,
    part: ImageSetLike,
    steps: int,
    skip: int,
    settings: Settings,
    macs: int,
    told: Told,
) -> dict[str, Any]:
    """Run a network on images: answers, operations, energy, wraps and time.

    Args:
        network: that runs; it says how images are coded.
        simulator: made ready for it.
        part: images; their labels are not looked at.
        steps: T.
        skip: read-out steps left out of the count.
        settings: seed of the coding, batch size.
        macs: multiply-accumulates of the ANN.
        told: takes the number of images done.

    Returns:
        ``images``, ``predictions``, ``counts``, ``paper_energy``, ``wraps`` and ``time_per_image_s``, as plain values.
    """
    sent = np.zeros(network.input_shape, dtype=np.int64)
    kept: list[RunSummary] = []
    spent_s = 0.0
    for start in range(0, len(part.images), settings.batch_size):
        images = part.images[start : start + settings.batch_size]
        fed = checked_spikes(network, encode_for(network, images, steps=steps, seed=settings.seed, first=start))
        sent += sent_by_input(network, fed)
        began = time.perf_counter()
        kept.append(summarise(simulator.run(fed, skip_steps=skip)))
        spent_s += time.perf_counter() - began
        told(start + len(images))
    summary = join(kept)
    counts = count_operations(network, sent, summary.totals, images=summary.images, steps=steps)
    return {
        "images": summary.images,
        "predictions": summary.predictions().tolist(),
        "counts": counts.to_dict(),
        "paper_energy": paper_energy(counts, macs).to_dict(),
        "wraps": None if summary.wraps is None else sum(summary.wraps),
        "time_per_image_s": spent_s / summary.images,
    }


def latency_s(
    network: NetxNetwork, simulator: Simulator, images: npt.NDArray[np.uint8], steps: int, seed: int | None
) -> float:
    """Median time from an image's spikes to its answer, one image at a time, of the first few."""
    spent = []
    for index in range(min(len(images), _LATENCY_IMAGES)):
        fed = encode_for(network, images[index : index + 1], steps=steps, seed=seed, first=index)
        if not index:
            simulator.run(fed)  # the first one compiles
        began = time.perf_counter()
        simulator.run(fed)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


class PointFolder:
    """Where points are kept, so that an interrupted sweep goes on.

    Args:
        folder: made if it is not there.
        description: ``options``, ``model`` and ``dataset`` that every point depends on.
        resume: whether points may be there already.

    Raises:
        UsageError: a run is there and ``resume`` is false, or it was begun with other values.
    """

    def __init__(self, folder: Path, description: dict[str, Any], resume: bool) -> None:
        from gascnn.toolkit.training.run_folder import open_run

        folder.mkdir(parents=True, exist_ok=True)
        open_run(folder, description, resume)
        self._folder = folder

    def _path(self, steps: int, factor: float) -> Path:
        return self._folder / f"point-t{steps}-f{factor!r}.json"

    def load(self, steps: int, factor: float) -> dict[str, Any] | None:
        """A point that was measured before.

        Raises:
            FormatError: it is there, but damaged.
        """
        path = self._path(steps, factor)
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] == FORMAT and all("predictions" in values[part] for part in PARTS):
                return dict(values["point"] | {part: values[part] for part in PARTS})
            raise KeyError("format")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path}: not a point of this version ({error}); delete it to measure it anew") from error

    def save(self, point: dict[str, Any]) -> None:
        """Keep a point, whole or not at all."""
        rest = {name: value for name, value in point.items() if name not in PARTS}
        values = {"format": FORMAT, "point": rest, **{part: point[part] for part in PARTS}}
        write_json(self._path(point["steps"], point["factor"]), values)
