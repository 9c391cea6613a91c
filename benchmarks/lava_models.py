"""Lava with its own process models against Lava with the faster ones, on the same images in one start of Lava.

``python -m gascnn.benchmarks.lava_models MODEL.net --data digits``
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from gascnn.hardware import lava
from gascnn.toolkit.cli import dispatch, options
from gascnn.toolkit.cli.models import load_data, open_model
from gascnn.toolkit.cli.output import bar, save_json, say, table
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import CheckFailed, UsageError


@click.command()
@click.argument("model", type=options.PATH)
@options.data(required=True)
@options.limit(5)
@options.steps("T, input steps an image. Default: what the file was fitted for.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Runs with either, taking turns.")
@options.json_file
def command(
    model: Path,
    data: str,
    data_dir: Path | None,
    limit: int,
    steps: int | None,
    repeats: int,
    json_path: Path | None,
) -> None:
    """Time MODEL, a NetX file, an image in Lava: with Lava's own process models, and with ours in their place."""
    options.positive("--limit", limit)
    options.positive("--repeats", repeats)
    opened = open_model(model)
    if opened.netx is None:
        raise UsageError(f"{model} is not a NetX file; export it first")
    images = load_data(data, opened, data_dir).test.take(limit).images
    spikes = encode_for(opened.netx.network, images, steps=steps)
    result = measure(model, spikes, repeats)
    save_json(json_path, {"model": str(model), "data": data, **result})
    rows = [
        (name, *(result[f"{models}_{key}"] for models in ("stock", "fast")), result[f"{key}_ratio"])
        for name, key in _ROWS
    ]
    table(("seconds an image (median)", "Lava's own models", "faster models", "ratio"), rows)
    say(f"{len(spikes)} images, T = {spikes.shape[1]}, {repeats} repeats taking turns; every spike is equal")
    say(f"start of Lava, once: {result['lava_start_s']:.1f} s; load {result['load']:.1f} on {result['cores']} cores")


_ROWS = (("time steps alone", "steps_s"), ("with the graphs' start and end", "whole_s"))


def measure(model: Path, spikes: np.ndarray, repeats: int) -> dict[str, Any]:
    """Medians over the images of all runs (time steps) and over runs (whole), and their ratios.

    Args:
        model: a NetX file.
        spikes: (image, step, ...).
        repeats: runs with either.

    Raises:
        CheckFailed: a spike or a membrane potential differs.
    """
    tasks = [lava.Task(model, spikes, stock_models=own) for _ in range(repeats) for own in (True, False)]
    started = time.perf_counter()
    with bar("lava", len(tasks) * len(spikes)) as progress:
        results = lava.run_many(tasks, progress=progress)
    total_s = time.perf_counter() - started
    for result in results[1:]:
        _require_equal(results[0], result)
    figures: dict[str, Any] = {"images": len(spikes), "steps": spikes.shape[1], "repeats": repeats}
    for models in ("stock", "fast"):
        runs = [result for result in results if result.models == models]
        if len(runs) != repeats:
            raise CheckFailed(f"the faster models did not run: {results[1].why_stock}")
        figures[f"{models}_steps_s"] = statistics.median(s for run in runs for s in run.image_s)
        figures[f"{models}_whole_s"] = statistics.median((run.start_s + sum(run.image_s)) / len(spikes) for run in runs)
    for _, key in _ROWS:
        figures[f"{key}_ratio"] = figures[f"stock_{key}"] / figures[f"fast_{key}"]
    figures["lava_start_s"] = total_s - sum(result.start_s + sum(result.image_s) for result in results)
    figures["load"], figures["cores"] = os.getloadavg()[0], len(os.sched_getaffinity(0))
    return figures


def _require_equal(first: lava.LavaResult, other: lava.LavaResult) -> None:
    assert first.spikes is not None
    assert other.spikes is not None
    equal = all(np.array_equal(a, b) for a, b in zip(first.spikes, other.spikes, strict=True))
    if not equal or not np.array_equal(first.output_membrane, other.output_membrane):
        raise CheckFailed("the faster models and Lava's own differ; 'gascnn verify' says where")


if __name__ == "__main__":
    dispatch(command, sys.argv[1:], "lava_models")
