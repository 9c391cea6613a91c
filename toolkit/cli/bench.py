"""``gascnn bench``: a group whose commands live in modules that are imported when they are called."""

from __future__ import annotations

import click

from gascnn.toolkit.cli.lazy import LazyGroup

MODULES = {
    "run": ("bench_run", "report of a network beside its ANN: accuracy, spikes, energy, latency, the chip"),
    "pack": ("bench_board", "make a folder that measures both networks on a board, without torch"),
    "merge": ("bench_board", "put several boards' results into one report"),
    "simulator": ("bench_simulator", "measure the simulator against Lava, other frameworks and the ANN"),
    "profile": ("bench_profile", "show where the simulator's time goes"),
    "retention": ("bench_retention", "accuracy, work and energy of deployed networks against their ANN"),
    "sweep": ("bench_sweep", "accuracy, work and time against T and the thresholds, with a recommended T"),
    "synthetic": ("bench_synthetic", "made images: are they good, are they copies of training images"),
    "pgsl": ("bench_pgsl", "the tables and figures of split learning, and what its client and server cost"),
}
"""By command: the module that holds it, and its line in the help."""


@click.group("bench", cls=LazyGroup, modules=MODULES)
def command() -> None:
    """Measurements of deployed networks, side by side with their peers."""
