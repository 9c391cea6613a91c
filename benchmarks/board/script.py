"""``run.py`` of a folder: options, a line on the way, one JSON at the end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gascnn.toolkit.errors import GascnnError, UsageError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(folder: Path, arguments: Sequence[str] | None = None) -> int:
    """Measure ``folder`` and write the result.

    Returns:
        0; 1 if the networks do not answer as they should here (the result is written and says so); 2 if the folder or
        an option cannot be used.
    """
    options = _parser().parse_args(arguments)
    # Before numpy is imported, which makes its threads then.
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(max(1, options.threads))))
    try:
        return _measure(folder, options)
    except GascnnError as error:
        _say(f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        _say("interrupted; nothing was written")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description="Measure the networks of this folder on this machine.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--snn-images", type=int, metavar="N", help="images for the simulator, whatever the time")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="for the simulator's images; default 120")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--meter", metavar="NAME|FILE", help="energy meter, or 'none'; default the first there is")
    parser.add_argument("--name", help="of this board in tables; default its own")
    return parser


def _measure(folder: Path, options: argparse.Namespace) -> int:
    from gascnn.benchmarks.board.run import TIME_LIMIT_S, run_board
    from gascnn.toolkit.files import write_json

    if options.output.is_dir() or not options.output.parent.is_dir():
        raise UsageError(f"{options.output}: not a file in a folder that is there; give -o another name")
    result = run_board(
        folder,
        threads=options.threads,
        snn_images=options.snn_images,
        time_limit_s=TIME_LIMIT_S if options.time_limit is None else options.time_limit,
        meter=options.meter,
        name=options.name,
        progress=_tell(),
    )
    write_json(options.output, result)
    for line in (*_summary(result), *result["notes"], f"result in {options.output}"):
        _say(line)
    return 0 if result["agrees"] else 1


def _tell() -> Any:
    """Progress on one line, where somebody looks at a terminal."""
    if not sys.stderr.isatty():
        return None

    def tell(name: str, done: int, of: int) -> None:
        sys.stderr.write(f"\r\x1b[K{name} {done}/{of}" + ("\r\x1b[K" if done == of else ""))
        sys.stderr.flush()

    return tell


def _summary(result: dict[str, Any]) -> list[str]:
    """A line for each network."""
    from gascnn.benchmarks.board.figures import short

    lines = []
    for row in result["contenders"]:
        figures, found = row["latency"], row["comparison"]
        lines.append(
            f"{row['name']}: {short(1000 * figures['p50_s'])} ms an image (median of {figures['samples']}), accuracy "
            f"{100 * row['accuracy']['value']:.1f} %, {found['equal_answers']} of {found['images']} answers as expected"
        )
    return lines


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
