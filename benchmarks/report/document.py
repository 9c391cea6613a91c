"""``report.json``: checked against its schema when it is written and when it is read."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.files import write_json

FORMAT = 1
"""Schema number; raised with every change that a reader would stumble over."""

KIND = "gascnn report"

_LARGEST_BYTES = 256 << 20


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``report.json``."""
    text = files("gascnn.benchmarks.report").joinpath("schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def check(report: Any) -> None:
    """Refuse what is no report of this version.

    Raises:
        FormatError: names the first thing that is wrong and where it is.
        UsageError: the checker is not installed.
    """
    try:
        from jsonschema import Draft202012Validator
    except ImportError as error:
        raise UsageError("reports need jsonschema; install gascnn[bench]") from error
    if isinstance(report, dict) and report.get("kind") == KIND and report.get("format") != FORMAT:
        raise FormatError(f"the report has format {report.get('format')!r}; this version reads format {FORMAT}")
    problems = sorted(Draft202012Validator(schema()).iter_errors(report), key=lambda problem: list(problem.path))
    if problems:
        first = problems[0]
        place = "/".join(str(part) for part in first.absolute_path) or "the report itself"
        raise FormatError(f"not a report of this version: {place}: {first.message[:200]}")


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Check a report and write it, whole or not at all.

    Raises:
        FormatError: it does not fit the schema.
    """
    check(report)
    write_json(path, report)


def read_report(path: Path) -> dict[str, Any]:
    """Read what :func:`write_report` wrote.

    Raises:
        FormatError: not there, not JSON, too large, or not a report of this version.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise FormatError(f"{path}: larger than {_LARGEST_BYTES >> 20} MiB; no report is")
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: cannot be read as JSON ({error}); give a report.json of 'gascnn bench run'"
        ) from error
    try:
        check(report)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    return report
