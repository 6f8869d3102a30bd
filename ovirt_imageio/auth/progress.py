"""How far a transfer came: what was moved, how fast, and what went wrong last.

Knows neither locks nor the clock: a transfer guards what is here with its own, and tells the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.links import Running
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.ticket import short
from ovirt_imageio.geometry.ranges import Ranges
from ovirt_imageio.measure.clock import RateMeter

__all__ = ["Progress", "describe_error"]


class Progress:
    """Adds up what the operations of one transfer do.

    `is_upload`: the ticket permits to write, so verifying the disk transfers nothing.

    Threads: one at a time.
    """

    def __init__(self, observer: TicketObserver, *, is_upload: bool) -> None:
        self.last_error: Optional[str] = None
        self._observer = observer
        self._is_upload = is_upload
        self._ranges = Ranges()
        # Bytes that came from clients, and that went to them, however often.
        self._received = 0
        self._sent = 0
        self._meter = RateMeter()

    @property
    def transferred(self) -> int:
        """How many distinct bytes of the disk were moved."""
        return self._ranges.total

    @property
    def rate(self) -> int:
        """How many bytes are moved per second, these days."""
        return int(self._meter.rate())

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The parts of the disk that were moved."""
        return tuple(self._ranges)

    def resume(self, ranges: Iterable[tuple[int, int]], last_error: Optional[str]) -> None:
        """Go on where another process left off."""
        self._ranges = Ranges(ranges)
        self.last_error = last_error

    def describe(self, is_one_way: bool, running: Iterable[Running] = ()) -> dict[str, Any]:
        """Return what came of it, as the control service shows it, with what running operations have sent.

        Of a transfer that goes both ways, one number for what was read and what was written would tell nothing.
        """
        transferred = {"transferred": self.transferred + sum(map(self._unconfirmed, running))} if is_one_way else {}
        counts = {"rate": self.rate, "received": self._received, "sent": self._sent}
        return {"last_error": self.last_error, **counts, **transferred}

    def observe(self, running: Iterable[Running], now: float) -> tuple[bool, bool]:
        """Account for what operations moved since the last look; return whether they did, and whether they live.

        They are looked at instead of reporting, so that moving data pays nothing for being watched.
        """
        has_moved = is_alive = False
        for one in running:
            is_active = one.is_client_active()
            if self.account(one):
                has_moved = True
                # What still moves after a cut, on its way out of buffers, does not revive a ticket that has expired.
                is_alive = is_alive or one.cut_reason is None
                one.moved = now
            elif one.cut_reason is None and (is_active or one.operation.is_finishing):
                # It takes minutes for a step, or the client did its part and waits for slow storage.
                is_alive = True
                one.moved = now
            one.link.sample(now)
        self._sample(now)
        return has_moved, is_alive

    def begin(self, now: float) -> None:
        """Note that something begins to run, after a time in which there was nothing to look at."""
        self._sample(now)

    def account(self, running: Running) -> bool:
        """Add what an operation moved since the last look, also when it failed; return True if it moved."""
        operation = running.operation
        done = operation.done
        count = done - running.seen
        if count <= 0:
            return False
        if operation.is_transfer and not (self._is_upload and operation.is_verification):
            if not running.is_provisional:
                for start, end in operation.moved_since(running.seen):
                    self._ranges.add(start, end)
            link = running.link
            for name, part in operation.counts_between(running.seen, done):
                if name == "read":
                    self._sent += part
                    link.sent += part
                else:
                    self._received += part
                    link.received += part
                self._observer.bytes_moved(running.backend_name, name, part)
                self._observer.client_moved(link.connection.client, operation.name, name, part)
        running.seen = done
        return True

    def finish(self, running: Running) -> None:
        """Account for an operation that ended: now it is known what it has done."""
        self.account(running)
        operation = running.operation
        if running.is_provisional and operation.is_transfer:
            self._ranges.add(operation.offset, operation.offset + operation.done)

    def _sample(self, now: float) -> None:
        self._meter.sample(now, self._received + self._sent)

    def _unconfirmed(self, running: Running) -> int:
        """Return how many bytes an operation has sent that may be stored, and were not yet transferred before."""
        start = running.operation.offset
        return self._ranges.missing(start, start + running.seen) if running.is_provisional else 0


def describe_error(error: BaseException, secret: str) -> str:
    """Return an error in words that can be shown: without paths, and without the secret id."""
    if isinstance(error, errors.Error):
        text = str(error)
    elif isinstance(error, OSError):
        # Not str(): that shows paths.
        text = f"The connection broke: {error.strerror or type(error).__name__}"
    else:
        text = f"Internal error: {type(error).__name__}"
    # The words of an origin behind a proxy may hold anything.
    return errors.conceal(text, secret, f"{short(secret)}...")
