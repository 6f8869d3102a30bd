"""What of a transfer is cut, when, and why.

    canceled    reads at once; changes when their grace ends; what has everything of its client never
    stopped     the same, as the service stops: the client is told to try again
    expired     whatever stood still until its ticket expired
    ended       clients that are attached when the lifetime of the ticket is over
    stalled     what has stood still for the longest, when one connection more wants to use the ticket

Whatever is cut is asked first, and can tell its client; the second time its connection and its backend are interrupted.

Knows neither locks nor the clock: a transfer guards what is here with its own, and tells the time.
"""

from __future__ import annotations

import logging
import math

from ovirt_imageio import errors
from ovirt_imageio.auth.links import Link, Links, Running

__all__ = ["CANCELED", "MAX_CONNECTIONS", "STOPPED", "Cutter"]

log = logging.getLogger("auth")

# Far more than a client gains from. Each may keep buffers, of ours and of the kernel, for as long as its client likes:
# with 900 that stood still a good one moved 0.2 to 16 MiB/s instead of 200 to 500.
MAX_CONNECTIONS = 128

# What stood still for this many seconds gives way when there are too many.
STALLED_SECONDS = 10.0

CANCELED = "its ticket was canceled"
STOPPED = "the service stops"
EXPIRED = "it stood still until its ticket expired"
ENDED = "its ticket has ended"
STALLED = "it stood still, and its ticket has no more connections to spare"


class Cutter:
    """Cuts what uses the links of a transfer, whose name is for the log.

    Never blocks, but for what Connection.abort() and Backend.interrupt() do, which do not.

    Threads: one at a time.
    """

    def __init__(self, links: Links, name: str) -> None:
        self._links = links
        self._name = name
        # When changes are cut too, once canceled.
        self._grace_ends = math.inf

    def end_grace(self, when: float) -> None:
        """Give changes time until then; an earlier end holds."""
        self._grace_ends = min(self._grace_ends, when)

    def cut_canceled(self, now: float, reason: str = CANCELED) -> None:
        """Cut what a canceled ticket does not permit any more, and that was not cut yet."""
        self._cut_openings(reason)
        for running in self._links.running:
            if running.cut_reason is None and self._may_be_cut(running, now):
                self._cut(running, reason)

    def cut_canceled_again(self, now: float, reason: str = CANCELED) -> None:
        """Cut it, and interrupt what was asked to end and did not."""
        self._cut_openings(reason)
        for running in self._links.running:
            if self._may_be_cut(running, now):
                self._cut(running, reason)
        for link in self._links.between_operations():
            if link.backend is not None:
                link.backend.interrupt()

    def cut_expired(self) -> None:
        """Cut everything: it stood still for so long that its ticket expired."""
        for running in self._links.running:
            self._cut(running, EXPIRED)
        self._cut_openings(EXPIRED)

    def cut_ended(self) -> None:
        """Cut what never ends by itself: the lifetime of the ticket is over. What moves still may come to its end."""
        for running in self._links.running:
            if running.operation.is_endless:
                self._cut(running, ENDED)
        self._cut_openings(ENDED)

    def make_room(self, now: float, limit: int) -> None:
        """Cut one of `limit` connections, for another one to take its place.

        Raises errors.TooManyConnections if none stands still.
        """
        left = self._links.find_left()
        if left is not None:
            # Its thread has not come to close it: it takes its time, or many clients come and go.
            left.connection.abort()
            return
        stalled = self._links.find_stalled(now, STALLED_SECONDS)
        if stalled is None:
            raise errors.TooManyConnections(limit)
        self._cut(stalled, STALLED)
        # At once: what stands still does not notice that it is asked.
        stalled.cut(STALLED)

    def _may_be_cut(self, running: Running, now: float) -> bool:
        has_grace = running.operation.is_changing and now < self._grace_ends
        return not running.operation.is_finishing and not has_grace

    def _cut(self, running: Running, reason: str) -> None:
        if running.cut_reason is None:
            self._log(running.link, running.operation, reason)
        running.cut(reason)

    def _cut_openings(self, reason: str) -> None:
        for link, line in self._links.opening():
            if not line.is_cut:
                self._log(link, "opening the disk", reason)
            line.cut()

    def _log(self, link: Link, what: object, reason: str) -> None:
        log.info("CUT transfer=%s connection=%d: %s: %s", self._name, link.connection.id, what, reason)
