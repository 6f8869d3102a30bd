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
from ovirt_imageio.backends.peer import Lost, Peer
from ovirt_imageio.backends.reply import Reply
from ovirt_imageio.relay import Sink

__all__ = ["Pipeline"]

# Up to here it is cheaper to copy a body behind its head than to send both by themselves.
JOIN_LIMIT = 128 * 1024


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
        peer = self._begin(Pending("read", "GET", offset, length))
        headers = {"range": f"bytes={offset}-{offset + length - 1}"}
        peer.send(self._backend.origin.head("GET", "", headers, None))

    def write(self, offset: int, length: int, send: Callable[[Sink], None]) -> None:
        """Write a range; `send` puts all of it into the sink that it is given."""
        peer = self._begin(Pending("write", "PUT"))
        body = Body(
            peer, self._backend.origin.head("PUT", self._backend.put_suffix, content_range(offset, length), length)
        )
        try:
            if length > JOIN_LIMIT:
                body.send_head()
            send(body)
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
        peer = self._begin(Pending(operation, "PATCH"))
        body = json.dumps(message).encode("ascii")
        peer.send(self._backend.origin.head("PATCH", "", {"content-type": "application/json"}, len(body)) + body)

    def _begin(self, pending: Pending) -> Peer:
        """Return the connection for a request that is now under way."""
        if self._peer is None:
            self._peer = self._backend.origin.acquire(pending.operation)
            self._is_open = True
        self._peer.operation = pending.operation
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
    """The body of a PUT as a sink. The head leaves with the first piece: alone it would wake the server for nothing."""

    def __init__(self, peer: Peer, head: bytes) -> None:
        self._peer = peer
        self._head = head

    @property
    def socket(self) -> Optional[socket.socket]:
        """The plain socket, if there is one, and the head is not still here."""
        return None if self._head else self._peer.socket

    def send_head(self) -> None:
        """Send the head alone."""
        self._peer.send(self._head)
        self._head = b""

    def write(self, view: memoryview) -> None:
        """Send a piece."""
        if self._head:
            self._peer.send(b"".join((self._head, view)))
            self._head = b""
        else:
            self._peer.send(view)

    def advance(self, count: int) -> None:
        """Nothing is counted here."""
