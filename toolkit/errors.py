"""The exceptions this package raises for reasons a user can act on.

Each message says what was found, what is allowed and what to do; the command line prints it in one line and ends
with ``exit_status`` (1: a check failed or a backend broke, 2: wrong use or bad input).
"""

from __future__ import annotations


class GascnnError(Exception):
    """Base of all errors raised on purpose."""

    exit_status = 2


class UsageError(GascnnError, ValueError):
    """An argument or option that cannot be used as given."""


class FormatError(GascnnError, ValueError):
    """A file that is missing, truncated, or not what it claims to be."""


class DataError(GascnnError, ValueError):
    """Images or labels that cannot be used: unreadable, of the wrong shape or kind, NaN."""


class ConversionError(GascnnError, ValueError):
    """A network that cannot be turned into spikes exactly; names the node and the remedy."""


class LimitError(GascnnError, ValueError):
    """A number the target cannot hold: names layer, value, limit and remedy."""


class TrainingError(GascnnError, RuntimeError):
    """Training that cannot go on, such as a loss that is not a number."""

    exit_status = 1


class BackendError(GascnnError, RuntimeError):
    """A backend that is not there, died, or ran out of time."""

    exit_status = 1


class CheckFailed(GascnnError, AssertionError):  # noqa: N818 - the outcome of a check, not a fault
    """A verification that came out negative."""

    exit_status = 1


def first_line(error: BaseException) -> str:
    """What somebody else's exception says, for a message of ours: its first line, or its type if it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
