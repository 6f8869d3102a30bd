"""When to go on: no faster than a bandwidth, and not at once after a failure.

Knows a clock and a way to wait; both are arguments.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Callable, Optional

from ovirt_imageio import errors

__all__ = ["BACKOFF", "MAX_BACKOFF", "Throttle", "backoff"]

# The first pause after a failure, in seconds; it doubles each time, up to the maximum.
BACKOFF = 0.25
MAX_BACKOFF = 10.0

# How much of the time in which nothing moved may be caught up.
BURST = 0.25


def backoff(retries: int, dice: Callable[[], float] = random.random) -> Iterator[float]:
    """Yield the seconds to wait before each new attempt; a part is random, so that many clients do not come at once."""
    for attempt in range(retries):
        yield min(MAX_BACKOFF, BACKOFF * 2**attempt) * (0.5 + dice() / 2)


class Throttle:
    """Keeps all workers together below a bandwidth, in bytes per second.

    Threads: any.
    """

    def __init__(
        self,
        bandwidth: Optional[float],
        now: Callable[[], float] = time.monotonic,
        wait: Optional[Callable[[float], object]] = None,
    ) -> None:
        if bandwidth is not None and not bandwidth > 0:
            raise errors.InvalidValue("bandwidth", bandwidth, "a positive number of bytes per second")
        self._bandwidth = bandwidth
        self._now = now
        self._is_stopped = threading.Event()
        self._wait = wait or self._is_stopped.wait
        self._lock = threading.Lock()
        # When all that was moved so far should have been moved.
        self._due = now()

    def take(self, count: int) -> None:
        """Account for bytes that were moved, and wait until more may be."""
        if self._bandwidth is None:
            return
        with self._lock:
            now = self._now()
            self._due = max(self._due, now - BURST) + count / self._bandwidth
            pause = self._due - now
        if pause > 0:
            self._wait(pause)

    def pause(self, seconds: float) -> None:
        """Wait, but not after stop()."""
        self._wait(seconds)

    def stop(self) -> None:
        """Wake the threads that wait, and let none wait any more."""
        self._is_stopped.set()
