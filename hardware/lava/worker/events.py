"""What the worker tells its parent: one JSON object a line."""

from __future__ import annotations

import json
import os


class Events:
    """Writes events to a descriptor.

    Args:
        descriptor: the writing end of a pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, event: str, **values: object) -> None:
        """Send one event; its name and whatever JSON can hold."""
        os.write(self._descriptor, (json.dumps({"event": event, **values}) + "\n").encode())


def cause_of(error: BaseException) -> str:
    """One line that says what an exception is about."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
