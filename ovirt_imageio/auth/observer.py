"""What the store tells, of tickets and of the transfers on them, to a part of the service that counts it.

Pure: it is told names and numbers, never a ticket or a backend.
"""

from __future__ import annotations

from typing import Optional

__all__ = ["TicketObserver"]


class TicketObserver:
    """Hooks that do nothing; override those that you need.

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

    def client_moved(self, client: str, operation: str, kind: str, count: int) -> None:
        """The client at an address moved these bytes; `kind` is what they were for, as for bytes_moved().

        `operation` is what its request runs: "nbd" for one that attached the disk.
        """

    def operation_finished(self, backend: str, operation: str, error: Optional[BaseException]) -> None:
        """An operation succeeded, or failed with `error`."""
