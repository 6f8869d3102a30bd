"""Whoever wants to count what the server does.

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovirt_imageio.httpd.connection import Connection

__all__ = ["Observer"]


class Observer:
    """Hooks that do nothing; override those that you need. They must be quick, and not raise.

    Threads: called by those of the connections, at the same time.
    """

    def connection_opened(self, connection: Connection) -> None:
        """Somebody connected."""

    def connection_closed(self, connection: Connection) -> None:
        """A connection was closed."""

    def request_finished(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered: the pattern of its route, "" without one, and the status, 0 if there was no answer.

        `method` is what the client sent: a counter must not keep every name that it ever sees.
        """
