"""Several requests to one image under way on one connection, so that none waits for the way there and back.

    read(0, 65536)  write(...)  zero(...)      sent one after the other
    finish()        finish()    finish()       the answers, in the same order

Small requests gain most: those of a fragmented image, or those to a server far away. Knows HTTP; knows nothing of what
the requests are for, and repeats none.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections import deque
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

from ovirt_imageio.origin.connection import Lost, Peer
from ovirt_imageio.origin.image import Image
from ovirt_imageio.origin.reply import Reply
from ovirt_imageio.relay import Sink, buffers

__all__ = ["Frame", "Pipeline"]

# Whole pages, so that what is behind them is aligned as direct I/O wants it. Servers refuse longer heads anyway.
HEAD_ROOM = 16 * 1024


class Frame:
    """Memory for the body of a request, with room for the head before it: so both leave with one call and no copy.

    room       |      head| body               |
                          ^ view
    """

    def __init__(self, size: int) -> None:
        self._memory = buffers.aligned(HEAD_ROOM + size)
        self.view = self._memory[HEAD_ROOM:]

    def join(self, head: bytes, length: int) -> memoryview:
        """Return head and body in one piece."""
        start = HEAD_ROOM - len(head)
        self._memory[start:HEAD_ROOM] = head
        return self._memory[start : HEAD_ROOM + length]


class Pending(NamedTuple):
    """A request whose answer is still to come."""

    operation: str
    method: str
    offset: int = 0
    length: int = 0


WRITE = Pending("write", "PUT")
ZERO = Pending("zero", "PATCH")


class Pipeline:
    """Sends requests through the connection of an image, which must not be used for others meanwhile.

    After an error call `drop`: what is under way then is lost.

    Threads: one at a time, but for the image's `interrupt`.
    """

    def __init__(self, image: Image) -> None:
        self._resource = image.resource
        self._peer: Optional[Peer] = None
        self._pending: deque[Pending] = deque()
        # False if the server closes the connection after the last answer.
        self._is_open = False
        self._get_head = self._head_start("GET", "")
        self._put_head = self._head_start("PUT", self._resource.put_suffix)
        self._patch_head = self._head_start("PATCH", "") + b"content-type: application/json\r\n"

    def __len__(self) -> int:
        """Return how many requests are under way."""
        return len(self._pending)

    def read(self, offset: int, length: int) -> None:
        """Ask for a range."""
        peer = self._begin(Pending("read", "GET", offset, length))
        peer.send(b"%srange: bytes=%d-%d\r\n\r\n" % (self._get_head, offset, offset + length - 1))

    def write(self, offset: int, frame: Frame, length: int) -> None:
        """Write what is in a frame, which may be used again at once."""
        peer = self._begin(WRITE)
        with self._refusals(peer):
            peer.send(frame.join(self._write_head(offset, length), length))

    def stream(self, offset: int, length: int, send: Callable[[Sink], None]) -> None:
        """Write a range; `send` puts all of it into the sink that it is given."""
        peer = self._begin(WRITE)
        with self._refusals(peer):
            peer.send(self._write_head(offset, length))
            send(BodySink(peer))

    def zero(self, offset: int, length: int) -> None:
        """Zero a range, with PATCH; for those that cannot, the image has another way."""
        assert "zero" in self._resource.abilities.features
        peer = self._begin(ZERO)
        flush = "flush" not in self._resource.abilities.features
        body = json.dumps({"op": "zero", "offset": offset, "size": length, "flush": flush}).encode("ascii")
        peer.send(b"%scontent-length: %d\r\n\r\n%s" % (self._patch_head, len(body), body))

    def finish(self, receive: Optional[Callable[[Reply], None]] = None) -> None:
        """Wait for the oldest answer; `receive` takes the data of a read from it, all of it."""
        pending, peer = self._pending[0], self._peer
        assert peer is not None
        peer.operation = pending.operation
        with Reply(peer, pending.method, self._keep) as reply:
            if pending.method == "GET":
                self._resource.check_range(reply, pending.offset, pending.length)
            else:
                self._resource.check_reply(reply, pending.operation, 200, 204)
            if receive is not None:
                receive(reply)
        self._pending.popleft()
        if not self._is_open and self._pending:
            # Its answers will never come.
            raise peer.lost("it was closed while requests were under way")
        if not self._pending:
            self._peer = None
            self._resource.origin.release(peer, self._is_open)

    def drop(self) -> None:
        """Forget what is under way, and close the connection."""
        self._pending.clear()
        peer, self._peer = self._peer, None
        if peer is not None:
            self._resource.origin.release(peer, False)

    def _begin(self, pending: Pending) -> Peer:
        """Return the connection for a request that is now under way."""
        if self._peer is None:
            self._peer = self._resource.origin.acquire(pending.operation)
            self._is_open = True
        self._peer.operation = pending.operation
        self._pending.append(pending)
        return self._peer

    def _head_start(self, method: str, suffix: str) -> bytes:
        """Return a head without its end, to which more headers may be added."""
        return self._resource.origin.head(method, suffix, None, None)[: -len(b"\r\n")]

    def _write_head(self, offset: int, length: int) -> bytes:
        last = offset + length - 1
        return b"%scontent-range: bytes %d-%d/*\r\ncontent-length: %d\r\n\r\n" % (self._put_head, offset, last, length)

    def _keep(self, peer: Peer, is_reusable: bool) -> None:
        """Keep the connection when a reply is over, as more may come."""
        self._is_open = is_reusable

    @contextlib.contextmanager
    def _refusals(self, peer: Peer) -> Iterator[None]:
        """When a body cannot be sent, raise what the server said: one that refuses it tells why before it leaves."""
        try:
            yield
        except (Lost, OSError) as e:  # A plain error of the system if the bytes stayed in the kernel.
            # It may be our system that failed, and not the server that left: that would wait for the rest.
            peer.stop_sending()
            with contextlib.suppress(Lost):
                while self._pending and self._peer is not None:
                    self.finish()
            if isinstance(e, Lost):
                raise
            raise peer.lost(e.strerror or str(e)) from e


class BodySink:
    """The body of a PUT as a sink."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @property
    def socket(self) -> Optional[socket.socket]:
        """The socket, if it takes the bytes as they are."""
        return self._peer.sink

    def write(self, view: memoryview) -> None:
        """Send a piece."""
        self._peer.send(view)

    def advance(self, count: int) -> None:
        """Nothing is counted here."""
