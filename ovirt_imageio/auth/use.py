"""One use of a disk by one request: from its permission to the moment when the backend is given back.

    with store.use(ticket_id, "read", request.connection) as disk:
        disk.run(operations.Read(disk.backend, sink, 0, disk.size))

Knows nothing of HTTP.
"""

from __future__ import annotations

from typing import Any, Optional

from ovirt_imageio.auth.links import Connection, Link
from ovirt_imageio.auth.ticket import Ticket
from ovirt_imageio.auth.transfer import Transfer
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.ops.operations import Operation

__all__ = ["Use"]


class Use:
    """The disk of a ticket while the block of a `with` statement runs, for "read" or "write".

    The backend belongs to the connection: it is opened by the first use over it, and kept for the next one. The answer
    to a request may leave when the block has ended.

    Threads: that of the connection.
    """

    __slots__ = ("_connection", "_link", "_right", "_transfer")

    def __init__(self, transfer: Transfer, right: str, connection: Connection) -> None:
        self._transfer = transfer
        self._right = right
        self._connection = connection
        # The connection, and the backend that serves it: inside the block.
        self._link: Optional[Link] = None

    def __enter__(self) -> Use:
        """Begin. Raises what Transfer.begin() does."""
        self._link = self._transfer.begin(self._right, self._connection)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Give the backend back."""
        assert self._link is not None
        self._transfer.end(self._link)

    @property
    def backend(self) -> Backend:
        """The disk."""
        assert self._link is not None, "outside of the block"
        backend = self._link.backend
        assert backend is not None, "an operation failed"
        return backend

    @property
    def ticket(self) -> Ticket:
        """What permits the use."""
        return self._transfer.ticket

    @property
    def transfer_id(self) -> str:
        """Names the transfer in logs."""
        return self._transfer.id

    @property
    def size(self) -> int:
        """How many bytes can be read: the ticket may allow less than there is, or more."""
        return min(self._transfer.ticket.size, self.backend.size())

    @property
    def capacity(self) -> int:
        """How many bytes can be written: some disks grow up to what the ticket allows."""
        return self._transfer.ticket.size if self.backend.can_grow else self.size

    @property
    def content_tag(self) -> str:
        """A text that changes whenever something begins to be written through the ticket."""
        return self._transfer.content_tag

    @property
    def info(self) -> dict[str, Any]:
        """What the transfer tells of itself: see Transfer.info()."""
        return self._transfer.info()

    def run(self, operation: Operation) -> None:
        """Run an operation on the backend, and account for what it moves, whatever comes of it.

        Raises what the operation raises; errors.OperationCanceled if it was cut.
        """
        assert self._link is not None, "outside of the block"
        self._transfer.run(operation, self._link)

    def touch(self) -> None:
        """Note that the client is alive, without an operation."""
        self._transfer.touch()
