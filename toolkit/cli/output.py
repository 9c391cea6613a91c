"""What commands show: tables, progress bars, JSON. With rich where it is installed, plain text where it is not."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from gascnn.toolkit.files import write_json


def say(text: str = "") -> None:
    """A line on standard output."""
    click.echo(text)


def note(text: str) -> None:
    """A remark on standard error, which never mixes with results."""
    click.echo(f"note: {text}", err=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; numbers are set to the right."""
    cells = [[_text(value) for value in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            _rich_table(columns, cells, right)
            return
    widths = [max(len(str(c)), *(len(row[i]) for row in cells), 0) if cells else len(c) for i, c in enumerate(columns)]
    for row in ([list(columns)] if any(columns) else []) + cells:
        parts = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right, strict=True)]
        say("  ".join(parts).rstrip())


def _rich_table(columns: Sequence[str], cells: list[list[str]], right: list[bool]) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for name, numeric in zip(columns, right, strict=True):
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        grid.add_row(*row)
    Console(highlight=False, markup=False).print(grid)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def percent(share: float) -> str:
    """A share as a percentage with two decimals."""
    return f"{100 * share:.2f} %"


@contextlib.contextmanager
def bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A progress bar on standard error while the block runs; silent where that is not a terminal.

    Yields:
        A function that takes how much is done.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def save_json(path: Path | None, value: dict[str, Any]) -> None:
    """Write the result where ``--json`` asked for it."""
    if path is not None:
        write_json(path, value)
