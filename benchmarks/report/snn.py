"""The deployed network's run for a report: every spike of every layer counted, batch by batch, and the curve over T."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gascnn.benchmarks.activity import Activity, activity
from gascnn.benchmarks.bootstrap import estimate
from gascnn.benchmarks.counts import Counts
from gascnn.benchmarks.energy.bill import bill
from gascnn.benchmarks.energy.tables import CostTable
from gascnn.benchmarks.energy.work import AnnWork
from gascnn.benchmarks.latency.curve import ReadOut, read_out
from gascnn.benchmarks.report.sides import Images, Labels
from gascnn.benchmarks.sweep_point import latency_s
from gascnn.hardware.inputs import checked_spikes
from gascnn.hardware.simulator import Simulator
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.lowering.network import NetxNetwork

SPIKES_BYTES = 256 << 20
"""What recorded spikes of a batch may take."""

Told = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class SnnRun:
    """A run of all images with one T.

    Attributes:
        steps: T.
        answers: (image,) classes.
        activity: spikes and operations, layer by layer and step by step.
        wraps: how often a current wrapped; None where it is not counted.
        latency_s: median of one image at a time, by one thread, from its spikes to its answer.
        read_outs: answers at each step of each batch, with the number of its first image.
    """

    steps: int
    answers: Labels
    activity: Activity
    wraps: int | None
    latency_s: float
    read_outs: list[tuple[int, ReadOut]]

    @property
    def counts(self) -> Counts:
        """All steps together."""
        return self.activity.counts()


def run_counted(
    network: NetxNetwork,
    simulator: Simulator,
    one_thread: Simulator,
    images: Images,
    *,
    steps: int,
    skip_steps: int,
    seed: int | None,
    batch_size: int,
    told: Told,
) -> SnnRun:
    """Run images and count every spike.

    Args:
        network: that runs.
        simulator: made ready for it.
        one_thread: likewise, for the latency.
        images: (image, C, H, W) uint8.
        steps: T.
        skip_steps: of the read-out.
        seed: of the coding; None takes the file's.
        batch_size: images at once, at most.
        told: takes the number of images done.
    """
    size = min(batch_size, _images_within(network, steps))
    whole: Activity | None = None
    answers: list[Labels] = []
    wraps: list[int] | None = []
    read_outs = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        fed = checked_spikes(network, encode_for(network, batch, steps=steps, seed=seed, first=start))
        result = simulator.run(fed, record="spikes", skip_steps=skip_steps)
        found = activity(network, fed, result)
        whole = found if whole is None else whole + found
        answers.append(result.predictions())
        read_outs.append((start, read_out(network, fed, result, skip_steps)))
        wraps = None if result.wraps is None or wraps is None else [*wraps, *result.wraps]
        told(start + len(batch))
    assert whole is not None
    alone_s = latency_s(network, one_thread, images, steps, seed)
    return SnnRun(steps, np.concatenate(answers), whole, None if wraps is None else sum(wraps), alone_s, read_outs)


def curve_point(
    run: SnnRun, network: NetxNetwork, labels: Labels, ann: Labels, work: AnnWork, table: CostTable
) -> dict[str, Any]:
    """One T of the curve: accuracy, macro-F1 and how far below the ANN they are, operations, energy under a table."""
    billed = bill(network, run.counts, work, [table])[0]
    return {
        "steps": run.steps,
        "total_steps": run.activity.total_steps,
        **{name: value.to_dict() for name, value in estimate(labels, run.answers, ann).items()},
        "synaptic_operations": run.counts.operations(),
        "spikes_per_source": run.counts.spikes_per_source(),
        "table": table.name,
        "snn_pj": billed.snn_pj,
        "ratio": billed.ratio,
        "latency_s": run.latency_s,
    }


def _images_within(network: NetxNetwork, steps: int) -> int:
    """Images whose spikes fit: a byte a neuron and step, messages four and one more."""
    bytes_each = 5 if network.sigma_delta else 1
    neurons = sum(math.prod(layer.shape) for layer in network.layers)
    return max(1, SPIKES_BYTES // (bytes_each * neurons * (steps + network.depth)))
