"""Look after Lava's processes: where one of them ends, Lava waits for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any, NamedTuple

from gascnn.hardware.lava.worker.events import Events, cause_of

_WATCH_INTERVAL_S = 0.25
_LAST_WORDS_S = 2.0


class Watch:
    """Looks after Lava's processes while this one waits for them: where one of them ends, Lava waits for ever.

    Args:
        process: a process of the graph about to run.
        emit: told what went wrong; then this process ends.
    """

    def __init__(self, process: Any, emit: Events) -> None:
        self._process, self._emit = process, emit
        self._first_seen_s: float | None = None
        signal.signal(signal.SIGALRM, lambda *_: self.look())
        signal.setitimer(signal.ITIMER_REAL, _WATCH_INTERVAL_S, _WATCH_INTERVAL_S)

    def end(self) -> None:
        """Stop looking."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the handler would keep the graph

    def look(self) -> None:
        """End this process if one of Lava's has ended."""
        messaging = getattr(self._process.runtime, "_messaging_infrastructure", None)
        if messaging is None:
            return
        ends = [end for end in map(_end_of, messaging.actors) if end is not None]
        manager = getattr(messaging.smm, "_manager", None)
        server = getattr(manager, "_process", None)
        if server is not None and server.exitcode is not None:
            ends.append(_End(_KILLED, "Lava's shared-memory manager ended"))
        if not ends:
            return
        # What one process raised says more than that others ended after it, and may arrive a moment later.
        worst = max(ends, key=lambda end: end.weight)
        self._first_seen_s = self._first_seen_s or time.monotonic()
        if worst.weight > _ENDED or time.monotonic() - self._first_seen_s > _LAST_WORDS_S:
            self._emit("error", cause=worst.cause)
            os._exit(1)


_ENDED, _KILLED, _RAISED = range(3)


class _End(NamedTuple):
    """How a process of Lava ended, and how much that says about the cause."""

    weight: int
    cause: str


def _end_of(actor: Any) -> _End | None:
    """How a process of Lava (of its subclass of multiprocessing.Process) ended, or None while it runs."""
    try:
        raised = actor.exception
        code = actor.exitcode
    except (ValueError, OSError, EOFError):  # closed: Lava itself has just found out
        raised, code = vars(actor).get("_exception"), None
    if raised is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{raised[1]}\n")  # the log
        return _End(_RAISED, cause_of(raised[0]))
    if code is None:
        return None
    if code < 0:
        hint = ": the shared memory in /dev/shm ran out" if code == -signal.SIGBUS else ""
        return _End(_KILLED, f"one of Lava's processes was killed by {signal.Signals(-code).name}{hint}")
    return _End(_ENDED, f"one of Lava's processes ended with status {code}")
