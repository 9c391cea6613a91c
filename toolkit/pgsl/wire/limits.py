"""What one caller may ask of the server: how often, how large, how slowly. And who may ask at all."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gascnn.toolkit.errors import FormatError

ROLES = ("train", "infer", "metrics")
"""Each may do what those behind it may."""

MOST_CALLERS = 4096
"""Whose rate is remembered; the one that was quiet for longest is forgotten first."""

LONGEST_NAME = 64


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    Attributes:
        body_bytes: of one request.
        pending_bytes: of all requests that are being read or answered.
        body_s: seconds for a body to arrive.
        requests_per_s: of one client, on average.
        burst: requests of one client at once.
        failures_per_s: wrong tokens from one address, on average.
        failures_burst: wrong tokens from one address at once.
    """

    body_bytes: int
    pending_bytes: int
    body_s: float = 60.0
    requests_per_s: float = 100.0
    burst: int = 200
    failures_per_s: float = 2.0
    failures_burst: int = 20


class RateLimit:
    """A token bucket for each caller.

    Args:
        per_s: requests a second, on average.
        burst: requests at once.
        clock: seconds, of any beginning.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s, self.burst, self._clock = per_s, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """Seconds to wait before a request is allowed; 0 allows it."""
        left = self._left(caller)
        return 0.0 if left >= 1 else (1 - left) / self.per_s

    def take(self, caller: str) -> None:
        """Count a request."""
        self._buckets[caller] = (self._left(caller) - 1, self._clock())
        self._buckets.move_to_end(caller)
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)

    def _left(self, caller: str) -> float:
        left, then = self._buckets.get(caller, (float(self.burst), 0.0))
        return min(float(self.burst), left + (self._clock() - then) * self.per_s)


@dataclass(frozen=True)
class Caller:
    """Who holds a token.

    Attributes:
        name: of the client.
        role: one of :data:`ROLES`.
        sha256: of its token; the token itself is with the client alone.
    """

    name: str
    role: str
    sha256: str

    def may(self, role: str) -> bool:
        """Whether this caller may do what ``role`` may."""
        return ROLES.index(self.role) <= ROLES.index(role)


class Callers:
    """All that the server knows.

    Args:
        callers: in the order of their turns.
    """

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self._callers = dict(callers)

    @property
    def trainers(self) -> tuple[str, ...]:
        """Names of those that train."""
        return tuple(name for name, caller in self._callers.items() if caller.role == "train")

    def find(self, token: str) -> Caller | None:
        """Who holds this token. The time it takes is the same for all tokens, wrong ones included."""
        given = token_sha256(token)
        found = None
        for caller in self._callers.values():
            if hmac.compare_digest(given, caller.sha256):
                found = caller
        return found

    @classmethod
    def read(cls, path: Path) -> Callers:
        """From a file that :func:`gascnn.toolkit.pgsl.wire.tls.make_keys` wrote.

        Raises:
            FormatError: not there, or not such a file.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: no readable list of tokens; make one with 'gascnn pgsl keys'") from error
        entries = found.get("clients") if isinstance(found, dict) else None
        if not isinstance(entries, dict) or not entries or not all(map(_good_entry, entries.items())):
            raise FormatError(f"{path}: not a list of tokens; make one with 'gascnn pgsl keys'")
        return cls({name: Caller(name, entry["role"], entry["sha256"]) for name, entry in entries.items()})


def token_sha256(token: str) -> str:
    """Of a token. Tokens are 256 random bits, so their hash need not be slow."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def good_name(name: str) -> bool:
    """Whether a client may be called so: it becomes a file's name and a label of the metrics."""
    return 0 < len(name) <= LONGEST_NAME and name.isascii() and name.replace("-", "").replace("_", "").isalnum()


def _good_entry(item: tuple[str, object]) -> bool:
    name, entry = item
    if not good_name(name) or not isinstance(entry, dict) or entry.get("role") not in ROLES:
        return False
    digest = entry.get("sha256")
    return isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
