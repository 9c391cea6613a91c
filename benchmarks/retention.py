"""How much of its ANN's accuracy a deployed network keeps, and at what work: one row a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.benchmarks.bootstrap import estimate
from gascnn.benchmarks.sweep_point import run_part
from gascnn.benchmarks.sweep_settings import Settings
from gascnn.hardware.simulator import Simulator
from gascnn.toolkit.errors import DataError
from gascnn.toolkit.lowering.network import NetxNetwork
from gascnn.toolkit.training.inputs import ImageSetLike

FORMAT = 1
"""Schema number of the JSON."""

COLUMNS = (
    "file", "neuron", "T", "accuracy", "macro-F1", "below the ANN", "spikes a source", "operations", "x less energy",
    "SHA-256",
)  # fmt: skip


def measure(
    network: NetxNetwork,
    part: ImageSetLike,
    ann_answers: npt.NDArray[np.int64],
    ann_macs: int,
    settings: Settings,
    told: Callable[[int], None],
) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """Run a network on test images as it was deployed and compare it with its ANN.

    Args:
        network: with its deployment record, which says T, coding and read-out.
        part: images and labels.
        ann_answers: (image,) the ANN's classes.
        ann_macs: its multiply-accumulates for an image.
        settings: batch size, threads, memory; T is the network's own.
        told: takes the number of images done.

    Returns:
        Accuracy and macro-F1 with bootstrap intervals, how far they are below the ANN's on the same resamples,
        operations, and energy by the paper's formula; and its answers.

    Raises:
        DataError: a foreign network, which does not say how it is fed.
    """
    deployment = network.deployment
    if deployment is None:
        raise DataError("the network does not say how it is fed; measure one that gascnn exported")
    simulator = Simulator(network, threads=settings.threads, memory_bytes=settings.memory_bytes)
    raw = run_part(network, simulator, part, deployment.steps, deployment.skip_steps, settings, ann_macs, told)
    answers = np.asarray(raw.pop("predictions"), dtype=np.int64)
    figures = estimate(part.labels, answers, ann_answers)
    row = {
        "network_digest": network.digest(),
        "reset": "sigma-delta" if network.sigma_delta else network.reset,
        "steps": deployment.steps,
        "coding": deployment.coding,
        "neurons": network.neurons,
        **{name: value.to_dict() for name, value in figures.items()},
        **raw,
    }
    return row, answers


def compare(
    rows: Sequence[dict[str, Any]], answers: Sequence[npt.NDArray[np.int64]], labels: npt.NDArray[np.int64], name: str
) -> None:
    """Put into each row how far its network is below one of them: ``macro_f1_below_reference``, ``reference``.

    Args:
        rows: as :func:`measure` gives them, with ``file``; changed in place.
        answers: of each row, (image,).
        labels: (image,).
        name: the ``file`` of the row to compare with.
    """
    reference = answers[[row["file"] for row in rows].index(name)]
    for row, own in zip(rows, answers, strict=True):
        row["reference"] = name
        row["macro_f1_below_reference"] = estimate(labels, own, reference)["macro_f1_below"].to_dict()


def columns(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Heads of the table."""
    below = COLUMNS.index("below the ANN") + 1
    extra = (f"below {rows[0]['reference']}",) if rows and "reference" in rows[0] else ()
    return (*COLUMNS[:below], *extra, *COLUMNS[below:])


def markdown(rows: Sequence[dict[str, Any]], ann: dict[str, Any], data: str, command: str) -> str:
    """The table as a page, with the command that rebuilds it.

    Args:
        rows: as :func:`measure` gives them, with ``file`` and ``sha256``.
        ann: ``accuracy`` and ``macro_f1`` with intervals, ``images``, ``sha256``.
        data: name of the data set.
        command: what was typed.
    """
    lines = [
        f"{ann['images']} test images of `{data}`; 95 % bootstrap intervals over them. The ANN ({ann['sha256'][:12]}): "
        f"accuracy {_interval(ann['accuracy'])}, macro-F1 {_interval(ann['macro_f1'])}.",
        "",
        "| " + " | ".join(columns(rows)) + " |",
        "|" + " --- |" * len(columns(rows)),
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
        f"`{command}`",
    ]
    return "\n".join(lines) + "\n"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row of the table, in the order of :func:`columns`."""
    energy, counts = row["paper_energy"], row["counts"]
    sources, ratio = energy["spikes_per_source"], energy["ratio"]
    return (
        row["file"],
        row["reset"],
        str(row["steps"]),
        _interval(row["accuracy"]),
        _interval(row["macro_f1"]),
        _interval(row["macro_f1_below"]),
        *([_interval(row["macro_f1_below_reference"])] if "reference" in row else []),
        "-" if sources is None else f"{sources:.3f}",
        f"{counts['synaptic_operations'] / 1e6:.3g} M",
        "-" if ratio is None else f"{ratio:.1f}",
        row["sha256"][:12],
    )


def _interval(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{100 * figure['value']:.2f} ({100 * low:.2f} to {100 * high:.2f})"
