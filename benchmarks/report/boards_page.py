"""Several boards' results as a page."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gascnn.benchmarks.board.merge import BOARD_HEADS, tell
from gascnn.benchmarks.report import charts
from gascnn.benchmarks.report.template import fill, table
from gascnn.exporters.onnx.metadata import own_version
from gascnn.toolkit.files import write_text


def write_boards_page(path: Path, merged: dict[str, Any], command: str = "") -> None:
    """Write what :func:`gascnn.benchmarks.board.merge.merge` gives as a page.

    Raises:
        UsageError: what it is drawn with is not installed.
        DataError: it cannot be written.
    """
    write_text(path, render_boards(merged, command))


def render_boards(merged: dict[str, Any], command: str = "") -> str:
    """The page; foreign texts are cut to a line and escaped."""
    told, boards = tell(merged, str), merged["boards"]
    networks = list(dict.fromkeys(row["name"] for board in boards for row in board["contenders"]))
    latency = {name: [_of(board, name, _p50_ms) for board in boards] for name in networks}
    energy = {name: [_of(board, name, _millijoules) for board in boards] for name in networks}
    names = [row[0] for row in told.boards]
    pictures = [{"image": charts.bars(names, latency, "ms, median", log=True), "caption": "Latency of one image"}]
    if any(value is not None for values in energy.values() for value in values):
        drawn = charts.bars(names, energy, "mJ an image, idle subtracted", log=True)
        pictures.append({"image": drawn, "caption": "Measured energy of one image"})
    return fill(
        version=own_version(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        title=f"{len(boards)} board{'s' * (len(boards) != 1)}",
        summary=" ".join(told.packs),
        headline=[],
        notes=told.notes,
        sections=[
            {"title": "Networks", "charts": pictures, "tables": [table(told.heads, told.rows)]},
            {"title": "Boards", "tables": [table(BOARD_HEADS, told.boards)]},
        ],
        made=["The spiking network runs in a simulator on the board's processor. All figures are in boards.json."],
    )


def _of(board: dict[str, Any], name: str, figure: Any) -> float | None:
    found: float | None = next((figure(row) for row in board["contenders"] if row["name"] == name), None)
    return found


def _p50_ms(row: dict[str, Any]) -> float | None:
    seconds = row["latency"]["p50_s"]
    return None if seconds is None else 1000 * seconds


def _millijoules(row: dict[str, Any]) -> float | None:
    joules = row["energy"].get("energy_per_inference_j")
    return None if joules is None else 1000 * joules
