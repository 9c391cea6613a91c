"""Groups of commands that know their commands by name and import one only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose help imports none of its commands.

    Args:
        modules: by command, in the order of the help: the module of this package that holds it, as an attribute of the
            command's name or else ``command``, and its line in the help.
        settings: as for any group.
    """

    def __init__(self, *args: Any, modules: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in self._modules:
            return None
        module = import_module(f"gascnn.toolkit.cli.{self._modules[cmd_name][0]}")
        named = getattr(module, cmd_name, None)
        found: click.Command = named if isinstance(named, click.Command) else module.command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._modules.items()])
