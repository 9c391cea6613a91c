"""The page's template: title, figures, notes, and sections of charts and tables; every text put in is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from gascnn.toolkit.errors import UsageError

Section = dict[str, Any]
"""``title``, and as far as there are some ``texts``, ``charts``, ``tables`` and ``examples``."""


def fill(*, sections: Sequence[Section], **values: Any) -> str:
    """The page.

    Args:
        sections: in their order.
        values: ``version``, ``created``, ``command``, ``title``, ``summary``, ``headline`` (name, value, more),
            ``notes`` and ``made`` (lines at the end).

    Raises:
        UsageError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise UsageError("the page needs jinja2 and matplotlib; install gascnn[bench]") from error
    source = files("gascnn.benchmarks.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filled = [{"texts": [], "charts": [], "tables": [], "examples": [], **section} for section in sections]
    return environment.from_string(source).render(sections=filled, **values)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", note: str = "") -> dict[str, Any]:
    """A table; a ``#`` ahead of a column's name sets it to the right."""
    named = [{"name": name.removeprefix("#"), "number": name.startswith("#")} for name in columns]
    return {"columns": named, "rows": rows, "title": title, "note": note}
