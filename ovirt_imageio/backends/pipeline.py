"""Several requests to one image under way on one connection, so that none waits for the way there and back.

    read(0, 65536)  write(...)  zero(...)      sent one after the other
    finish()        finish()    finish()       the answers, in the same order

Small requests gain most: those of a fragmented image, or those to a server far away. Knows HTTP; knows nothing of who
wants the requests, and repeats none.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional

from ovirt_imageio.backends.http import HttpBackend, content_range
from ovirt_imageio.backends.peer import Data, Lost, Peer
from ovirt_imageio.backends.reply import Reply
from ovirt_imageio.relay import Sink

__all__ = ["Pipeline"]


class Pending(NamedTuple):
    """A request whose answer is still to come."""

    operation: str
    method: str
    offset: int = 0
    length: int = 0


class Pipeline:
    """Sends requests through the connection of a backend, which must not be used for others meanwhile.

    After an error call `drop`: what is under way then is lost.

    Threads: one at a time, but for the backend's `interrupt`.
    """

    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend
        self._peer: Optional[Peer] = None
        self._pending: deque[Pending] = deque()
        # False if the server closes the connection after the last answer.
        self._is_open = False

    def __len__(self) -> int:
        """Return how many requests are under way."""
        return len(self._pending)

    def read(self, offset: int, length: int) -> None:
        """Ask for a range."""
        headers = {"range": f"bytes={offset}-{offset + length - 1}"}
        self._send(Pending("read", "GET", offset, length), "", headers)

    def write(self, offset: int, length: int, send: Callable[[Sink], None]) -> None:
        """Write a range; `send` puts all of it into the sink that it is given."""
        headers = content_range(offset, length)
        peer = self._send(Pending("write", "PUT"), self._backend.put_suffix, headers, None, length)
        try:
            send(Body(peer))
        except (Lost, OSError) as e:  # A plain error of the system if the bytes stayed in the kernel.
            # A server that refuses a body tells why before it leaves.
            self._raise_refusal()
            if isinstance(e, Lost):
                raise
            raise peer.lost(e.strerror or str(e)) from e

    def zero(self, offset: int, length: int) -> None:
        """Zero a range, with PATCH; for those that cannot, the backend has another way."""
        assert "zero" in self._backend.features
        flush = "flush" not in self._backend.features
        self._patch("zero", {"op": "zero", "offset": offset, "size": length, "flush": flush})

    def finish(self, receive: Optional[Callable[[Reply], None]] = None) -> None:
        """Wait for the oldest answer; `receive` takes the data of a read from it, all of it."""
        pending, peer = self._pending[0], self._peer
        assert peer is not None
        peer.operation = pending.operation
        with Reply(peer, pending.method, self._keep) as reply:
            if pending.method == "GET":
                self._backend.check_range(reply, pending.offset, pending.length)
            else:
                self._backend.check_reply(reply, pending.operation, 200, 204)
            if receive is not None:
                receive(reply)
        self._pending.popleft()
        if not self._is_open and self._pending:
            # Its answers will never come.
            raise peer.lost("it was closed while requests were under way")
        if not self._pending:
            self._peer = None
            self._backend.origin.release(peer, self._is_open)

    def drop(self) -> None:
        """Forget what is under way, and close the connection."""
        self._pending.clear()
        peer, self._peer = self._peer, None
        if peer is not None:
            self._backend.origin.release(peer, False)

    def _patch(self, operation: str, message: Mapping[str, Any]) -> None:
        body = json.dumps(message).encode("ascii")
        self._send(Pending(operation, "PATCH"), "", {"content-type": "application/json"}, body, len(body))

    def _send(
        self,
        pending: Pending,
        suffix: str,
        headers: Mapping[str, str],
        body: Optional[Data] = None,
        length: Optional[int] = None,
    ) -> Peer:
        if self._peer is None:
            self._peer = self._backend.origin.acquire(pending.operation)
            self._is_open = True
        self._peer.operation = pending.operation
        self._peer.send(self._backend.origin.head(pending.method, suffix, headers, length) + bytes(body or b""))
        self._pending.append(pending)
        return self._peer

    def _keep(self, peer: Peer, is_reusable: bool) -> None:
        """Keep the connection when a reply is over, as more may come."""
        self._is_open = is_reusable

    def _raise_refusal(self) -> None:
        """Raise what the server said, if it said anything but yes."""
        try:
            while self._pending and self._peer is not None:
                self.finish()
        except Lost:
            pass


class Body:
    """The body of a PUT as a sink."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @property
    def socket(self) -> Optional[socket.socket]:
        """The plain socket, if there is one."""
        return self._peer.socket

    def write(self, view: memoryview) -> None:
        """Send a piece."""
        self._peer.send(view)

    def advance(self, count: int) -> None:
        """Nothing is counted here."""
