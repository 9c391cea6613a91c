"""Entry point of the worker: ``python main.py FOLDER EVENTS LIFELINE`` (a job's folder and two file descriptors).

Lava prints on stdout, so what happens is told as JSON lines on a descriptor of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import types
from pathlib import Path

PACKAGE = "gascnn.hardware.lava.worker"


def provide_package() -> None:
    """Make this folder, and nothing else of the project, importable under its installed name."""
    parts = PACKAGE.split(".")
    for depth in range(1, len(parts) + 1):
        module = types.ModuleType(".".join(parts[:depth]))
        module.__path__ = [str(Path(__file__).resolve().parent)] if depth == len(parts) else []
        sys.modules[module.__name__] = module


def main(arguments: list[str]) -> int:
    """Run the job in a folder.

    Args:
        arguments: the folder with ``job.json``, a descriptor to write events to, and one that ends with the parent.

    Returns:
        Exit status: 0 when every run finished.
    """
    folder, events, lifeline = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    from gascnn.hardware.lava.worker import guard
    from gascnn.hardware.lava.worker.events import Events, cause_of

    guardian = guard.start_guardian(lifeline, folder, closing=events)
    guard.die_with_parent()
    emit = Events(events)
    try:
        guard.name_shared_resources(folder.name)
        from gascnn.hardware.lava.worker.session import run_job

        run_job(folder, emit)
        emit("finished")
        guard.end_children()
        os.waitpid(guardian, 0)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk must not keep the cause from being told
            traceback.print_exc()
        emit("error", cause=cause_of(error))
        return 1
    return 0


if __name__ == "__main__":
    provide_package()
    status = main(sys.argv[1:])
    # Interpreter exit would call Lava's destructors, which hang after a failure.
    os._exit(status)
