"""The connection of a disk to its NBD server: made when it is needed, and made again when it broke.

Knows the NBD client; knows nothing of what is read and written.
"""

from __future__ import annotations

import errno
import logging
import threading
from types import TracebackType
from typing import Any, Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.nbd.address import Location
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.errors import ConnectionDead, RequestFailed, TimedOut
from ovirt_imageio.nbd.handshake import Agreement
from ovirt_imageio.net.lifeline import Lifeline

__all__ = ["NBDConnection", "RequestScope", "translated"]

log = logging.getLogger(__name__)


class NBDConnection:
    """One connection at a time to one export; `options` are those of nbd.connect. Cutting `line` interrupts it.

    Threads: one at a time, but for `interrupt`, which any thread may call.
    """

    def __init__(self, location: Location, line: Lifeline, **options: Any) -> None:
        self._location = location
        # A thread that waits for a connection holds it.
        self._line = line
        self._options = options
        # Held to change or interrupt the connection.
        self._lock = threading.Lock()
        # None until a request needs it, and when it was given away.
        self.client: Optional[Client] = None
        # True once a request failed: whoever serves the disk may not be able to any more.
        self.has_failed = False

    def request(self, operation: str, writes: UnflushedWrites) -> RequestScope:
        """Return what gives a client in a with block, and turns what goes wrong with it into errors of ours."""
        return RequestScope(operation, self, writes)

    def replace(self, agreement: Agreement) -> Client:
        """Return a client for many small requests, in the place of the one before; the server speaks as was agreed."""
        if self.client is not None:
            self.client.close()
        nbd = self._connect(like=agreement)
        nbd.warm_up()
        return nbd

    def forget_closed(self) -> None:
        """Forget a connection that we closed ourselves: that is not one that broke."""
        with self._lock:
            if self.client is not None and not self.client.is_alive:
                self.client = None

    def interrupt(self) -> None:
        """Make whatever waits for the server fail, now and later. Threads: any."""
        self._line.cut()
        with self._lock:
            if self.client is not None:
                self.client.interrupt()

    def close(self, writes: UnflushedWrites) -> None:
        """Say good-bye to the server; note if the connection broke with writes that were not flushed."""
        if self.client is not None:
            if not self.client.probe():
                writes.note_break()
            self.client.close()

    def connected(self, writes: UnflushedWrites) -> Client:
        """Return the client, a new one if the last connection broke."""
        if self.client is not None and self.client.probe():
            return self.client
        if self.client is not None:
            log.warning("The connection to the NBD server broke, connecting again")
            writes.note_break()
        return self._connect()

    def _connect(self, like: Optional[Agreement] = None) -> Client:
        nbd = connect(self._location, like=like, line=self._line, **self._options)
        with self._lock:
            self.client = nbd
            if self._line.is_cut:
                nbd.interrupt()
        log.debug("Connected to NBD export %s", nbd.export)
        return nbd


class RequestScope:
    """A with block that has a connection; errors of the NBD client in it become ours.

    A class, and no generator: small requests are many.
    """

    __slots__ = ("_connection", "_operation", "_writes")

    def __init__(self, operation: str, connection: NBDConnection, writes: UnflushedWrites) -> None:
        self._operation = operation
        self._connection = connection
        self._writes = writes

    def __enter__(self) -> Client:
        try:
            return self._connection.connected(self._writes)
        except ConnectionDead as e:
            self._connection.has_failed = True
            raise translated(self._operation, e) from e

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if isinstance(error, ConnectionDead):
            self._writes.note_break()
        if isinstance(error, (RequestFailed, ConnectionDead)):
            self._connection.has_failed = True
            raise translated(self._operation, error) from error


def translated(operation: str, error: Union[RequestFailed, ConnectionDead]) -> errors.Error:
    """Return our error for one of the NBD client."""
    if isinstance(error, RequestFailed):
        kind = errors.NoSpace if error.errno == errno.ENOSPC else errors.StorageError
        return kind(operation, error.reason, error.errno)
    if isinstance(error, TimedOut):
        return errors.BackendTimeout(operation, str(error), errno.ETIMEDOUT)
    return errors.StorageError(operation, str(error), errno.ENOTCONN)
