"""Start the worker, watch it, and leave nothing behind: no process, no shared memory, no file."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from gascnn.hardware.lava.environment import LavaEnvironment
from gascnn.hardware.lava.worker import guard
from gascnn.toolkit.errors import BackendError

WORKER = Path(guard.__file__).with_name("main.py")
LOG = "worker.log"
PREFIX = "gascnn-lava-"

_LOOK_INTERVAL_S = 0.1
_END_LIMIT_S = 20.0
_LOG_KEPT_BYTES = 1 << 20
_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class TimeLimits:
    """How long Lava may take.

    Attributes:
        total_s: for the whole job; None for no limit.
        inactivity_s: without a sign of life, such as a finished time step.
    """

    total_s: float | None = None
    inactivity_s: float = 600.0


@contextlib.contextmanager
def job_folder() -> Iterator[Path]:
    """A fresh private folder that is removed at the end; its name is unique on this machine while it exists."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:
        raise BackendError(f"no temporary folder for Lava ({error}); free some space or set TMPDIR") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def supervise(
    environment: LavaEnvironment, folder: Path, limits: TimeLimits, progress: Callable[[], int] | None = None
) -> None:
    """Run the job in ``folder`` to its end.

    Args:
        environment: Lava's interpreter.
        folder: holds ``job.json`` and what it names; the worker writes its results there.
        limits: of time.
        progress: called about ten times a second; returns a number that grows while Lava gets on.

    Raises:
        BackendError: the worker could not be started, failed, died or ran out of time; one line with the cause.
    """
    with _Worker(environment, folder) as worker:
        started = last_sign = time.monotonic()
        seen: int | None = None
        while True:
            events = worker.events(_LOOK_INTERVAL_S)
            now = time.monotonic()
            for event in events:
                last_sign = now
                if event["event"] == "error":
                    raise worker.failure(str(event["cause"]))
                if event["event"] == "finished":
                    worker.let_go()
                    return
            if progress is not None and (reached := progress()) != seen:
                seen, last_sign = reached, now
            if not events and worker.ended:
                raise worker.failure(worker.cause_of_death())
            if limits.total_s is not None and now - started > limits.total_s:
                raise worker.failure(f"no result within the time limit of {limits.total_s:g} s")
            if now - last_sign > limits.inactivity_s:
                raise worker.failure(f"no sign of life for {limits.inactivity_s:g} s")


class _Worker:
    """The worker's process, from start to certain end."""

    def __init__(self, environment: LavaEnvironment, folder: Path) -> None:
        self._folder = folder
        self._network = self._image = ""
        self._unread = b""
        self._selector = selectors.DefaultSelector()
        self._events, events = os.pipe()
        self._lifeline, lifeline = socket.socketpair()
        try:
            with (folder / LOG).open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        *(str(environment.python), "-I", "-B", "-u", str(WORKER)),
                        *(str(folder), str(events), str(lifeline.fileno())),
                    ],
                    cwd=folder,
                    env=_worker_variables(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(events, lifeline.fileno()),
                    start_new_session=True,
                )
        except OSError as error:
            self._close()
            raise BackendError(f"could not start Lava's interpreter {environment.python}: {error.strerror}") from error
        finally:
            os.close(events)
            lifeline.close()
        self._selector.register(self._events, selectors.EVENT_READ)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The worker is not reaped before its group is gone, so that the group's number still is its own.
        guard.end_group(self._process.pid)
        self._process.wait()
        guard.remove_shared_memory(self._folder.name)
        self._release_guardian()
        self._close()

    @property
    def ended(self) -> bool:
        """Whether the worker's process ended, without reaping it."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # this program ignores SIGCHLD, and the kernel reaped it
            return True

    def events(self, timeout_s: float) -> list[dict[str, Any]]:
        """What the worker said since the last call; waits for it at most ``timeout_s``."""
        events = []
        while self._selector.select(timeout_s):
            data = os.read(self._events, _READ_BYTES)
            if not data:
                self._selector.unregister(self._events)
                break
            *lines, self._unread = (self._unread + data).split(b"\n")
            events += [_parsed(line) for line in lines]
            timeout_s = 0.0
        for event in events:
            if event["event"] == "network":
                several = event["networks"] > 1
                self._network = f" of network {event['number']} of {event['networks']}" if several else ""
            elif event["event"] == "image":
                self._image = f" at image {event['number']}"
        return events

    def let_go(self) -> None:
        """Let the worker end by itself after it finished: it then has reaped its own children."""
        self._release_guardian()
        deadline = time.monotonic() + _END_LIMIT_S
        while not self.ended and time.monotonic() < deadline:
            time.sleep(0.005)

    def cause_of_death(self) -> str:
        """One line on how the worker ended without saying why."""
        cause = "its process ended"
        with contextlib.suppress(ChildProcessError):
            status = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            if status is not None and status.si_code == os.CLD_EXITED:
                cause = f"its process ended with status {status.si_status}"
            elif status is not None:
                cause = f"its process was killed by {signal.Signals(status.si_status).name}"
        lines = self._log().decode(errors="replace").strip().splitlines()
        return f"{cause} ({lines[-1].strip()})" if lines else cause

    def failure(self, cause: str) -> BackendError:
        """The error to raise; keeps the worker's log, if it holds anything."""
        message = f"Lava failed{self._image}{self._network}: {cause}"
        log = self._log()
        if not log.strip():
            return BackendError(message)
        try:
            descriptor, kept = tempfile.mkstemp(prefix=PREFIX, suffix=".log")
            with os.fdopen(descriptor, "wb") as file:
                file.write(log)
        except OSError:
            return BackendError(message)
        return BackendError(f"{message}; what it printed is in {kept}")

    def _log(self) -> bytes:
        with contextlib.suppress(OSError):
            return (self._folder / LOG).read_bytes()[-_LOG_KEPT_BYTES:]
        return b""

    def _release_guardian(self) -> None:
        with contextlib.suppress(OSError):
            self._lifeline.send(guard.ALL_DONE)
            # The guardian's end of the line closes with it; the limit is for one that was stopped.
            self._lifeline.settimeout(_END_LIMIT_S)
            self._lifeline.recv(1)
        self._lifeline.close()

    def _close(self) -> None:
        self._lifeline.close()
        self._selector.close()
        os.close(self._events)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
        return {**event, "event": str(event["event"])}
    except (ValueError, KeyError, TypeError):
        return {"event": "error", "cause": f"its worker said {line[:80]!r}, which is no event"}


def _worker_variables(folder: Path) -> dict[str, str]:
    """The worker's environment variables: ours, less Python's settings, one thread a process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **threads, "MPLBACKEND": "Agg", "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": ""}
