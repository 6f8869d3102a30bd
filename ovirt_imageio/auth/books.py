"""The books of a transfer: what is permitted, what runs, through which connections, and how far it came.

    state (lease.py)   OPEN        uses of the disk, and operations, may begin while the lease lasts
                       CANCELING   what runs is cut, what is given back is closed
                       CANCELED    the last link was given back, and the last backend closed

Opens nothing, closes nothing, and waits for nothing: that is up to the transfer, which is told what it has to close.

Knows neither locks nor the clock: a transfer guards what is here with its own, and tells the time. Knows nothing of
HTTP.
"""

from __future__ import annotations

import logging
import math
import secrets
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.cutter import CANCELED, STOPPED, Cutter
from ovirt_imageio.auth.lease import TRANSITIONS, Event, Lease, State
from ovirt_imageio.auth.links import Connection, Link, Links, Running
from ovirt_imageio.auth.news import News
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.progress import Progress, describe_error
from ovirt_imageio.auth.record import Record
from ovirt_imageio.auth.ticket import Changes, Ticket
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.ops.operations import Operation

__all__ = ["Books"]

log = logging.getLogger("auth")


class Books:
    """Everything that is known of a transfer. `now` is always the time.

    Threads: one at a time.
    """

    def __init__(self, ticket: Ticket, now: float, news: News, observer: TicketObserver, max_connections: int) -> None:
        self.ticket = ticket
        self.links = Links()
        self.inactivity_timeout = ticket.inactivity_timeout
        self._news = news
        self._observer = observer
        self._max_connections = max_connections
        self._state = State.OPEN
        # True once the ticket was removed, replaced or purged.
        self._is_removed = False
        # True if, when it was canceled, writes may have been lost of which no client was told.
        self._had_loss = False
        # True while tick() is called.
        self._is_attended = False
        self._born = now
        self._lease = Lease.begin(ticket.timeout, now, ticket.lifetime)
        self._cutter = Cutter(self.links, ticket.transfer_id)
        self._progress = Progress(observer, is_upload=ticket.can("write"))
        # A client that saw the disk with one tag may go on with what it has while the tag is the same.
        self._tag = secrets.token_hex(8)
        self._writes = 0

    # --- Uses of the disk --------------------------------------------------------------------------------------------

    def authorize(self, right: str, now: float) -> None:
        """Raise what refusal() returns, or errors.NotPermitted, unless the ticket allows to "read" or "write" now."""
        if self._state is not State.OPEN:
            raise self.refusal()
        if self._lease.is_expired(now):
            # Bytes that moved since the last look may have kept it alive.
            self.observe(now)
            if self._lease.is_expired(now):
                raise self.refusal()
        if not self.ticket.can(right):
            raise errors.NotPermitted(right)

    def refusal(self) -> errors.Error:
        """Return why nothing may begin: the ticket expired or was removed, or the service stops."""
        is_stopped = self._state is not State.OPEN and not self._is_removed
        return errors.ServiceStops() if is_stopped else errors.NoSuchTicket()

    def enter(self, right: str, connection: Connection, now: float) -> tuple[Link, bool]:
        """Let a request use the disk until leave(): return the link of its connection, and whether that is new.

        Raises what authorize() does, and errors.TooManyConnections.
        """
        self.authorize(right, now)
        found = self.links.find(connection)
        if found is None and len(self.links) >= self._max_connections:
            self.observe(now)
            self._cutter.make_room(now, self._max_connections)
        if found is None and right == "write":
            # Of a client that connects again.
            self.links.look_for_lost()
        link = found or self.links.add(connection)
        assert not link.is_in_use, "a connection serves one request at a time"
        link.is_in_use = True
        if right == "write":
            self.links.pass_on_lost(link)
        return link, found is None

    def leave(self, link: Link, now: float) -> list[Backend]:
        """Take back what enter() returned; return the backend if no other request may use it."""
        link.is_in_use = False
        if self._state is State.OPEN:
            return []
        backends = self.links.take_backends([link], now)
        self._settle()
        return backends

    def begin_opening(self, link: Link, now: float) -> Lifeline:
        """Note that the backend of a link is being opened, by a thread that holds the line which is returned.

        Raises what refusal() returns.
        """
        if self._state is not State.OPEN:
            raise self.refusal()
        return self.links.begin_opening(link, now)

    def note_opened(self, link: Link, backend: Backend) -> None:
        """Note that a link has a backend."""
        link.backend, link.was_opened = backend, True
        self._news.note_change()

    def note_failure(self, error: BaseException) -> None:
        """Keep an error for those that ask how the transfer does."""
        self._progress.last_error = describe_error(error, self.ticket.uuid)

    def disconnect(self, link: Link, now: float) -> list[Backend]:
        """Forget a connection that closed; return its backend."""
        self.links.remove(link)
        # Closing the backend may find more, but takes a while.
        self.links.keep_lost(link)
        self._news.note_change()
        return self.links.take_backends([link], now)

    def end_closing(self, backend: Backend) -> None:
        """Note that a backend, which one of these methods returned, was closed."""
        self.links.end_closing(backend)
        self._settle()

    # --- Operations --------------------------------------------------------------------------------------------------

    def begin(self, operation: Operation, link: Link, now: float) -> tuple[Running, set[Running]]:
        """Note that an operation runs; return it, and the changes of the same range that began before.

        Raises what refusal() returns.
        """
        if self._state is not State.OPEN:
            raise self.refusal()
        running = Running(operation, link, now)
        older = self.links.find_overlapping(operation) if operation.is_change else set()
        if operation.is_change:
            # Also one that began as a request to read, and attaches the disk.
            self.links.pass_on_lost(link)
        self.links.running.add(running)
        self._lease.touch(now)
        self._writes += operation.is_change
        return running, older

    def end(self, running: Running, error: Optional[BaseException], now: float) -> list[Backend]:
        """Account for an operation that ended; return its backend if no other one should use that."""
        self._progress.finish(running)
        self.links.running.discard(running)
        if running.operation.is_answering:
            # A client that was attached may have written until now.
            self._writes += running.operation.is_change
        if running.cut_reason is None:
            self._lease.touch(now)
            if error is not None:
                self.note_failure(error)
        elif error is not None:
            self._progress.last_error = f"The operation was cut: {running.cut_reason}"
        self._observer.operation_finished(running.backend_name, running.operation.name, error)
        is_over = self._state is not State.OPEN or running.cut_reason is not None
        link = running.link
        is_spoiled = is_over or (error is not None and _is_spoiling(error, link.backend))
        if is_spoiled:
            link.writes.note_break()
        self._news.note_change()
        return self.links.take_backends([link], now) if is_spoiled else []

    # --- As time goes by ---------------------------------------------------------------------------------------------

    def touch(self, now: float) -> None:
        """Note that the client is alive."""
        self._lease.touch(now)

    def observe(self, now: float) -> None:
        """Account for what running operations moved since the last look."""
        has_moved, is_alive = self._progress.observe(self.links.running, now)
        if is_alive:
            self._lease.touch(now)
        if has_moved:
            self._news.note_change()

    def ask_attention(self, now: float) -> bool:
        """Note that tick() is to be called from now on, and return True, unless it is called already."""
        if self._is_attended:
            return False
        self._is_attended = True
        self._progress.begin(now)
        return True

    def tick(self, now: float) -> bool:
        """Cut what is to be cut by now; return whether this is to be called again soon."""
        self.observe(now)
        if self._state is State.CANCELING:
            self._cutter.cut_canceled_again(now, self._cancel_reason())
        elif self._lease.is_abandoned(now):
            self._cutter.cut_expired()
        elif self._lease.is_expired(now):
            self._cutter.cut_ended()
        self._is_attended = self._state is State.CANCELING or self.links.is_busy
        return self._is_attended

    def extend(self, changes: Changes, now: float) -> None:
        """Change how long the ticket lives, from now on, and how long its connections may stand still."""
        # What moved until now belongs to the old lease: it must not lengthen the new one.
        self.observe(now)
        if changes.timeout is not None:
            self._lease.extend(changes.timeout, now)
        if changes.lifetime is not None:
            self._lease.limit(changes.lifetime, now)
        if changes.inactivity_timeout is not None:
            # Connections learn it with their next request.
            self.inactivity_timeout = changes.inactivity_timeout or self.ticket.inactivity_timeout
        self._news.note_change()

    def cancel(self, now: float, grace: float, *, is_removed: bool = True) -> list[Backend]:
        """Let nothing new begin; cut what reads at once, and what writes after `grace` seconds.

        is_removed: the ticket ends for good; when the service only stops, another process may go on with it.
        Returns the backends that no request uses. Harmless when repeated; an earlier end of the grace holds.
        """
        self._is_removed |= is_removed
        if self._state is State.OPEN:
            # What is cut from here on has not lost what it acknowledged: the storage is still there.
            self._had_loss = self.links.has_loss
            log.debug("CANCEL transfer=%s running=%d", self.ticket.transfer_id, len(self.links.running))
            self._advance(Event.CANCEL)
        # Those that were asked to end already have time until the next tick, however often we are called.
        self._cutter.end_grace(now + grace)
        self._cutter.cut_canceled(now, self._cancel_reason())
        idle = self.links.take_backends(self.links.idle(), now)
        self._settle()
        return idle

    # --- A restart of the service ------------------------------------------------------------------------------------

    def record(self, now: float, since: float) -> Optional[Record]:
        """Return what another process needs to go on; None if the ticket was removed.

        since: when clients could reach us last.
        """
        if self._is_removed:
            return None
        self.observe(now)
        return Record(
            ticket=self.ticket,
            inactivity_timeout=self.inactivity_timeout,
            remaining=self._lease.expires - since,
            lifetime=None if math.isinf(self._lease.ends) else self._lease.ends - since,
            idle=now - self._lease.accessed,
            age=now - self._born,
            tag=self._tag,
            writes=self._writes,
            version=self._news.version,
            ranges=self._progress.ranges,
            last_error=self._progress.last_error,
            has_loss=self.links.has_loss if self._state is State.OPEN else self._had_loss,
        )

    def resume(self, record: Record, now: float) -> None:
        """Go on where another process left off."""
        self._born = now - record.age
        self._lease = Lease(
            self.ticket.timeout,
            now + record.remaining,
            now - record.idle,
            math.inf if record.lifetime is None else now + record.lifetime,
        )
        self.inactivity_timeout = record.inactivity_timeout
        self._tag, self._writes = record.tag, record.writes
        self._progress.resume(record.ranges, record.last_error)
        self.links.resume(record.has_loss)

    # --- What is told ------------------------------------------------------------------------------------------------

    @property
    def is_drained(self) -> bool:
        """True once it was canceled and nothing of it is left."""
        return self._state is State.CANCELED

    def is_alive(self, now: float) -> bool:
        """True while the ticket can be used."""
        return self._state is State.OPEN and not self._lease.is_expired(now)

    @property
    def expires(self) -> float:
        """When the ticket expires, unless something happens until then."""
        return min(self._lease.expires, self._lease.ends)

    @property
    def content_tag(self) -> str:
        """A text that changes whenever something begins to be written through this ticket."""
        for running in self.links.running:
            if running.operation.is_answering and running.operation.is_change:
                # A client that is attached may have begun another write since the last look.
                self._writes += 1
                break
        return f"{self._tag}-{self._writes}"

    def describe_state(self, now: float) -> str:
        """Return "idle", "active", "expired" or "canceled"."""
        if self._state is not State.OPEN:
            return "canceled"
        if self.links.running:
            return "active"
        return "expired" if self._lease.is_expired(now) else "idle"

    def info(self, now: float) -> dict[str, Any]:
        """Return the state of the transfer, as the control service shows it."""
        self.observe(now)
        # A manager that removes a ticket without waiting asks until it is not active, then removes it for good.
        is_active = bool(self.links.running) or self._state is State.CANCELING
        return {
            **self.ticket.describe(),
            **self._lease.describe(now),
            **self._progress.describe(len(self.ticket.ops) == 1, self.links.running),
            "active": is_active,
            "age": int(now - self._born),
            "canceled": self._state is not State.OPEN,
            "clients": self.links.clients(now),
            "connections": self.links.opened,
            "kernel_tls": self.links.in_kernel,
            "idle_time": 0 if is_active else int(now - self._lease.accessed),
            "inactivity_timeout": self.inactivity_timeout,
            "version": self._news.version,
        }

    # --- Inside ------------------------------------------------------------------------------------------------------

    def _cancel_reason(self) -> str:
        return CANCELED if self._is_removed else STOPPED

    def _settle(self) -> None:
        """Let a canceled transfer end when nothing is left of it."""
        if self._state is State.CANCELING and self.links.is_drained:
            self._advance(Event.DRAIN)

    def _advance(self, event: Event) -> None:
        state = TRANSITIONS.get((self._state, event), self._state)
        if state is not self._state:
            self._state = state
            self._news.note_change()


def _is_spoiling(error: BaseException, backend: Optional[Backend]) -> bool:
    """True if a backend that raised this may be broken for good; opening it again costs little."""
    if isinstance(error, errors.StorageError):
        return backend is None or not backend.can_recover
    return not isinstance(error, errors.Error)
