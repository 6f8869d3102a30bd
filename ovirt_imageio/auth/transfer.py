"""The live side of a ticket: what runs on it, through which connections, and how far it came.

                     begin()                      run()
    connection ───────────────> link ──────────> running operation
            on_close     end()   │ backend ─────────────┘
                                 closed when the connection closes, or when the ticket is canceled; but never between
                                 begin() and end(): its descriptor could already be another file's

    state (lease.py)   OPEN        begin() and run() are permitted while the lease lasts
                       CANCELING   cancel() came: what runs is cut, what is given back is closed
                       CANCELED    the last link was given back, and the last backend closed

Knows connections as things that can be aborted, backends as things that are opened and closed, operations as things
that report how far they are. Knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.cutter import MAX_CONNECTIONS, Cutter
from ovirt_imageio.auth.lease import TRANSITIONS, Event, Lease, State
from ovirt_imageio.auth.links import Connection, Link, Links, Running
from ovirt_imageio.auth.news import News
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.progress import Progress, describe_error
from ovirt_imageio.auth.ticket import Changes, Ticket
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.ops.operations import Operation

__all__ = ["CLOSE_PATIENCE", "Connection", "OpenBackend", "Transfer"]

log = logging.getLogger("auth")

# Closing a disk takes no time, unless its storage hangs: then no thread waits any longer for that.
CLOSE_PATIENCE = 2.0

# A change that waits for an older one looks this often whether its own client is still wanted.
LOOK_SECONDS = 0.25

# Opens the disk of a ticket; whatever waits for a server meanwhile holds the line.
OpenBackend = Callable[[Ticket, Lifeline], Backend]


class Transfer:
    """Everything that happens on one ticket.

    Threads: any number at once. `begin`, `run` and `end` are called by the thread of their connection.

    Locks: a store's lock may be held when ours is taken, never the other way round. With ours held only calls that
    never block are made: activity, abort, interrupt and cut (so that they meet the operation that they are meant for,
    and not the next one on that connection). Backends are opened, used and closed without it.
    """

    def __init__(
        self,
        ticket: Ticket,
        open_backend: OpenBackend,
        clock: Callable[[], float] = time.monotonic,
        versions: Optional[Iterator[int]] = None,
        observer: Optional[TicketObserver] = None,
        max_connections: int = MAX_CONNECTIONS,
        attend: Callable[[Transfer], None] = lambda transfer: None,
    ) -> None:
        self.ticket = ticket
        self.id = ticket.transfer_id
        self._open_backend = open_backend
        self._clock = clock
        self._observer = observer or TicketObserver()
        self._max_connections = max_connections
        # Called with our lock held: must not block, nor call us.
        self._attend = attend
        # Guards everything below.
        self._lock = threading.Lock()
        self._news = News(self._lock, versions or itertools.count(1))
        self._state = State.OPEN
        # True while tick() is called.
        self._is_attended = False
        self._born = clock()
        self._lease = Lease.begin(ticket.timeout, self._born)
        self._inactivity_timeout = ticket.inactivity_timeout
        self._links = Links()
        self._cutter = Cutter(self._links, self.id)
        self._progress = Progress(self._observer, is_upload=ticket.can("write"))
        # A client that saw the disk with one tag may go on with what it has while the tag is the same.
        self._tag = secrets.token_hex(8)
        self._writes = 0

    # --- For requests ------------------------------------------------------------------------------------------------

    def authorize(self, right: str) -> None:
        """Raise errors.NoSuchTicket or errors.NotPermitted unless the ticket allows to "read" or "write" now."""
        with self._lock:
            self._authorize(right)

    def begin(self, right: str, connection: Connection) -> Link:
        """Let a request use the disk until end(): return the link of its connection, which has a backend.

        Raises errors.NoSuchTicket, errors.NotPermitted, errors.TooManyConnections, errors.StorageError if the disk
        cannot be opened.
        """
        with self._lock:
            self._authorize(right)
            found = self._links.find(connection)
            if found is None and len(self._links) >= self._max_connections:
                now = self._clock()
                self._observe(now)
                self._cutter.make_room(now, self._max_connections)
            link = found or self._links.add(connection)
            assert not link.is_in_use, "a connection serves one request at a time"
            link.is_in_use = True
            if right == "write":
                self._links.pass_on_lost(link)
            timeout = self._inactivity_timeout
        try:
            if found is None:
                connection.on_close(functools.partial(self._disconnect, link))
                connection.stay_while(self.is_alive)
            connection.set_timeout(timeout)
            if link.backend is None:
                self._open(link)
        except BaseException:
            self.end(link)
            raise
        return link

    def end(self, link: Link) -> None:
        """Give back what begin() returned; the backend is closed if no other request may use it."""
        with self._lock:
            link.is_in_use = False
            is_over = self._state is not State.OPEN
            backends = self._links.take_backends([link], self._clock()) if is_over else []
            self._settle()
        self._close(backends)

    def run(self, operation: Operation, link: Link) -> None:
        """Run the operation on the backend of the link, and account for what it moves, whatever comes of it.

        Raises what the operation raises; errors.OperationCanceled if it was cut.
        """
        with self._lock:
            self._require_open()
            now = self._clock()
            running = Running(operation, link, now)
            older = self._links.find_overlapping(operation) if operation.is_change else set()
            if operation.is_change:
                # Also one that began as a request to read, and attaches the disk.
                self._links.pass_on_lost(link)
            was_empty = link.writes.is_empty
            self._links.running.add(running)
            self._lease.touch(now)
            self._writes += operation.is_change
            self._ask_attention(now)
        clock = link.connection.clock
        operation.clock = clock
        try:
            if older:
                self._await_older(older, running)
            with clock.run(operation.name) as stat:
                try:
                    operation.run()
                finally:
                    stat.count(operation.done)
        except BaseException as error:
            if was_empty and not operation.is_answering:
                # The client hears of the failure now, and nothing else was in danger.
                link.writes.forget()
            # Kept in no variable that outlives this block: its traceback holds the frame, and that all buffers.
            self._finish(running, error)
            if running.cut_reason is not None and isinstance(error, Exception):
                raise errors.OperationCanceled() from error
            raise
        self._finish(running, None)

    @property
    def content_tag(self) -> str:
        """A text that changes whenever something begins to be written through this ticket."""
        with self._lock:
            # A client that is attached may have begun another write since the last look.
            attached = [running for running in self._links.running if running.operation.is_answering]
            self._writes += any(running.operation.is_change for running in attached)
            return f"{self._tag}-{self._writes}"

    def touch(self) -> None:
        """Note that the client is alive."""
        with self._lock:
            self._lease.touch(self._clock())

    def is_alive(self) -> bool:
        """True while the ticket can be used."""
        with self._lock:
            return self._state is State.OPEN and not self._lease.is_expired(self._clock())

    # --- For the control service -------------------------------------------------------------------------------------

    def extend(self, changes: Changes) -> None:
        """Change how long the ticket lives, from now on, and how long its connections may stand still."""
        with self._lock:
            now = self._clock()
            # What moved until now belongs to the old lease: it must not lengthen the new one.
            self._observe(now)
            if changes.timeout is not None:
                self._lease.extend(changes.timeout, now)
            if changes.inactivity_timeout is not None:
                # Connections learn it with their next request.
                self._inactivity_timeout = changes.inactivity_timeout or self.ticket.inactivity_timeout
            self._news.note_change()

    def info(self) -> dict[str, Any]:
        """Return the state of the transfer, as the control service shows it."""
        with self._lock:
            now = self._clock()
            self._observe(now)
            return self._info(now)

    def wait_change(self, since: Optional[int], seconds: float, is_over: Callable[[], bool]) -> None:
        """Wait until the version differs from `since` (None: from what it is now), at most `timeout` seconds.

        is_over is asked now and then whether the wait is of no use any more.
        """
        with self._lock:
            self._news.wait_change(since, seconds, lambda: self._observe(self._clock()), is_over)

    # --- Cancel ------------------------------------------------------------------------------------------------------

    @property
    def is_drained(self) -> bool:
        """True once it was canceled and nothing of it is left."""
        return self._state is State.CANCELED

    def cancel(self, grace: float = 0, patience: float = CLOSE_PATIENCE) -> None:
        """Let nothing new begin; cut what reads at once, and what writes after `grace` seconds.

        An operation for which the client has done everything is never cut. What is idle is closed when this returns,
        unless that takes more than `patience` seconds. Harmless when repeated; an earlier end of the grace holds.
        """
        with self._lock:
            now = self._clock()
            if self._state is State.OPEN:
                log.debug("CANCEL transfer=%s running=%d", self.id, len(self._links.running))
                self._advance(Event.CANCEL)
            self._ask_attention(now)
            # Those that were asked to end already have time until the next tick, however often we are called.
            self._cutter.end_grace(now + grace)
            self._cutter.cut_canceled(now)
            idle = self._links.take_backends(self._links.idle(), now)
            self._settle()
        self._close_apart(idle, patience)

    def wait_drained(self, seconds: float) -> bool:
        """Wait for a canceled transfer to end; return False if something still runs after `timeout` seconds."""
        with self._lock:
            return self._news.wait_for(lambda: self.is_drained, seconds)

    def describe_running(self) -> list[str]:
        """Return a line for each thing that still runs: what, and since when."""
        with self._lock:
            return self._links.describe(self._clock())

    def tick(self) -> bool:
        """Do what time asks for; return whether it is to be called again soon.

        Called a few times per second from when `attend` was called with us until this returns False.
        """
        with self._lock:
            now = self._clock()
            self._observe(now)
            if self._state is State.CANCELING:
                self._cutter.cut_canceled_again(now)
            elif self._lease.is_expired(now):
                self._cutter.cut_expired()
            self._is_attended = self._state is State.CANCELING or self._links.is_busy
            return self._is_attended

    def find_expiry(self) -> tuple[float, bool]:
        """Return when the ticket expires, and whether something runs on it still."""
        with self._lock:
            return self._lease.expires, bool(self._links.running)

    def describe_state(self) -> str:
        """Return "idle", "active", "expired" or "canceled"."""
        with self._lock:
            if self._state is not State.OPEN:
                return "canceled"
            if self._links.running:
                return "active"
            return "expired" if self._lease.is_expired(self._clock()) else "idle"

    # --- With the lock held ------------------------------------------------------------------------------------------

    def _advance(self, event: Event) -> None:
        state = TRANSITIONS.get((self._state, event), self._state)
        if state is not self._state:
            self._state = state
            self._news.note_change()

    def _authorize(self, right: str) -> None:
        now = self._clock()
        if self._lease.is_expired(now):
            self._observe(now)
        if self._state is not State.OPEN or self._lease.is_expired(now):
            raise errors.NoSuchTicket()
        if not self.ticket.can(right):
            raise errors.NotPermitted(right)

    def _ask_attention(self, now: float) -> None:
        """Let tick() be called while something runs."""
        if not self._is_attended:
            self._is_attended = True
            self._progress.begin(now)
            self._attend(self)

    def _require_open(self) -> None:
        if self._state is not State.OPEN:
            raise errors.NoSuchTicket()

    def _settle(self) -> None:
        """Let a canceled transfer end when nothing is left of it."""
        if self._state is State.CANCELING and self._links.is_drained:
            self._advance(Event.DRAIN)

    def _observe(self, now: float) -> None:
        """Account for what running operations moved since the last look."""
        has_moved, is_alive = self._progress.observe(self._links.running, now)
        if is_alive:
            self._lease.touch(now)
        if has_moved:
            self._news.note_change()

    def _info(self, now: float) -> dict[str, Any]:
        # A manager that removes a ticket without waiting asks until it is not active, then removes it for good.
        is_active = bool(self._links.running) or self._state is State.CANCELING
        return {
            **self.ticket.describe(),
            **self._lease.describe(now),
            **self._progress.describe(len(self.ticket.ops) == 1, self._links.running),
            "active": is_active,
            "age": int(now - self._born),
            "canceled": self._state is not State.OPEN,
            "connections": self._links.opened,
            "idle_time": 0 if is_active else int(now - self._lease.accessed),
            "inactivity_timeout": self._inactivity_timeout,
            "version": self._news.version,
        }

    # --- Without the lock --------------------------------------------------------------------------------------------

    def _await_older(self, older: set[Running], running: Running) -> None:
        """Wait until those changes have ended that would land after a newer one of the same range.

        A client that got no answer sends its data again over another connection. Clients that are all there, and change
        the same range at once, are on their own.
        """

        def is_over() -> bool:
            left = older & self._links.running
            return running.cut_reason is not None or not any(run.ends_alone() for run in left)

        with self._lock:
            while not self._news.wait_for(is_over, LOOK_SECONDS):
                # Nothing tells that the service stops.
                if running.link.connection.is_aborted:
                    break
        if running.cut_reason is not None or running.link.connection.is_aborted:
            raise errors.OperationCanceled()

    def _open(self, link: Link) -> None:
        with self._lock:
            self._require_open()
            now = self._clock()
            line = self._links.begin_opening(link, now)
            self._ask_attention(now)
        try:
            with contextlib.ExitStack() as undo:
                backend = self._open_backend(self.ticket, line)
                undo.callback(backend.close)
                backend.writes = link.writes
                with self._lock:
                    line.check()
                    link.backend, link.was_opened = backend, True
                    self._news.note_change()
                undo.pop_all()
        except (errors.Error, OSError) as e:
            if line.is_cut:
                raise errors.NoSuchTicket() from e
            with self._lock:
                self._progress.last_error = describe_error(e, self.ticket.uuid)
            raise
        finally:
            with self._lock:
                self._links.end_opening(link)

    def _finish(self, running: Running, error: Optional[BaseException]) -> None:
        """Account for an operation that ended, and close its backend if no other one should use that."""
        with self._lock:
            self._progress.finish(running)
            self._links.running.discard(running)
            if running.cut_reason is None:
                self._lease.touch(self._clock())
                if error is not None:
                    self._progress.last_error = describe_error(error, self.ticket.uuid)
            elif error is not None:
                self._progress.last_error = f"The operation was cut: {running.cut_reason}"
            self._observer.operation_finished(running.backend_name, running.operation.name, error)
            is_over = self._state is not State.OPEN or running.cut_reason is not None
            link = running.link
            is_spoiled = is_over or (error is not None and _is_spoiling(error, link.backend))
            if is_spoiled:
                link.writes.note_break()
            backends = self._links.take_backends([link], self._clock()) if is_spoiled else []
            self._news.note_change()
            self._settle()
        self._close(backends)

    def _disconnect(self, link: Link) -> None:
        with self._lock:
            self._links.remove(link)
            backends = self._links.take_backends([link], self._clock())
            self._news.note_change()
        self._close(backends)
        with self._lock:
            self._links.keep_lost(link)

    def _close_apart(self, backends: list[Backend], patience: float) -> None:
        """Close backends of other threads: we cannot let storage that hangs stop us."""
        if backends:
            closer = threading.Thread(target=self._close, args=(backends,), name=f"close {self.id}", daemon=True)
            closer.start()
            closer.join(patience)

    def _close(self, backends: list[Backend]) -> None:
        for backend in backends:
            try:
                backend.close()
            except Exception:
                log.exception("Cannot close a backend transfer=%s", self.id)
            finally:
                with self._lock:
                    self._links.end_closing(backend)
                    self._settle()


def _is_spoiling(error: BaseException, backend: Optional[Backend]) -> bool:
    """True if a backend that raised this may be broken for good; opening it again costs little."""
    if isinstance(error, errors.StorageError):
        return backend is None or not backend.can_recover
    return not isinstance(error, errors.Error)
