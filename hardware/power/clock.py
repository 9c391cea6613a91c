"""Time, waiting and a background thread that samples; one object, so that tests can put their own in its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_JOIN_S = 10.0


class Clock:
    """The machine's clock."""

    def now_s(self) -> float:
        """Seconds that only ever go forward, from an arbitrary zero."""
        return time.monotonic()

    def epoch_s(self) -> float:
        """Seconds since 1970-01-01 UTC, for comparison with another device's log."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def every(self, period_s: float, call: Callable[[], bool]) -> Callable[[], None]:
        """Call ``call`` in a thread at every multiple of ``period_s`` until it returns False.

        Multiples that pass while a call still runs are left out. ``call`` must not raise.

        Returns:
            A function that ends the thread and waits for it.
        """
        stopped = threading.Event()

        def loop() -> None:
            start = time.monotonic()
            while not stopped.wait(period_s - (time.monotonic() - start) % period_s):
                if not call():
                    return

        thread = threading.Thread(target=loop, name="gascnn-power-sampler", daemon=True)
        thread.start()

        def stop() -> None:
            stopped.set()
            thread.join(_JOIN_S)

        return stop
