"""Connections to a server that is far, opened before they are needed: what takes several round trips begins at once.

    ahead = Ahead(7, remote.attach)
    ahead.take(line)                    one of them, or None: then the caller opens one, and gets the error if it fails
    ahead.close()

Knows nothing of what the connections are for.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Callable, Generic, Optional, Protocol, TypeVar

from ovirt_imageio import errors
from ovirt_imageio.client.copy.engine import uninterrupted
from ovirt_imageio.net.lifeline import Lifeline

__all__ = ["Ahead"]

log = logging.getLogger(__name__)


# A server logs a warning when a client leaves amid the handshake of TLS: so connections that nobody needs may end it.
# That takes two or three round trips; lost packets and servers that hang are not waited for.
PATIENCE = 2.0


class Closable(Protocol):
    """A connection, as far as it is known here."""

    def close(self) -> None:
        """Release everything."""


C = TypeVar("C", bound=Closable)


class Ahead(Generic[C]):
    """Opens `count` connections, each by a thread of its own. In the end, those being opened have `patience` seconds.

    Threads: any.
    """

    def __init__(self, count: int, open_one: Callable[[Lifeline], C], *, patience: float = PATIENCE) -> None:
        self._open_one = open_one
        self._patience = patience
        # Cut when no more are wanted.
        self._line = Lifeline()
        # Guards what follows, and tells of its changes.
        self._news = threading.Condition()
        self._ready: list[C] = []
        # How many are neither ready nor failed, and how many callers wait for one of those.
        self._opening = count
        self._waiting = 0
        self._threads = [threading.Thread(target=self._open, name=f"ahead/{n}", daemon=True) for n in range(count)]
        with uninterrupted():
            for thread in self._threads:
                thread.start()

    def take(self, line: Lifeline) -> Optional[C]:
        """Return a connection, the first one that is ready; None if there are no more.

        A thread that cuts the line ends the wait. Raises errors.OperationCanceled.
        """
        try:
            with line.waking(self._wake), self._news:
                # A caller behind those that wait already has none to expect.
                if self._waiting < self._opening:
                    self._waiting += 1
                    self._news.wait_for(lambda: self._ready or not self._opening or line.is_cut)
                    self._waiting -= 1
                line.check()
                return self._ready.pop(0) if self._ready else None
        except OSError:
            raise errors.OperationCanceled() from None

    def close(self) -> None:
        """Close those that nobody took, also those that are being opened; harmless when repeated."""
        try:
            with self._news:
                self._news.wait_for(lambda: not self._opening, self._patience)
        finally:
            self._line.cut()
        for thread in self._threads:
            thread.join()
        with self._news:
            ready, self._ready = self._ready, []
        with contextlib.ExitStack() as stack:
            for connection in ready:
                stack.callback(connection.close)

    def _open(self) -> None:
        connection: Optional[C] = None
        try:
            connection = self._open_one(self._line)
        except errors.Error as error:
            # A caller that needs one opens it, and gets the error if it fails again.
            log.debug("Cannot open a connection ahead: %s", error)
        finally:
            with self._news:
                self._opening -= 1
                if connection is not None:
                    self._ready.append(connection)
                self._news.notify_all()

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()
