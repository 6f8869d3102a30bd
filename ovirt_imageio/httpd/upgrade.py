"""A connection that speaks another protocol after "101 Switching Protocols".

Knows streams; knows nothing of the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovirt_imageio import errors
from ovirt_imageio.httpd.peer import Peer
from ovirt_imageio.httpd.stream import Data, Stream, Timeout
from ovirt_imageio.net import eager

__all__ = ["Upgraded"]


class Upgraded:
    """The bytes of a client that asked for another protocol.

    Threads: the connection's.
    """

    def __init__(self, stream: Stream, peer: Peer) -> None:
        self.stream = stream
        self._peer = peer

    def wait(self, view: memoryview) -> int:
        """Read at least one byte of the next request; return how many, 0 at the end.

        The end is also when the connection is not needed any more, or the server stops.
        """
        # First this, then the question: a thread that stops us sets its flag, then looks whether we are busy.
        self._peer.is_busy = False
        eager.end_work()
        try:
            while not self._peer.is_stopping:
                try:
                    return self.stream.readinto(view)
                except Timeout:
                    if not self._peer.is_needed():
                        return 0
                except errors.OperationCanceled:
                    if not self._peer.is_stopping:
                        raise
            return 0
        finally:
            self._peer.is_busy = True
            eager.begin_work()

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte of what the client has begun; return how many, 0 at the end."""
        return self.stream.readinto(view)

    def send_parts(self, parts: Sequence[Data]) -> None:
        """Send all parts."""
        self.stream.send_parts(parts)
