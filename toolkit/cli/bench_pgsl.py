"""``gascnn bench pgsl``: the tables and figures of split learning, and what its client and server cost."""

from __future__ import annotations

import click

from gascnn.toolkit.cli.lazy import LazyGroup

MODULES = {
    "mu": ("bench_pgsl_mu", "Figure 3: the error of recovered images against mu"),
    "recognition": ("bench_pgsl_tables", "Table II: accuracy under attacks, of the streams and of their fusion"),
    "reconstruction": ("bench_pgsl_tables", "Table I: how well images are reconstructed from what travels"),
    "strength": ("bench_pgsl_tables", "accuracy, or the error of reconstructions, against the attack's strength"),
    "choices": ("bench_pgsl_tables", "what the paper leaves open, each reading measured beside the others"),
    "client": ("bench_pgsl_cost", "latency of the client: onnxruntime, fp32 and int8, against torch"),
    "footprint": ("bench_pgsl_cost", "start, memory and installed size of the edge client"),
    "server": ("bench_pgsl_cost", "many clients at once, and a server that is killed amid training"),
}
"""By command: the module that holds it, under the command's name, and its line in the help."""


@click.group("pgsl", cls=LazyGroup, modules=MODULES)
def command() -> None:
    """Split learning: the paper's tables and figures, and what its client and server cost (docs/pgsl.md)."""
