"""Several boards' results side by side, and as a table in Markdown."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gascnn.benchmarks.board.energy import from_log
from gascnn.benchmarks.board.figures import short
from gascnn.benchmarks.board.results import read_result
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.files import sha256_file

MERGE_KIND, MERGE_FORMAT = "gascnn-board-merge", 1

Cell = Callable[..., str]

_LONGEST_CELL = 120
_HEADS = (
    "board", "network", "images", "accuracy (95 %)", "answers as expected", "p50 ms", "p95 ms", "p99 ms", "images/s",
    "mJ an image (95 %)",
)  # fmt: skip
BOARD_HEADS = (
    "board", "processor", "cores used", "memory GB", "threads", "Python", "onnxruntime", "simulator", "peak MB",
    "governor", "agrees",
)  # fmt: skip


def merge(
    paths: Sequence[str | os.PathLike[str]],
    *,
    different_packs: bool = False,
    logs: Mapping[Path, str | os.PathLike[str]] | None = None,
) -> dict[str, Any]:
    """Put results of several boards together.

    Args:
        paths: files that ``run.py`` wrote.
        logs: by one of these paths, the log of its USB meter (:func:`add_log`).
        different_packs: also of different folders, whose figures then are of different networks or images.

    Returns:
        ``kind``, ``format``, ``packs`` (each folder's ``manifest_sha256``, data, images, classes and T, in the order
        they are met) and ``boards``: each result (:func:`gascnn.benchmarks.board.results.read_result`) with its name
        made unique, ``pack`` replaced by its number in ``packs``, and ``file_sha256``.

    Raises:
        UsageError: no files, one of them twice, results of different packs, or a log for another file.
        FormatError: a file that is no result; see :func:`gascnn.benchmarks.board.results.read_result`.
    """
    if not paths:
        raise UsageError("there are no results to merge; give at least one file that run.py wrote")
    logs = {} if logs is None else logs
    if strange := [path for path in logs if path not in map(Path, paths)]:
        raise UsageError(f"{strange[0]} has a log but is not among the results; give it there too")
    seen: dict[str, Path] = {}
    packs: list[dict[str, Any]] = []
    boards: list[dict[str, Any]] = []
    for path in map(Path, paths):
        result = add_log(path, logs[path]) if path in logs else read_result(path)
        digest = sha256_file(path)
        if digest in seen:
            raise UsageError(f"{path} and {seen[digest]} are the same result; give each once")
        number = _pack_number(result["pack"], packs, path)
        if number and not different_packs:
            raise UsageError(
                f"{path} was measured with another pack than {next(iter(seen.values()))}; figures of different "
                "networks or images do not belong in one table"
            )
        seen[digest] = path
        boards.append({**result, "pack": number, "file_sha256": digest})
    for board, name in zip(boards, _unique([board["name"] for board in boards]), strict=True):
        board["name"] = name
    return {"kind": MERGE_KIND, "format": MERGE_FORMAT, "packs": packs, "boards": boards}


def add_log(path: str | os.PathLike[str], log: str | os.PathLike[str]) -> dict[str, Any]:
    """A result whose energy comes from the log of a meter that was elsewhere while the board measured.

    Args:
        path: a result of ``run.py --meter FILE``, where that file was not there yet.
        log: the file; see :class:`gascnn.hardware.power.UsbLog`.

    Returns:
        The result with the energy of each network; it can be written and merged.

    Raises:
        FormatError: no such result, or a log that cannot be read or does not cover the run.
        UsageError: the result holds no times to lay over a log.
    """
    result = read_result(path)
    rows = [row for row in result["contenders"] if "windows" in row["energy"]]
    if not rows:
        raise UsageError(f"{path} holds no times of work and idle; measure with run.py --meter FILE")
    for row in rows:
        row["energy"] = from_log(row["energy"], Path(log))
        if not row["energy"]["measured"]:
            raise FormatError(row["energy"]["why"])
    result["meters"]["used"] = "usb-log"
    return result


def _pack_number(pack: dict[str, Any], packs: list[dict[str, Any]], path: Path) -> int:
    """Where a pack is in ``packs``, in which it is put if it is new.

    Raises:
        FormatError: the same manifest, but not the same content, which no honest result has.
    """
    for number, known in enumerate(packs):
        if known["manifest_sha256"] == pack["manifest_sha256"]:
            if known != pack:
                raise FormatError(f"{path}: what it says of its pack is not what the others say; measure again")
            return number
    packs.append(pack)
    return len(packs) - 1


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with a number where one was there before."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in found:
            candidate, number = f"{name} ({number})", number + 1
        found.append(candidate)
    return found


def markdown(merged: dict[str, Any]) -> str:
    """Tables of a :func:`merge`: what was measured, on which boards, and what a reader must not overlook.

    Texts from the results are shortened and made harmless to Markdown and HTML.
    """
    told = tell(merged, _harmless)
    lines = ["# Boards", "", *told.packs]
    lines += ["", *_table(told.heads, told.rows), "", *_table(BOARD_HEADS, told.boards)]
    if told.notes:
        lines += ["", *(f"- {note}" for note in told.notes)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Told:
    """A :func:`merge` in words.

    Attributes:
        packs: a line each.
        heads, rows: of the table of networks.
        boards: rows under :data:`BOARD_HEADS`.
        notes: what a reader must not overlook.
    """

    packs: list[str]
    heads: tuple[str, ...]
    rows: list[list[str]]
    boards: list[list[str]]
    notes: list[str]


def tell(merged: dict[str, Any], harmless: Callable[[str], str]) -> Told:
    """Put a :func:`merge` into words.

    Args:
        merged: as it gives it.
        harmless: what is done to each foreign text, which is one short line of printable characters.
    """

    def cell(text: str, longest: int = _LONGEST_CELL) -> str:
        return harmless(one_line(text, longest))

    many, boards = len(merged["packs"]) > 1, merged["boards"]
    return Told(
        packs=[
            (f"Pack {number}: " if many else "") + _about(pack, cell) for number, pack in enumerate(merged["packs"], 1)
        ],
        heads=("pack", *_HEADS) if many else _HEADS,
        rows=[
            ([str(board["pack"] + 1)] if many else []) + [cell(board["name"]), *_figures(row)]
            for board in boards
            for row in board["contenders"]
        ],
        boards=[_board(board, cell) for board in boards],
        notes=[f"{cell(board['name'])}: {cell(note, 1000)}" for board in boards for note in _notes(board)],
    )


def _about(pack: dict[str, Any], cell: Cell) -> str:
    name = cell(pack["data"]["name"])
    provenance = cell(pack["data"]["provenance"], 1000)
    return (
        f"{pack['images']} images{f' of {name}' if name else ''}, {len(pack['classes'])} classes, T = {pack['steps']}, "
        f"gascnn {cell(pack['gascnn'])}, manifest {pack['manifest_sha256'][:12]}."
        + (f" {provenance}" if provenance else "")
    )


def _figures(row: dict[str, Any]) -> list[str]:
    latency, found, share = row["latency"], row["comparison"], row["accuracy"]
    low, high = share["interval"]
    equal = f"{found['equal_answers']}/{found['images']}"
    if "bit_equal" in found:
        equal += ", bit-equal" if found["bit_equal"] else f", {found['unequal_images']} not bit-equal"
    return [
        row["name"],
        str(share["images"]),
        f"{100 * share['value']:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
        equal,
        *(_milli(latency[name]) for name in ("p50_s", "p95_s", "p99_s")),
        short(latency["images_per_s"]),
        _energy(row["energy"]),
    ]


def _energy(energy: dict[str, Any]) -> str:
    if not energy["measured"]:
        return "not measured"
    joules, interval = energy["energy_per_inference_j"], energy["interval_j"]
    if joules is None:
        return "not above idle"
    around = "" if interval is None else f" ({short(1000 * interval[0])} to {short(1000 * interval[1])})"
    return short(1000 * joules) + around


def _milli(seconds: float | None) -> str:
    return "-" if seconds is None else short(1000 * seconds)


def _board(board: dict[str, Any], cell: Cell) -> list[str]:
    machine, settings = board["machine"], board["settings"]
    governors = board["conditions"]["after"]["governors"]
    return [
        cell(board["name"]),
        cell(machine["processor"]),
        f"{machine['cores_used']} of {machine['cores']}",
        f"{machine['memory_bytes'] / 1e9:.1f}",
        str(settings["threads"]),
        cell(machine["python"]),
        cell(board["versions"].get("onnxruntime", "-")),
        cell(settings["simulator_method"]),
        f"{board['peak_memory_bytes'] / 1e6:.0f}",
        cell(", ".join(governors)) or "not told",
        "yes" if board["agrees"] else "NO",
    ]


def _notes(board: dict[str, Any]) -> list[str]:
    """The board's own, once each why there is no energy, and what the meter has to say."""
    notes, rows = list(board["notes"]), board["contenders"]
    reasons = [row["energy"]["why"] for row in rows if not row["energy"]["measured"]]
    notes += [f"energy not measured: {why}" for why in dict.fromkeys(reasons)]
    if reasons:
        notes += [f"{entry['name']}: {entry['why']}" for entry in board["meters"]["unavailable"]]
    meters = [row["energy"]["description"] for row in rows if row["energy"]["measured"]]
    notes += [f"energy by {what}" for what in dict.fromkeys(meters)]
    return notes + [f"{row['name']}: {warning}" for row in rows for warning in row["energy"].get("warnings", ())]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]


def one_line(text: str, longest: int) -> str:
    """A foreign text on one line of printable characters, cut where it is too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[:longest] + "..."


def _harmless(line: str) -> str:
    """Without characters that mean something to Markdown or HTML."""
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\\", "\\\\")):
        line = line.replace(mark, harmless)
    return "".join(f"\\{c}" if c in "|`*_[]" else c for c in line)
