"""All tickets of the process: add, extend, authorize, remove, purge.

A watchdog looks a few times per second at those on which something runs: what stands still beyond the end of its ticket
is aborted, the grace of canceled writes ends. It purges tickets that expired long ago.

Knows nothing of HTTP.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth import record as records
from ovirt_imageio.auth import ticket as tickets
from ovirt_imageio.auth.agenda import Agenda
from ovirt_imageio.auth.cutter import MAX_CONNECTIONS
from ovirt_imageio.auth.links import Connection
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.record import Record
from ovirt_imageio.auth.ticket import Ticket
from ovirt_imageio.auth.transfer import CLOSE_PATIENCE, OpenBackend, Transfer
from ovirt_imageio.auth.use import Use
from ovirt_imageio.auth.watchdog import Watchdog

__all__ = ["Store"]

log = logging.getLogger("tickets")

# Often enough for a client that waits for the end of a transfer, seldom enough to cost nothing.
TICK_SECONDS = 0.25

# How many characters of a ticket's id a listing shows.
LISTED_PREFIX = 8


# In the class `list` is its method.
Found = list[dict[str, Any]]
Records = list[Record]


class Store:
    """Tickets by their secret id.

    open_backend opens the disk of a ticket; check_url raises errors.InvalidValue for a URL that it could not open.
    clock tells seconds that only grow. A ticket may be used over `max_connections` connections at once. Writes on one
    that is removed have `remove_grace` seconds to end; it is forgotten `purge_after` seconds after it expired. The
    watchdog looks every `tick_seconds`, so a stalled operation is aborted at most this late. A disk that no
    request uses is closed within `close_patience` seconds, or its storage hangs, and no thread waits longer for that.
    on_gone is called with a ticket that was removed or replaced, when nothing runs on it any more; by each thread that
    removes it, so several at once.

    A context manager that starts and stops the watchdog.

    Threads: any number at once.

    Locks: _lock guards only the dictionary. It may be held when the lock of a transfer is taken, but nothing that could
    block is done meanwhile: no backend is touched, no socket closed, no other thread waited for.
    """

    def __init__(
        self,
        open_backend: OpenBackend,
        clock: Callable[[], float] = time.monotonic,
        default_inactivity_timeout: int = tickets.DEFAULT_INACTIVITY_TIMEOUT,
        *,
        check_url: Optional[Callable[[str], None]] = None,
        remove_grace: float = 2,
        purge_after: float = 3600,
        max_connections: int = MAX_CONNECTIONS,
        tick_seconds: float = TICK_SECONDS,
        close_patience: float = CLOSE_PATIENCE,
        observer: Optional[TicketObserver] = None,
        on_gone: Callable[[Ticket], None] = lambda ticket: None,
    ) -> None:
        self._open_backend = open_backend
        self._clock = clock
        self._default_inactivity_timeout = default_inactivity_timeout
        self._check_url = check_url
        self._remove_grace = remove_grace
        self._purge_after = purge_after
        self._max_connections = max_connections
        self._close_patience = close_patience
        self._observer = observer or TicketObserver()
        self._on_gone = on_gone
        # One sequence for all, so that a version says which of two tickets with the same id it is of.
        self._versions = itertools.count(1)
        self._lock = threading.Lock()
        self._transfers: dict[str, Transfer] = {}
        # When to look whether a ticket is to be purged, by its id. Guarded as the dictionary.
        self._purges = Agenda()
        # Looks after replaced ones, too.
        self._watchdog = Watchdog(self._purge, tick_seconds)

    # --- For requests ------------------------------------------------------------------------------------------------

    def authorize(self, ticket_id: str, right: str) -> Transfer:
        """Return the transfer of a ticket that permits to "read" or "write" now.

        For a request that must be refused before more of it is read; it may be refused later all the same. Raises
        errors.NoSuchTicket or errors.NotPermitted.
        """
        transfer = self._find(ticket_id)
        transfer.authorize(right)
        return transfer

    def use(self, ticket_id: str, right: str, connection: Connection) -> Use:
        """Return what lets a request "read" or "write" the disk of a ticket, over a connection, in a `with` block.

        The block raises what Transfer.begin() does where it begins. Raises errors.NoSuchTicket.
        """
        transfer = self._find(ticket_id)
        log.debug("USE right=%s transfer=%s", right, transfer.id)
        return Use(transfer, right, connection)

    # --- For the control service -------------------------------------------------------------------------------------

    def add(self, document: object, url_id: Optional[str] = None) -> Transfer:
        """Add the ticket that a decoded JSON document describes, instead of any that has its id.

        url_id is the id under which it was sent. The transfer of a ticket that is replaced is canceled before the new
        one can be used. Raises errors.InvalidTicket.
        """
        ticket = tickets.parse(document, url_id, self._default_inactivity_timeout, self._check_url)
        transfer = self._make(ticket)
        old = None
        while True:
            with self._lock:
                current = self._transfers.get(ticket.uuid)
                if current is old:
                    self._transfers[ticket.uuid] = transfer
                    self._plan_purge(transfer)
                    break
            old = current
            if old is not None:
                old.cancel(patience=self._close_patience)
        if old is not None:
            log.info("REPLACE transfer=%s", old.id)
            self._on_gone(old.ticket)
            self._observer.ticket_removed()
        log.info("ADD transfer=%s: %s", transfer.id, ticket)
        self._observer.ticket_added()
        return transfer

    def extend(self, ticket_id: str, document: object) -> None:
        """Change a ticket as a decoded JSON document says, even one that expired.

        Raises errors.InvalidTicket, errors.NotFound.
        """
        changes = tickets.parse_changes(document)
        transfer = self._get(ticket_id)
        transfer.extend(changes)
        with self._lock:
            if self._transfers.get(ticket_id) is transfer:
                self._plan_purge(transfer)
        log.info("EXTEND transfer=%s: %s", transfer.id, changes)

    def __contains__(self, ticket_id: object) -> bool:
        """Return True for the id of a ticket, be it open, expired or canceled."""
        return ticket_id in self._transfers

    def info(self, ticket_id: str) -> dict[str, Any]:
        """Return the state of a ticket, be it open, expired or canceled. Raises errors.NotFound."""
        return self._get(ticket_id).info()

    def wait(
        self,
        ticket_id: str,
        seconds: float,
        since: Optional[int] = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Return the state of a ticket as soon as its version differs from `since`, at the latest after `seconds`.

        Without `since`: when anything changes from now on. Once is_over() is true the wait ends. Raises
        errors.NotFound.
        """
        transfer = self._get(ticket_id)
        transfer.wait_change(since, seconds, is_over)
        return transfer.info()

    def list(self, offset: int = 0, limit: Optional[int] = None) -> list[dict[str, Any]]:
        """Return the state of all tickets, with a prefix in place of each secret id, oldest first; or of a page."""
        end = None if limit is None else offset + limit
        return [_without_secret(transfer.info()) for transfer in self._snapshot()[offset:end]]

    def find(self, text: str) -> Found:
        """Return the states, with their ids, of the tickets that text may mean to a person.

        That is the one with this id; else those with this transfer id; else all whose id or transfer id begins with it.
        """
        transfers = self._snapshot()
        meanings: tuple[Callable[[Transfer], bool], ...] = (
            lambda transfer: transfer.ticket.uuid == text,
            lambda transfer: transfer.id == text,
            lambda transfer: transfer.ticket.uuid.startswith(text) or transfer.id.startswith(text),
        )
        for is_meant in meanings:
            found = [transfer.info() for transfer in transfers if is_meant(transfer)]
            if found:
                return found
        return []

    def states(self) -> dict[str, int]:
        """Return how many tickets are in which state: "idle", "active", "expired" or "canceled"."""
        return Counter(transfer.describe_state() for transfer in self._snapshot())

    def remove(self, ticket_id: str, timeout: float) -> None:
        """Cancel a ticket, wait for what still runs on it, and forget it; harmless if it does not exist.

        Raises errors.TransferBusy if something still runs after `timeout` seconds: the ticket stays, canceled, for
        another try. With timeout 0 there is no wait, and nothing is raised.
        """
        transfer = self._transfers.get(ticket_id)
        if transfer is None:
            log.info("REMOVE: no such ticket")
            return
        deadline = time.monotonic() + timeout
        in_turn([transfer], Transfer.cancel, self._remove_grace, 0 if timeout else self._close_patience)
        self._forget_drained(transfer, deadline, is_quiet=timeout == 0)

    def clear(self, timeout: float = 0) -> None:
        """Remove all tickets, like remove()."""
        transfers = self._snapshot()
        deadline = time.monotonic() + timeout
        in_turn(transfers, Transfer.cancel, self._remove_grace, 0 if timeout else self._close_patience)
        for transfer in transfers:
            self._forget_drained(transfer, deadline, is_quiet=timeout == 0)

    # --- For a restart of the service --------------------------------------------------------------------------------

    def record(self, since: float) -> Records:
        """Return what another process needs to go on with the tickets that were not removed.

        Called when nothing is served any more. since: when clients could reach us last: the time that they had to wait
        does not count for them.
        """
        return [record for transfer in self._snapshot() if (record := transfer.record(since)) is not None]

    def resume(self, documents: Iterable[object]) -> None:
        """Go on with the tickets of another process, which described its records; before anything is served.

        A ticket that was added already stays. One that we cannot go on with is told in the log, and forgotten.
        """
        found = [record for document in documents if (record := self._parse_record(document)) is not None]
        # A client that waits for news must see that there are some.
        self._versions = itertools.count(max((record.version for record in found), default=0) + 1)
        for record in found:
            transfer = self._make(record.ticket)
            transfer.resume(record)
            with self._lock:
                if record.ticket.uuid in self._transfers:
                    continue
                self._transfers[record.ticket.uuid] = transfer
                self._plan_purge(transfer)
            log.info("RESUME transfer=%s: %s", transfer.id, record.ticket)
            self._observer.ticket_added()

    def _parse_record(self, document: object) -> Optional[Record]:
        try:
            return records.parse(document, self._check_url)
        except errors.InvalidTicket as error:
            # Not the value: it may hold the id.
            log.error("Cannot go on with a ticket after the restart: its %s is not %s", error.name, error.expected)
            return None

    # --- As time goes by ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the watchdog."""
        self._watchdog.start()

    def stop(self) -> None:
        """Stop all transfers, cutting what runs, and the watchdog."""
        self._watchdog.stop()
        in_turn(self._snapshot(), Transfer.stop, 0, self._close_patience)
        # The second cut does not wait for what was asked to end.
        self.tick()

    def __enter__(self) -> Store:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.stop()

    def tick(self) -> None:
        """Do what time asks for, once, while the watchdog does not run. Called by one thread at a time."""
        self._watchdog.look()

    def _purge(self) -> None:
        """Forget the tickets that expired long ago. What is cut in this tick is seen to end first."""
        now = self._clock()
        with self._lock:
            due = [self._transfers[ticket_id] for ticket_id in self._purges.pop_due(now)]
        for transfer in due:
            expires, is_running = transfer.find_expiry()
            if is_running or now - expires < self._purge_after:
                with self._lock:
                    if self._transfers.get(transfer.ticket.uuid) is transfer:
                        self._plan_purge(transfer)
                continue
            # A thread that waits here for storage that hangs could abort nothing else meanwhile.
            transfer.cancel(patience=0)
            if self._forget(transfer):
                log.info("PURGE transfer=%s", transfer.id)
                self._observer.ticket_expired()

    # --- Inside ------------------------------------------------------------------------------------------------------

    def _make(self, ticket: Ticket) -> Transfer:
        return Transfer(
            ticket,
            self._open_backend,
            self._clock,
            self._versions,
            self._observer,
            max_connections=self._max_connections,
            attend=self._watchdog.attend,
        )

    def _snapshot(self) -> tuple[Transfer, ...]:
        with self._lock:
            return tuple(self._transfers.values())

    def _plan_purge(self, transfer: Transfer) -> None:
        """Look again when the ticket should be purged, if nothing happens until then."""
        assert self._lock.locked()
        self._purges.set(transfer.ticket.uuid, transfer.find_expiry()[0] + self._purge_after)

    def _find(self, ticket_id: str) -> Transfer:
        """Return the transfer of a ticket, for a client: it is not told what it may not know."""
        transfer = self._transfers.get(ticket_id)
        if transfer is None:
            raise errors.NoSuchTicket()
        return transfer

    def _get(self, ticket_id: str) -> Transfer:
        transfer = self._transfers.get(ticket_id)
        if transfer is None:
            raise errors.NotFound("ticket")
        return transfer

    def _forget(self, transfer: Transfer) -> bool:
        """Forget a transfer; return False if another thread did it before."""
        with self._lock:
            if self._transfers.get(transfer.ticket.uuid) is not transfer:
                return False
            del self._transfers[transfer.ticket.uuid]
            self._purges.remove(transfer.ticket.uuid)
            return True

    def _forget_drained(self, transfer: Transfer, deadline: float, is_quiet: bool) -> None:
        is_drained = transfer.wait_drained(max(0, deadline - time.monotonic()))
        # It may have ended since.
        running = [] if is_drained else transfer.describe_running()
        if running:
            if is_quiet:
                log.info("REMOVE transfer=%s: canceled, still busy", transfer.id)
                return
            raise errors.TransferBusy(transfer.id, running)
        # Another thread that removes it waits for that, too: it is forgotten afterwards.
        self._on_gone(transfer.ticket)
        if self._forget(transfer):
            log.info("REMOVE transfer=%s", transfer.id)
            self._observer.ticket_removed()


def in_turn(
    transfers: Iterable[Transfer], end: Callable[[Transfer, float, float], None], grace: float, patience: float
) -> None:
    """Cancel or stop transfers; storage that hangs delays all of them together no longer than one alone."""
    deadline = time.monotonic() + patience
    for transfer in transfers:
        end(transfer, grace, max(0, deadline - time.monotonic()))


def _without_secret(info: dict[str, Any]) -> dict[str, Any]:
    uuid = info.pop("uuid")
    prefix = tickets.short(uuid, LISTED_PREFIX)
    # The URL of a proxy's ticket holds the same id.
    return {"uuid_prefix": prefix, **info, "url": errors.conceal(info["url"], uuid, f"{prefix}...")}
