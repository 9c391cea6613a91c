"""``gascnn bench profile``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import save_json, say, table


@click.command("profile")
@click.option("--net", type=click.Choice(["convs", "resnet18", "dense"]), default="convs", show_default=True)
@click.option("--rate", type=float, default=0.08, show_default=True, help="Share of neurons that fire in a step.")
@options.steps("T, time steps.  [default: 32]")
@options.seed(0)
@options.json_file
def command(**arguments: Any) -> None:
    """Show where the simulator's time goes: layer by layer, what spikes cost and what membranes cost.

    One image, one thread, processor time, the fastest of seven runs each. A layer is run with its spikes and without
    any; the difference is what the spikes cost.
    """
    save_json(arguments["json_path"], execute(**arguments))


def execute(*, net: str, rate: float, steps: int | None, seed: int, json_path: Any) -> dict[str, Any]:
    """Measure and show; returns what ``--json`` writes."""
    from gascnn.benchmarks import machine, networks
    from gascnn.benchmarks.profile import profile

    given = {} if options.positive("--steps", steps) is None else {"steps": steps}
    make: Any = getattr(networks, net)
    bench = make(rate, images=1, seed=seed, **given)
    measured = profile(bench.network, bench.spikes)
    rows = [
        (
            layer.name,
            layer.input_spikes,
            f"{100 * layer.firing_rate:.2f} %",
            round(1000 * layer.time_s, 3),
            round(1000 * layer.membrane_s, 3),
            round(1000 * layer.spikes_s, 3),
            round(layer.addition_ns, 2),
        )
        for layer in measured.layers
    ]
    columns = ("layer", "spikes in", "firing", "ms", "membranes", "spikes", "ns a row added")
    table(columns, rows)
    say()
    say(f"sorting the input {1000 * measured.sorting_s:.3f} ms, all {1000 * measured.time_s:.3f} ms")
    return {"machine": machine.describe(), "net": net, "rate": rate, "seed": seed, **asdict(measured)}
