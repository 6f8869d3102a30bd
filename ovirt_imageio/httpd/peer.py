"""A connection, as a handler knows it, and whatever a handler lends it to.

Knows the stream of bytes only as a thing that can be interrupted; nothing of requests.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import Optional

from ovirt_imageio.httpd.stream import Stream
from ovirt_imageio.measure.clock import Clock

__all__ = ["Peer"]

log = logging.getLogger("http")

# No time-out is shorter: zero would mean not to wait at all.
SHORTEST_TIMEOUT = 0.01

numbers = itertools.count(1)


class Peer:
    """The client at the other end. `id` counts from 1 over all servers, `client` is its address.

    `clock` times what happens on the connection. `is_stopping` is set to stop it: the response that is being made will
    be the last one.

    Threads: any for `abort`, `waits_since`, `is_aborted`, `has_left`, `activity` and `is_stopping`; all else is the
    connection's own.
    """

    def __init__(self, stream: Stream, client: str) -> None:
        self.id = next(numbers)
        self.client = client
        self.clock = Clock()
        self.is_stopping = False
        # That of the request that is answered now, checked; None if it has none.
        self.traceparent: Optional[str] = None
        # True from the first byte of a request to the last one of its response.
        self.is_busy = False
        # True until the first request comes.
        self.is_new = True
        self._stream = stream
        self._closers: list[Callable[[], None]] = []
        self._needs: list[Callable[[], bool]] = []
        # Since when it waits for a request; None while it answers one.
        self._waits_since: Optional[float] = time.monotonic()

    @property
    def waits_since(self) -> Optional[float]:
        """Since when it waits for a request, while nothing else keeps it open; None if it does not. Threads: any."""
        return None if self._needs else self._waits_since

    @property
    def is_aborted(self) -> bool:
        """True after abort()."""
        return self._stream.is_interrupted

    @property
    def encryption(self) -> str:
        """What encrypts, as Stream tells it: "none", "memory", "kernel", "kernel-send" or "openssl". Threads: any."""
        return self._stream.encryption

    def activity(self) -> int:
        """Return a number that changes when the client gives or takes something. Never blocks."""
        return self._stream.activity()

    def has_left(self) -> bool:
        """Return True if the client will send nothing more than what was sent already. Never blocks."""
        return self._stream.has_left()

    def abort(self) -> None:
        """Shut the socket down, so that whatever blocks on it returns at once. Never blocks."""
        self._stream.interrupt()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back, in this connection's thread, when no more requests can come; the last one added first."""
        self._closers.append(callback)

    def set_timeout(self, seconds: float) -> None:
        """Wait this long for progress of each receive and send from now on."""
        self._stream.timeout = max(seconds, SHORTEST_TIMEOUT)

    def stay_while(self, is_needed: Callable[[], bool]) -> None:
        """Keep the connection open beyond its idle time-out while is_needed() is true."""
        self._needs.append(is_needed)

    # What the connection itself uses.

    def is_needed(self) -> bool:
        """Return True if an idle connection should stay open."""
        return any(is_needed() for is_needed in self._needs)

    def call_closers(self) -> None:
        """Call each of them once, the last one first."""
        while self._closers:
            try:
                self._closers.pop()()
            except Exception:
                log.exception("Cannot clean up connection=%s client=%s", self.id, self.client)
