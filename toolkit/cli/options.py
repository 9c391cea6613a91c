"""Options that mean the same in every command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from gascnn.toolkit.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

PATH = click.Path(path_type=Path)


def data(
    required: bool = False,
    help_text: str = "Data set: a name (see 'gascnn data list'), a folder with one "
    "sub-folder a class, or an .npz with images and labels.",
) -> Decorator[Any]:
    """``--data`` and ``--data-dir``."""

    def decorate(function: Function) -> Function:
        function = click.option(
            "--data-dir", type=PATH, help="Folder of the named data sets; before $GASCNN_DATA and the user's cache."
        )(function)
        return click.option("--data", "data", metavar="NAME|PATH", required=required, help=help_text)(function)

    return decorate


def steps(help_text: str = "T, the number of input steps.") -> Decorator[Any]:
    """``--steps``."""
    return click.option("--steps", type=int, metavar="T", help=help_text)


def limit(default: int | None = None) -> Decorator[Any]:
    """``--limit``."""
    return click.option(
        "--limit",
        type=int,
        metavar="N",
        default=default,
        show_default=default is not None,
        help="Use only the first N images.",
    )


def batch_size(default: int) -> Decorator[Any]:
    """``--batch-size``."""
    return click.option(
        "--batch-size", type=int, metavar="N", default=default, show_default=True, help="Images at once."
    )


def seed(default: int | None = 0) -> Decorator[Any]:
    """``--seed``."""
    return click.option(
        "--seed", type=int, default=default, show_default=default is not None, help="Of everything random."
    )


def json_file(function: Function) -> Function:
    """``--json``."""
    return click.option("--json", "json_path", type=PATH, metavar="FILE", help="Write the result as JSON.")(function)


def output(help_text: str, required: bool = True) -> Decorator[Any]:
    """``-o``."""
    return click.option("-o", "--output", type=PATH, required=required, help=help_text)


def backend(default: str = "sim") -> Decorator[Any]:
    """``--backend``."""
    return click.option(
        "--backend",
        type=click.Choice(["sim", "lava", "lava-stock", "loihi"]),
        default=default,
        show_default=True,
        help="sim: bit-exact simulator; lava: the real Lava; lava-stock: only what stock NetX loads; loihi: the chip.",
    )


def simulator(function: Function) -> Function:
    """``--method``, ``--threads``, ``--memory`` and ``--scheduler``: for a NetX file in the simulator alone."""
    for option in (
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Simulate on a Dask cluster: tcp://HOST:8786 or tls://HOST:8786 (trusted networks only; "
            "see docs/cluster.md).",
        ),
        click.option(
            "--memory",
            metavar="SIZE",
            help="What this process may hold while it simulates, such as 512M or 2G; on a cluster, each worker.",
        ),
        click.option(
            "--threads",
            type=int,
            metavar="N",
            help="Of the simulator. Default: the processors this process may use; on a cluster, each worker's own.",
        ),
        click.option(
            "--method",
            type=click.Choice(["auto", "events", "dense", "plain"]),
            help="How the simulator computes; the spikes are the same. Default: auto, a layer at a time by its firing.",
        ),
    ):
        function = option(function)
    return function


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_MOST_THREADS = 1024
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def memory_size(text: str | None, option: str = "--memory") -> int | None:
    """A size such as ``512M``, ``1.5G`` or ``2GiB`` in bytes; K, M, G and T are powers of 1024.

    Args:
        text: what was typed, or None.
        option: that it was typed for.

    Raises:
        UsageError: not a size, or less than a byte.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise UsageError(f"{option} is {text!r}; give a size such as 512M or 2G")
    return size


def positive(name: str, value: int | None) -> int | None:
    """Refuse a count below 1.

    Raises:
        UsageError: names the option.
    """
    if value is not None and value < 1:
        raise UsageError(f"{name} is {value}; it must be at least 1")
    return value


def torch_threads(value: int) -> int:
    """Refuse a number of threads that no machine has.

    Raises:
        UsageError: below 0 (0 takes torch's own default), or more than it can start.
    """
    if not 0 <= value <= _MOST_THREADS:
        raise UsageError(f"--threads is {value}; allowed: 0 to {_MOST_THREADS}")
    return value


def numbers(name: str, text: str, kind: type[Any] = int, example: str = "4,8,16") -> tuple[Any, ...]:
    """``4,8,16`` as numbers.

    Args:
        name: of the option.
        text: what was typed.
        kind: ``int`` or ``float``.
        example: of what is allowed.

    Raises:
        UsageError: names the option.
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise UsageError(f"{name} is {text!r}; give {what} such as {example}") from error


_NOT_REPEATED = ("data_dir", "json_path", "page", "partial", "plot")
"""Where things lie on this machine, and where results go, plays no part in a result."""


def typed(command: str) -> str:
    """The command as it was typed, for a result that tells how to get it again: files by their names alone.

    Args:
        command: its words ahead of the arguments.
    """
    context = click.get_current_context()
    words = command.split()
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name not in _NOT_REPEATED:
            many = parameter.multiple or parameter.nargs == -1
            for value in context.params[name] if many else [context.params[name]]:
                words += _as_typed(parameter, value)
    return shlex.join(words)


def _as_typed(parameter: click.Parameter, value: Any) -> list[str]:
    flag = [parameter.opts[-1]] if isinstance(parameter, click.Option) else []
    if value is True:
        return flag
    parts = value if isinstance(value, tuple) else (value,)
    return flag + [part.name if isinstance(part, Path) else str(part) for part in parts]


def shape(text: str | None) -> tuple[int, ...] | None:
    """``C,H,W`` as numbers.

    Raises:
        UsageError: not positive whole numbers.
    """
    if text is None:
        return None
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a shape; give numbers such as 1,28,28") from error
    if not values or min(values) < 1:
        raise UsageError(f"{text!r} is not a shape; its numbers must be at least 1")
    return values
