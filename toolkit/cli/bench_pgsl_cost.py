"""``gascnn bench pgsl client | footprint | server``: what split learning costs at both ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import note, save_json, say

_PAGE = click.option("--markdown", "page", type=options.PATH, metavar="FILE", help="Write the table as a page.")


@click.command("client")
@click.option("--rounds", type=int, default=25, show_default=True, help="Turns that each contender takes.")
@options.seed()
@options.json_file
@_PAGE
def client(rounds: int, seed: int, json_path: Path | None, page: Path | None) -> None:
    """Latency of the client, one image on one thread: onnxruntime fp32 and int8 against torch.

    Of 28x28 and 256x256 pixels, with random weights. Torch runs eagerly, with the attack's gradient by autograd and by
    forward operators. Contenders take turns; they give the same activations, or nothing is timed. Exit status 1 if
    an aim is not reached.
    """
    from gascnn.benchmarks.pgsl.edge_client import markdown, race_clients

    report = race_clients(rounds=rounds, seed=seed, progress=note)
    _end(report, markdown(report), json_path, page)
    _exit_unless(all(goal["reached"] is not False for network in report["networks"] for goal in network["goals"]))


@click.command("footprint")
@click.option("--repeats", type=int, default=15, show_default=True, help="Processes for each file.")
@click.option("--install", is_flag=True, help="Also in a fresh environment with gascnn[edge], whose size is measured.")
@click.option(
    "--source",
    type=options.PATH,
    metavar="PATH",
    help="With --install: the repository's root (default: here) or a wheel.",
)
@options.json_file
@_PAGE
def footprint(repeats: int, install: bool, source: Path | None, json_path: Path | None, page: Path | None) -> None:
    """Start, memory and installed size of the edge client. Exit status 1 if an aim is not reached."""
    from gascnn.benchmarks.pgsl.edge_footprint import markdown, measure_footprint

    report = measure_footprint(repeats=repeats, install=install, source=source, progress=note)
    _end(report, markdown(report), json_path, page)
    _exit_unless(all(goal["reached"] is not False for goal in report["goals"]))


@click.command("server")
@click.option("--clients", type=int, default=20, show_default=True, help="At once.")
@click.option(
    "--seconds", type=float, default=60.0, show_default=True, help="Of queries, over TLS and plain HTTP each."
)
@click.option("--partial", type=options.PATH, metavar="FILE", help="Keep finished parts; they are not run again.")
@options.json_file
@_PAGE
def server(clients: int, seconds: float, partial: Path | None, json_path: Path | None, page: Path | None) -> None:
    """Many clients of a real server on loopback; half of them train in a second part, and it is killed in a third.

    What clients counted is compared with the server's metrics and checkpoint, weights with those of the same turns in
    one process. Exit status 1 if anything differs.
    """
    from gascnn.benchmarks.pgsl.server_load import Load, markdown, measure_load

    load = Load(clients=clients, seconds=seconds, trainers=max(1, clients // 2))
    report = measure_load(load, partial=partial, progress=note)
    _end(report, markdown(report), json_path, page)
    _exit_unless(report["good"])


def _exit_unless(good: bool) -> None:
    if not good:
        sys.exit(1)


def _end(report: dict[str, Any], text: str, json_path: Path | None, page: Path | None) -> None:
    from gascnn.toolkit.files import write_text

    say(text)
    if page is not None:
        write_text(page, text)
    save_json(json_path, report)
