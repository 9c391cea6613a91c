"""``gascnn bench``: a group whose commands live in modules that are imported when they are called."""

from __future__ import annotations

from importlib import import_module

import click

MODULES = {
    "simulator": "measure the simulator against Lava, other frameworks and the ANN",
    "profile": "show where the simulator's time goes",
    "retention": "accuracy, work and energy of deployed networks against their ANN",
    "sweep": "accuracy, work and time against T and the thresholds, with a recommended T",
}
"""Commands in the order of the help; the module ``bench_NAME`` holds each."""


class _LazyGroup(click.Group):
    """Knows its commands by name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in MODULES:
            return None
        command: click.Command = import_module(f"gascnn.toolkit.cli.bench_{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(MODULES.items()))


@click.group("bench", cls=_LazyGroup)
def command() -> None:
    """Measurements of deployed networks, side by side with their peers."""
