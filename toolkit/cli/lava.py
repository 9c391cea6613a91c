"""``gascnn lava install`` and ``gascnn lava info``."""

from __future__ import annotations

from pathlib import Path

import click

from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.output import save_json, say, table
from gascnn.toolkit.errors import BackendError


@click.group("lava")
def command() -> None:
    """Lava in an interpreter of its own: its last releases need Python 3.10 and old libraries."""


@command.command("install")
@click.option("--quiet", is_flag=True, help="Do not say where it is; an installation still tells its progress.")
@click.option(
    "--fetch-python/--no-fetch-python",
    default=True,
    show_default=True,
    help="Download a Python 3.10 (with uv) where none is found.",
)
@options.json_file
def install_command(quiet: bool, fetch_python: bool, json_path: Path | None) -> None:
    """Find or fetch a Python 3.10 and install Lava there: some minutes and 6 GB, once."""
    from gascnn.hardware.lava import install_lava

    environment = install_lava(lambda line: click.echo(line, err=True), fetch_python=fetch_python)
    if not quiet:
        say(f"Lava {environment.lava_nc} and lava-dl {environment.lava_dl} run in {environment.python}")
    save_json(json_path, {**vars(environment), "python": str(environment.python)})


@command.command("info")
@click.option("--python", "only_python", is_flag=True, help="Print the path of Lava's Python and nothing else.")
@options.json_file
def info_command(only_python: bool, json_path: Path | None) -> None:
    """Show which Lava would run, or what is missing."""
    from gascnn.hardware.lava import lava_info

    info = lava_info()
    if only_python:
        if not info["found"]:
            raise BackendError(str(info["problem"]))
        say(str(info["python"]))
    else:
        table(("", ""), [(name.replace("_", " "), str(value)) for name, value in info.items()])
    save_json(json_path, info)
