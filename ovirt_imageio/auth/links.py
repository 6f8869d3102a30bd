"""What a transfer holds on to: connections, the backends that serve them, and the operations that run.

Knows neither HTTP nor locks: a transfer guards what is here with its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional, Protocol

from ovirt_imageio import stats
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.ops import Operation

__all__ = ["Connection", "Link", "Listener", "Running"]

# Operations that change the disk.
WRITES = frozenset(["write", "zero", "flush"])

# The operation that sends its answer while it runs.
READ = "read"


class Connection(Protocol):
    """What a transfer needs of the connection that a request came over."""

    @property
    def id(self) -> int:
        """A number that no other connection of the process ever had."""

    @property
    def clock(self) -> stats.Clock:
        """Times what happens on this connection. Threads: its own."""

    def abort(self) -> None:
        """Make whatever blocks on this connection fail at once. Never blocks, never calls back. Threads: any."""

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back, in the thread of the connection, when it closes."""

    def after_request(self, callback: Callable[[], None]) -> None:
        """Call back, in the thread of the connection, when its current request is over."""

    def set_timeout(self, seconds: float) -> None:
        """Let receiving and sending stand still this long."""

    def stay_while(self, is_needed: Callable[[], bool]) -> None:
        """Stay open, though idle, while is_needed() is true. Called back in the thread of the connection."""


class Listener:
    """Is told what happens to tickets and transfers; this one does nothing with it.

    Threads: any number at once. Called with a transfer locked: it must not block, nor call a transfer or a store.
    """

    def ticket_added(self) -> None:
        """A ticket was added."""

    def ticket_removed(self) -> None:
        """A ticket was removed, or replaced."""

    def ticket_expired(self) -> None:
        """A ticket was purged, some time after it expired."""

    def bytes_moved(self, backend: str, operation: str, count: int) -> None:
        """An operation moved `count` more bytes."""

    def operation_finished(self, backend: str, operation: str, error: Optional[BaseException]) -> None:
        """An operation succeeded, or failed with `error`."""


class Link:
    """One connection that uses the transfer, and the backend that serves it."""

    __slots__ = ("backend", "connection", "is_in_use", "was_opened")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.backend: Optional[Backend] = None
        self.was_opened = False
        # True while a request may use the backend: until that is over nobody else may close it.
        self.is_in_use = False


class Running:
    """One operation that runs now."""

    __slots__ = ("cut_reason", "link", "operation", "seen", "started")

    def __init__(self, operation: Operation, link: Link, now: float) -> None:
        self.operation = operation
        self.link = link
        self.started = now
        # How much of operation.done was accounted.
        self.seen = 0
        # Why it was cut, once it was.
        self.cut_reason: Optional[str] = None

    @property
    def is_write(self) -> bool:
        """True if it changes the disk: cut in the middle it leaves that half written."""
        return self.operation.name in WRITES

    @property
    def backend_name(self) -> str:
        """The name of the backend that it uses."""
        return self.link.backend.name if self.link.backend is not None else "none"

    def cut(self, reason: str) -> None:
        """Stop it. The first call lets it notice, so that its client can be told why; the second does not wait.

        More calls do no harm: the one before could have come between two steps that block.
        """
        is_first = self.cut_reason is None
        self.cut_reason = reason
        self.operation.cancel()
        # Once a read has begun to answer there is nothing to be told.
        if is_first and self.operation.name != READ:
            return
        self.link.connection.abort()
        if self.link.backend is not None:
            self.link.backend.interrupt()
