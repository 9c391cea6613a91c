"""A contender's process seen from here: started, asked, and certainly ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from gascnn.benchmarks.contenders import Contender
from gascnn.benchmarks.peers import worker
from gascnn.hardware.lava.worker import guard
from gascnn.toolkit.errors import BackendError

WORKER = Path(worker.__file__)

_READ_BYTES = 1 << 16
_END_LIMIT_S = 10.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Child:
    """One contender, alive until the block ends.

    Args:
        contender: who.
        plan: what :func:`gascnn.benchmarks.plan.write_plan` wrote.
        threads: for those that may use several.
        python: the peers' interpreter; ours runs ours.
        time_limit_s: for any one answer.
        script: what is run, told the contender, the plan and the number of threads.

    Raises:
        BackendError: it could not be started, failed, died or took too long; one line with the cause.
    """

    def __init__(
        self,
        contender: Contender,
        plan: Path,
        threads: int,
        python: Path | None,
        *,
        time_limit_s: float = 3600.0,
        script: Path = WORKER,
    ) -> None:
        self.contender = contender
        self.threads = 1 if contender.one_thread else threads
        self._limit_s = time_limit_s
        self._unread = b""
        self._unanswered = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        # A peer sees nothing of this interpreter's settings; ours needs what makes the project importable.
        command = [sys.executable] if not contender.packages else [str(python), "-I"]
        # Each library's threads wait as it has them wait: OMP_WAIT_POLICY, which our command line sets, slows some.
        variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        try:
            self._process = subprocess.Popen(
                [*command, "-B", str(script), contender.name, str(plan), str(self.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**variables, **dict.fromkeys(_THREAD_VARIABLES, str(self.threads))},
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise BackendError(f"{contender.name}: could not start {command[0]}: {error.strerror}") from error
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        try:
            ready = self._answer()
            self.versions: dict[str, str] = ready["versions"]
            self.options: list[str] = ready["options"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Give an order and wait for the answer.

        Raises:
            BackendError: see the class.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer tells why
            self._process.stdin.write((json.dumps({"do": do, **values}) + "\n").encode())
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process, and whatever it started."""
        if self._log.closed:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # the end of its orders: a worker that waits ends by itself
        deadline = time.monotonic() + (0 if self._unanswered else _END_LIMIT_S)
        while not self._ended and time.monotonic() < deadline:
            time.sleep(0.01)
        # It is not reaped before its group is gone, so that the group's number still is its own.
        guard.end_group(self._process.pid)
        self._process.wait()
        self._process.stdout.close()
        self._selector.close()
        self._log.close()

    @property
    def _ended(self) -> bool:
        """Whether the process ended, without reaping it."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # this program ignores SIGCHLD, and the kernel reaped it
            return True

    def _answer(self) -> dict[str, Any]:
        self._unanswered = True
        deadline = time.monotonic() + self._limit_s
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise BackendError(f"{self.contender.name}: no answer within {self._limit_s:g} s")
            assert self._process.stdout is not None
            data = os.read(self._process.stdout.fileno(), _READ_BYTES)
            if not data:
                raise BackendError(f"{self.contender.name}: its process ended{self._last_words()}")
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        try:
            answer: dict[str, Any] = json.loads(line)
            good = answer["ok"] is True
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(f"{self.contender.name}: its process said {line[:80]!r}, which is no answer") from error
        self._unanswered = False
        if not good:
            raise BackendError(f"{self.contender.name}: {answer.get('error', 'failed without a word')}")
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        status = self._process.returncode
        how = f" with status {status}" if status >= 0 else f", killed by {signal.Signals(-status).name}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"{how} ({lines[-1].strip()})" if lines else how
