"""What a transfer holds on to: connections, the backends that serve them, and the operations that run.

Knows neither HTTP nor locks: a transfer guards what is here with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Optional, Protocol

from ovirt_imageio.backends.base import Backend
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.measure.clock import Clock, RateMeter
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.ops.operations import Operation

__all__ = ["Connection", "Link", "Links", "Running"]


class Connection(Protocol):
    """What a transfer needs of the connection that a request came over."""

    @property
    def id(self) -> int:
        """A number that no other connection of the process ever had."""

    @property
    def client(self) -> str:
        """The address of the client; a word for one of this machine."""

    @property
    def clock(self) -> Clock:
        """Times what happens on this connection. Threads: its own."""

    def activity(self) -> int:
        """Return a number that changes when the client gives or takes something. Never blocks. Threads: any."""

    @property
    def traceparent(self) -> Optional[str]:
        """Names the work of others that is done now, for their logs; None if it is of none. Threads: its own."""

    @property
    def encryption(self) -> str:
        """What encrypts; what begins with "kernel" is spared copies. Threads: any."""

    @property
    def is_aborted(self) -> bool:
        """True after abort(). Threads: any."""

    def has_left(self) -> bool:
        """Return True if the client will send nothing more than what was sent already. Never blocks. Threads: any."""

    def abort(self) -> None:
        """Make whatever blocks on this connection fail at once. Never blocks, never calls back. Threads: any."""

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back, in the thread of the connection, when it closes."""

    def set_timeout(self, seconds: float) -> None:
        """Let receiving and sending stand still this long."""

    def stay_while(self, is_needed: Callable[[], bool]) -> None:
        """Stay open, though idle, while is_needed() is true. Called back in the thread of the connection."""


class Link:
    """One connection that uses the transfer, and the backend that serves it."""

    __slots__ = (
        "backend",
        "connection",
        "is_in_use",
        "meter",
        "received",
        "sent",
        "traceparent",
        "was_opened",
        "writes",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # They are those of the client, however often its backend is opened again.
        self.writes = UnflushedWrites()
        self.backend: Optional[Backend] = None
        self.was_opened = False
        # That of the request before, so that the log tells of each trace once.
        self.traceparent: Optional[str] = None
        # True while a request may use the backend: until that is over no other thread may close it.
        self.is_in_use = False
        # Image bytes that came from the client, and that went to it.
        self.received = 0
        self.sent = 0
        self.meter = RateMeter()

    def sample(self, now: float) -> None:
        """Note how much has moved by now."""
        self.meter.sample(now, self.received + self.sent)


class Running:
    """One operation that runs now."""

    __slots__ = (
        "_activity",
        "backend_name",
        "cut_reason",
        "is_provisional",
        "link",
        "moved",
        "operation",
        "seen",
        "started",
    )

    def __init__(self, operation: Operation, link: Link, now: float) -> None:
        self.operation = operation
        self.link = link
        self.started = now
        # When its client last gave or took something, or had nothing to do but to wait for the storage.
        self.moved = now
        self.backend_name = link.backend.name if link.backend is not None else "none"
        # Until it ends, has what it says it has done only been sent? A client that is attached tells what is stored.
        has_sent = link.backend is not None and link.backend.reports_sent
        self.is_provisional = operation.is_change and not operation.is_answering and has_sent
        # How much of operation.done was accounted.
        self.seen = 0
        self._activity: Optional[int] = None
        # Why it was cut, once it was.
        self.cut_reason: Optional[str] = None

    def is_client_active(self) -> bool:
        """Return True if the client gave or took something since the last look, though too little for a step."""
        last, self._activity = self._activity, self.link.connection.activity()
        return last is not None and last != self._activity

    def ends_alone(self) -> bool:
        """Return True if it ends without its client, which has left, or done its part."""
        return self.cut_reason is not None or not self.operation.needs_client or self.link.connection.has_left()

    def cut(self, reason: str) -> None:
        """Stop it. The first call lets it notice, so that its client can be told why; the second does not wait.

        More calls do no harm: the one before could have come between two steps that block.
        """
        is_first = self.cut_reason is None
        self.cut_reason = reason
        self.operation.cancel()
        # Where the answer has begun there is nothing to be told.
        if is_first and not self.operation.is_answering:
            return
        self.link.connection.abort()
        if self.link.backend is not None:
            self.link.backend.interrupt()


class Links:
    """All connections that use one transfer, and what runs on them.

    Threads: one at a time.
    """

    def __init__(self) -> None:
        self.running: set[Running] = set()
        self._links: dict[int, Link] = {}
        # Backends that are being opened or closed right now, and since when; threads cannot hold the lock meanwhile.
        self._opening: dict[Link, tuple[Lifeline, float]] = {}
        self._closing: dict[Backend, float] = {}
        # True if a connection closed before a flush could tell its client of lost writes. The next one that writes is
        # most likely of the same client: that hears of it.
        self._has_untold = False

    @property
    def is_drained(self) -> bool:
        """True if no request uses a backend, and none is being closed."""
        return not self._closing and not any(link.is_in_use for link in self._links.values())

    @property
    def is_busy(self) -> bool:
        """True if an operation runs, or a backend is being opened."""
        return bool(self.running or self._opening)

    @property
    def opened(self) -> int:
        """How many connections have used the disk and are still there."""
        return sum(link.was_opened for link in self._links.values())

    @property
    def in_kernel(self) -> int:
        """For how many of them the kernel speaks TLS."""
        return sum(link.was_opened and link.connection.encryption.startswith("kernel") for link in self._links.values())

    def clients(self, now: float) -> list[dict[str, Any]]:
        """Return what the connections of each client that used the disk have moved, apart for HTTP and NBD."""
        attached = {running.link for running in self.running if running.operation.name == "nbd"}
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for link in self._links.values():
            if link.was_opened:
                key = link.connection.client, "nbd" if link in attached else "http"
                counts = found.setdefault(key, {"connections": 0, "received": 0, "sent": 0, "rate": 0})
                link.sample(now)
                counts["connections"] += 1
                counts["received"] += link.received
                counts["sent"] += link.sent
                counts["rate"] += int(link.meter.rate())
        return [{"address": address, "protocol": name, **counts} for (address, name), counts in sorted(found.items())]

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._links)

    def find_stalled(self, now: float, seconds: float) -> Optional[Running]:
        """Return what has stood still the longest, at least so long, and was not cut yet."""
        stalled = [run for run in self.running if run.cut_reason is None and now - run.moved >= seconds]
        return min(stalled, key=lambda running: running.moved, default=None)

    def find_left(self) -> Optional[Link]:
        """Return a link that no request uses, whose client has left, and whose thread did not notice yet."""
        for link in self.idle():
            if not link.connection.is_aborted and link.connection.has_left():
                return link
        return None

    def find_overlapping(self, operation: Operation) -> set[Running]:
        """Return the changes under way, or waiting, of the range that an operation wants to change."""
        if not self.running:
            return set()
        start, end = operation.offset, operation.offset + operation.length
        return {
            run
            for run in self.running
            if run.operation.is_change
            and run.operation.offset < end
            and start < run.operation.offset + run.operation.length
        }

    def find(self, connection: Connection) -> Optional[Link]:
        """Return the link of a connection, if it has one."""
        return self._links.get(connection.id)

    def add(self, connection: Connection) -> Link:
        """Return a new link."""
        link = self._links[connection.id] = Link(connection)
        return link

    def remove(self, link: Link) -> None:
        """Forget a connection that closed."""
        del self._links[link.connection.id]

    @property
    def has_loss(self) -> bool:
        """True if writes may be lost of which no flush has told a client."""
        return self._has_untold or any(link.writes.is_lost for link in self._links.values())

    def resume(self, has_loss: bool) -> None:
        """Go on where another process left off, which may know of lost writes."""
        self._has_untold = has_loss

    def keep_lost(self, link: Link) -> None:
        """Remember that a connection which closed, or closes, has lost writes, if no flush told its client."""
        self._has_untold |= link.writes.pass_on_loss()

    def look_for_lost(self) -> None:
        """Remember it of connections whose clients have left, which their own threads may notice later."""
        for link in self._links.values():
            if link.writes.is_lost and not link.is_in_use and link.connection.has_left():
                self.keep_lost(link)

    def pass_on_lost(self, link: Link) -> None:
        """Let a connection tell its client what the one that closed could not."""
        if self._has_untold:
            self._has_untold = False
            link.writes.note_loss()

    def idle(self) -> list[Link]:
        """Return the links that no request uses."""
        return [link for link in self._links.values() if not link.is_in_use]

    def between_operations(self) -> list[Link]:
        """Return the links that a request uses right now without running an operation."""
        busy = {running.link for running in self.running}
        return [link for link in self._links.values() if link.is_in_use and link not in busy]

    def begin_opening(self, link: Link, now: float) -> Lifeline:
        """Note that the backend of a link is being opened, by a thread that holds the line which is returned."""
        line = Lifeline()
        self._opening[link] = line, now
        return line

    def end_opening(self, link: Link) -> None:
        """Note that it was opened, or could not be."""
        del self._opening[link]

    def opening(self) -> list[tuple[Link, Lifeline]]:
        """Return the links whose backends are being opened, and what ends that."""
        return [(link, line) for link, (line, _) in self._opening.items()]

    def take_backends(self, links: Iterable[Link], now: float) -> list[Backend]:
        """Take the backends off their links, to be closed: end_closing() must follow for each."""
        backends = []
        for link in links:
            if link.backend is not None:
                backends.append(link.backend)
                link.backend = None
        self._closing.update(dict.fromkeys(backends, now))
        return backends

    def end_closing(self, backend: Backend) -> None:
        """Note that a backend was closed."""
        del self._closing[backend]

    def describe(self, now: float) -> list[str]:
        """Return a line for each thing that is in use: what, and since when."""
        lines = [
            f"{running.operation} (connection {running.link.connection.id}, for {now - running.started:.0f} s)"
            for running in self.running
        ]
        lines += [
            f"opening the disk (connection {link.connection.id}, for {now - since:.0f} s)"
            for link, (_, since) in self._opening.items()
        ]
        lines += [
            f"a request (connection {link.connection.id})"
            for link in self.between_operations()
            if link not in self._opening
        ]
        lines += [f"closing the disk (for {now - since:.0f} s)" for since in self._closing.values()]
        return lines
