"""Run one step in a process of its own, and leave none behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gascnn.toolkit.errors import BackendError

_INTERRUPT_LIMIT_S = 20.0
LAST_LINE_FILE = "last-line"

# The current folder is no place to import from: it may hold a folder called like a package.
_START = "import sys; sys.path[:] = [p for p in sys.path if p]; from gascnn.toolkit.chain.child import main; main()"


@dataclass(frozen=True)
class Ended:
    """How a step's process ended.

    Attributes:
        status: its exit status; negative: the signal that killed it.
        last_line: what it said last on standard error.
    """

    status: int
    last_line: str


def run_command(words: Sequence[str], folder: Path, work: Path, lock: int) -> Ended:
    """Run ``gascnn WORD...`` in a folder; it writes to our own standard output and error.

    It has a session of its own, so that a Ctrl-C reaches it once, from here. When this function is left, for whatever
    reason, none of its processes is alive; when this process is killed, the kernel kills it.

    Args:
        words: of the command.
        folder: the current folder of the command.
        work: an existing folder for its last line.
        lock: a descriptor that it holds as long as it lives.

    Raises:
        BackendError: it could not be started.
        KeyboardInterrupt: as it came; the command has ended.
    """
    said = work / LAST_LINE_FILE
    said.unlink(missing_ok=True)
    command = [sys.executable, "-c", _START, str(os.getpid()), str(folder), str(said), *words]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=(lock,))
    except OSError as error:
        raise BackendError(f"could not start {sys.executable}: {error.strerror}") from error
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    except KeyboardInterrupt:
        _interrupt(process.pid)
        raise
    finally:
        # It is not reaped before its group is gone, so that the group's number still is its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    line = said.read_text(encoding="utf-8") if said.is_file() else ""
    said.unlink(missing_ok=True)  # it may name files of the data set
    return Ended(process.returncode, line.removeprefix("error: "))


def _interrupt(pid: int) -> None:
    """Give it the time to end by itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError, KeyboardInterrupt):
        os.killpg(pid, signal.SIGINT)
        deadline = time.monotonic() + _INTERRUPT_LIMIT_S
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            time.sleep(0.02)
