"""What a server tells, of its connections and requests, to a part of the service that counts it."""

from __future__ import annotations

from ovirt_imageio.httpd.peer import Peer

__all__ = ["Observer"]


class Observer:
    """Hooks that do nothing; override those that you need. They must be quick, and not raise.

    Threads: called by those of the connections, at the same time.
    """

    def connection_opened(self, connection: Peer) -> None:
        """A client connected."""

    def connection_closed(self, connection: Peer) -> None:
        """A connection was closed."""

    def request_finished(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered: the pattern of its route, "" without one, and the status, 0 if there was no answer.

        `method` is what the client sent: a counter must not keep every name that it ever sees.
        """
