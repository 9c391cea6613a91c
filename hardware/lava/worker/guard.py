"""Nothing outlives its owner: processes, shared memory and files of a worker end with it and with its parent.

Three lines of defence: the parent kills the worker's process group; a guardian process does the same when the parent
itself is gone; and the kernel kills each Lava process whose worker died. Standard library only: the parent uses the
functions on processes and shared memory too.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from multiprocessing import process as multiprocessing_process
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

_PR_SET_PDEATHSIG = 1
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory, not a place for files
_RANDOM_CHARACTERS = 8
_END_LIMIT_S = 10.0
ALL_DONE = b"d"
"""What the parent sends the guardian when there is nothing left to guard."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, and later forks of it when it ends (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        here = os.getpid()

        def in_child() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != here:
                os._exit(1)

        os.register_at_fork(after_in_child=in_child)


def start_guardian(lifeline: int, folder: Path, closing: int) -> int:
    """Fork a process that waits for the parent's end and then removes what the worker left.

    Args:
        lifeline: a descriptor whose other end only the parent holds.
        folder: the job's folder, whose name is the prefix of the worker's shared memory.
        closing: a descriptor the guardian must not keep open.

    Returns:
        The guardian's process id.
    """
    group = os.getpid()
    guardian = os.fork()
    if guardian:
        os.close(lifeline)
        return guardian
    try:
        os.setpgid(0, 0)
        os.chdir("/")
        os.close(closing)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.read(lifeline, 1) != ALL_DONE:
            end_group(group)
            remove_shared_memory(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os._exit(0)


def name_shared_resources(prefix: str) -> None:
    """Name shared memory, semaphores and sockets so that whoever cleans up can find them.

    Args:
        prefix: unique to this worker; the current folder must be the job's, where the sockets go.
    """
    shared = vars(shared_memory)
    shared["_SHM_NAME_PREFIX"] = f"/{prefix}."
    shared["_SHM_SAFE_NAME_LENGTH"] = len(prefix) + 2 + _RANDOM_CHARACTERS
    sockets = Path("sockets")
    sockets.mkdir()
    # A relative path: that of a socket must not exceed 107 characters.
    vars(multiprocessing_process.current_process())["_config"].update(semprefix=f"/{prefix}.", tempdir=str(sockets))


def remove_shared_memory(prefix: str) -> None:
    """Unlink the shared memory and semaphores of one worker."""
    for pattern in (f"{prefix}.*", f"sem.{prefix}.*"):
        for entry in SHARED_MEMORY.glob(pattern):
            entry.unlink(missing_ok=True)


def end_children() -> None:
    """Kill and reap the children of this process, so that nobody else has to."""
    for child in multiprocessing.active_children():
        child.kill()
    for child in multiprocessing.active_children():
        child.join()
    tracker = vars(resource_tracker)["_resource_tracker"]
    with contextlib.suppress(ChildProcessError):
        tracker._stop()


def end_group(group: int) -> None:
    """Kill a process group and wait until none of it is alive."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + _END_LIMIT_S
    while any(True for _ in group_members(group)) and time.monotonic() < deadline:
        time.sleep(0.01)


def group_members(group: int) -> Iterator[int]:
    """Process ids in a group, those aside that are dead and only wait to be reaped."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # "pid (name) state ppid pgrp ...", and the name may hold anything.
            state, _, member_of = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(member_of) == group and state not in "ZX":
            yield int(entry.name)
