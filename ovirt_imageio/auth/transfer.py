"""The live side of a ticket: what runs on it, through which connections, and how far it came.

                     begin()                      run()
    connection ───────────────> link ──────────> running operation
            on_close     end()   │ backend ─────────────┘
                                 closed when the connection closes, or when the ticket is canceled; but never between
                                 begin() and end(): its descriptor could already be another file's

What is permitted, and what is to be cut or closed, is decided in books.py. Here are the lock, the threads that wait,
and the backends, which are opened, used and closed without the lock.

Knows connections as things that can be aborted, backends as things that are opened and closed, operations as things
that report how far they are. Knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.books import Books
from ovirt_imageio.auth.cutter import MAX_CONNECTIONS, STOPPED
from ovirt_imageio.auth.links import Connection, Link, Running
from ovirt_imageio.auth.news import News
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.record import Record
from ovirt_imageio.auth.ticket import Changes, Ticket
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.net import crowd
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.ops.operations import Operation

__all__ = ["CLOSE_PATIENCE", "Connection", "OpenBackend", "Transfer"]

log = logging.getLogger("auth")

# Closing a disk takes no time, unless its storage hangs: then no thread waits any longer for that.
CLOSE_PATIENCE = 2.0

# A change that waits for an older one looks this often whether its own client is still wanted.
LOOK_SECONDS = 0.25

# Opens the disk of a ticket; whatever waits for a server meanwhile holds the line. The text is the traceparent of the
# request for which it is opened.
OpenBackend = Callable[[Ticket, Lifeline, Optional[str]], Backend]


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
        # Called with our lock held: must not block, nor call us.
        self._attend = attend
        # Guards everything below.
        self._lock = threading.Lock()
        self._news = News(self._lock, versions or itertools.count(1))
        self._books = Books(ticket, clock(), self._news, observer or TicketObserver(), max_connections)

    # --- For requests ------------------------------------------------------------------------------------------------

    def authorize(self, right: str) -> None:
        """Raise errors.NoSuchTicket or errors.NotPermitted unless the ticket allows to "read" or "write" now."""
        with self._lock:
            self._books.authorize(right, self._clock())

    def begin(self, right: str, connection: Connection) -> Link:
        """Let a request use the disk until end(): return the link of its connection, which has a backend.

        Raises errors.NoSuchTicket, errors.NotPermitted, errors.TooManyConnections, errors.StorageError if the disk
        cannot be opened.
        """
        with self._lock:
            link, is_new = self._books.enter(right, connection, self._clock())
            timeout = self._books.inactivity_timeout
        try:
            if is_new:
                connection.on_close(functools.partial(self._disconnect, link))
                connection.stay_while(self.is_alive)
            connection.set_timeout(timeout)
            if link.backend is None:
                self._open(link)
            if connection.traceparent != link.traceparent:
                self._trace(link)
        except BaseException:
            self.end(link)
            raise
        return link

    def end(self, link: Link) -> None:
        """Give back what begin() returned; the backend is closed if no other request may use it."""
        with self._lock:
            backends = self._books.leave(link, self._clock())
        if backends:
            self._close(backends)

    def run(self, operation: Operation, link: Link) -> None:
        """Run the operation on the backend of the link, and account for what it moves, whatever comes of it.

        Raises what the operation raises; errors.OperationCanceled if it was cut, errors.ServiceStops if by a stop.
        """
        with self._lock:
            now = self._clock()
            running, older = self._books.begin(operation, link, now)
            was_empty = link.writes.is_empty
            if self._books.ask_attention(now):
                self._attend(self)
        crowd.settle(is_brief=operation.is_brief, now=now)
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
                is_stopped = running.cut_reason == STOPPED
                raise errors.ServiceStops() if is_stopped else errors.OperationCanceled() from error
            raise
        self._finish(running, None)

    @property
    def content_tag(self) -> str:
        """A text that changes whenever something begins to be written through this ticket."""
        with self._lock:
            return self._books.content_tag

    def touch(self) -> None:
        """Note that the client is alive."""
        with self._lock:
            self._books.touch(self._clock())

    def is_alive(self) -> bool:
        """True while the ticket can be used."""
        with self._lock:
            return self._books.is_alive(self._clock())

    # --- For the control service -------------------------------------------------------------------------------------

    def extend(self, changes: Changes) -> None:
        """Change how long the ticket lives, from now on, and how long its connections may stand still."""
        with self._lock:
            self._books.extend(changes, self._clock())

    def info(self) -> dict[str, Any]:
        """Return the state of the transfer, as the control service shows it."""
        with self._lock:
            return self._books.info(self._clock())

    def wait_change(self, since: Optional[int], seconds: float, is_over: Callable[[], bool]) -> None:
        """Wait until the version differs from `since` (None: from what it is now), at most `seconds`.

        is_over is asked now and then whether the wait is of no use any more.
        """
        with self._lock:
            self._news.wait_change(since, seconds, lambda: self._books.observe(self._clock()), is_over)

    # --- Cancel ------------------------------------------------------------------------------------------------------

    @property
    def is_drained(self) -> bool:
        """True once it was canceled and nothing of it is left."""
        return self._books.is_drained

    def cancel(self, grace: float = 0, patience: float = CLOSE_PATIENCE) -> None:
        """Let nothing new begin, for good; cut what reads at once, and what writes after `grace` seconds.

        An operation for which the client has done everything is never cut. What is idle is closed when this returns,
        unless that takes more than `patience` seconds. Harmless when repeated; an earlier end of the grace holds.
        """
        self._cancel(grace, patience, is_removed=True)

    def stop(self, grace: float = 0, patience: float = CLOSE_PATIENCE) -> None:
        """Do the same because the service stops: another process may go on, see record()."""
        self._cancel(grace, patience, is_removed=False)

    def wait_drained(self, seconds: float) -> bool:
        """Wait for a canceled transfer to end; return False if something still runs after `seconds`."""
        with self._lock:
            return self._news.wait_for(lambda: self.is_drained, seconds)

    def describe_running(self) -> list[str]:
        """Return a line for each thing that still runs: what, and since when."""
        with self._lock:
            return self._books.links.describe(self._clock())

    def tick(self) -> bool:
        """Do what time asks for; return whether it is to be called again soon.

        Called a few times per second from when `attend` was called with us until this returns False.
        """
        with self._lock:
            return self._books.tick(self._clock())

    def find_expiry(self) -> tuple[float, bool]:
        """Return when the ticket expires, and whether something runs on it still."""
        with self._lock:
            return self._books.expires, bool(self._books.links.running)

    def describe_state(self) -> str:
        """Return "idle", "active", "expired" or "canceled"."""
        with self._lock:
            return self._books.describe_state(self._clock())

    # --- For a restart of the service --------------------------------------------------------------------------------

    def record(self, since: float) -> Optional[Record]:
        """Return what another process needs to go on with this transfer; None if its ticket was removed.

        since: when clients could reach us last.
        """
        with self._lock:
            return self._books.record(self._clock(), since)

    def resume(self, record: Record) -> None:
        """Go on where another process left off; called before any other thread knows of us."""
        with self._lock:
            self._books.resume(record, self._clock())

    # --- With the lock held ------------------------------------------------------------------------------------------

    def _ask_attention(self, now: float) -> None:
        """Let tick() be called while something runs."""
        if self._books.ask_attention(now):
            self._attend(self)

    # --- Without the lock --------------------------------------------------------------------------------------------

    def _cancel(self, grace: float, patience: float, *, is_removed: bool) -> None:
        with self._lock:
            now = self._clock()
            idle = self._books.cancel(now, grace, is_removed=is_removed)
            self._ask_attention(now)
        self._close_apart(idle, patience)

    def _await_older(self, older: set[Running], running: Running) -> None:
        """Wait until those changes have ended that would land after a newer one of the same range.

        A client that got no answer sends its data again over another connection. Clients that are all there, and change
        the same range at once, are on their own.
        """

        def is_over() -> bool:
            left = older & self._books.links.running
            return running.cut_reason is not None or not any(run.ends_alone() for run in left)

        with self._lock:
            while not self._news.wait_for(is_over, LOOK_SECONDS):
                # Nothing tells that the service stops.
                if running.link.connection.is_aborted:
                    break
        if running.cut_reason is not None or running.link.connection.is_aborted:
            raise errors.OperationCanceled()

    def _trace(self, link: Link) -> None:
        """Tell the log, and hosts that are asked, of which work of others the request is a part."""
        traceparent = link.traceparent = link.connection.traceparent
        if traceparent is not None:
            log.info("TRACE transfer=%s connection=%s traceparent=%s", self.id, link.connection.id, traceparent)
        if link.backend is not None:
            link.backend.trace(traceparent)

    def _open(self, link: Link) -> None:
        # Whatever a backend starts needs all processors.
        crowd.leave()
        with self._lock:
            now = self._clock()
            line = self._books.begin_opening(link, now)
            self._ask_attention(now)
        try:
            with contextlib.ExitStack() as undo:
                backend = self._open_backend(self.ticket, line, link.connection.traceparent)
                undo.callback(backend.close)
                backend.writes = link.writes
                with self._lock:
                    line.check()
                    self._books.note_opened(link, backend)
                undo.pop_all()
        except (errors.Error, OSError) as e:
            with self._lock:
                if line.is_cut:
                    raise self._books.refusal() from e
                self._books.note_failure(e)
            raise
        finally:
            with self._lock:
                self._books.links.end_opening(link)

    def _finish(self, running: Running, error: Optional[BaseException]) -> None:
        """Account for an operation that ended, and close its backend if no other one should use that."""
        with self._lock:
            backends = self._books.end(running, error, self._clock())
        if backends:
            self._close(backends)

    def _disconnect(self, link: Link) -> None:
        with self._lock:
            backends = self._books.disconnect(link, self._clock())
        self._close(backends)
        with self._lock:
            self._books.links.keep_lost(link)

    def _close_apart(self, backends: list[Backend], patience: float) -> None:
        """Close backends of other threads: we cannot let storage that hangs stop us."""
        if backends:
            closer = threading.Thread(target=self._close, args=(backends,), name=f"close {self.id}", daemon=True)
            try:
                closer.start()
            except RuntimeError:
                # There are no more threads. What is closed by none would be open, and busy, for ever.
                self._close(backends)
            else:
                closer.join(patience)

    def _close(self, backends: list[Backend]) -> None:
        for backend in backends:
            try:
                backend.close()
            except Exception:
                log.exception("Cannot close a backend transfer=%s", self.id)
            finally:
                with self._lock:
                    self._books.end_closing(backend)
