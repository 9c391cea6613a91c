"""A step's process: one command of ours that never outlives the chain, and leaves its last words."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO, cast

_PR_SET_PDEATHSIG = 1
_KEPT_CHARACTERS = 4096


class LastLine:
    """A text stream that remembers what was written last; in everything else it is the stream itself.

    Args:
        stream: where it goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._kept = ""

    def write(self, text: str) -> int:
        """Write and remember."""
        self._kept = (self._kept + text)[-_KEPT_CHARACTERS:]
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def last_line(self) -> str:
        """The last line that holds anything."""
        lines = self._kept.strip().splitlines()
        return lines[-1].strip() if lines else ""


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends (Linux only).

    Args:
        parent: process id; if it is gone already, this process ends at once.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """``PARENT FOLDER LAST-LINE WORD...``: run ``gascnn WORD...`` in a folder.

    What was said last on standard error goes to the file LAST-LINE.
    """
    parent, folder, last_line, *words = sys.argv[1:]
    die_with(int(parent))
    if os.environ.get("GASCNN_DATA"):  # meant from where the chain was started
        os.environ["GASCNN_DATA"] = os.path.abspath(os.environ["GASCNN_DATA"])
    os.chdir(folder)
    heard = LastLine(sys.stderr)
    sys.stderr = cast("TextIO", heard)
    from gascnn.toolkit.cli import main as gascnn

    try:
        gascnn(words)
    finally:
        Path(last_line).write_text(heard.last_line, encoding="utf-8", errors="replace")
