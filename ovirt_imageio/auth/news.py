"""The version of what a transfer tells of itself, and the threads that wait for another one.

Knows nothing of what the versions are of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Optional

__all__ = ["News"]

# A wait for changes looks this often at what moves without telling.
POLL_SECONDS = 0.25


class News:
    """A version that grows with each change, under the lock of whatever changes.

    Threads: any number at once, each with the lock held. A thread that waits lets go of it meanwhile.
    """

    def __init__(self, lock: threading.Lock, versions: Iterator[int]) -> None:
        self._lock = lock
        self._versions = versions
        self._changed = threading.Condition(lock)
        # How many threads wait: most changes interest none, and cost no call.
        self._waiting = 0
        self.version = next(versions)

    def note_change(self) -> None:
        """Begin a new version, and wake the threads that wait for one."""
        assert self._lock.locked()
        self.version = next(self._versions)
        if self._waiting:
            self._changed.notify_all()

    def wait_change(
        self, since: Optional[int], seconds: float, look: Callable[[], None], is_over: Callable[[], bool]
    ) -> None:
        """Wait until the version differs from `since` (None: from what it is now), at most `seconds`.

        `look` is called now and then, to notice what moves without telling; `is_over` is asked whether the wait is
        still wanted.
        """
        deadline = time.monotonic() + seconds
        look()
        if since is None:
            since = self.version
        while self.version == since and not is_over() and (left := deadline - time.monotonic()) > 0:
            self._wait(min(left, POLL_SECONDS))
            look()

    def wait_for(self, is_true: Callable[[], bool], seconds: float) -> bool:
        """Wait for a change after which `is_true`, at most `seconds`; return whether it is."""
        deadline = time.monotonic() + seconds
        while not is_true() and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
        return is_true()

    def _wait(self, seconds: float) -> None:
        self._waiting += 1
        try:
            self._changed.wait(seconds)
        finally:
            self._waiting -= 1
