"""The body of a response: where a download goes.

The head of the response leaves with the first bytes, in the same write.

Knows HTTP framing; knows nothing of its writers.
"""

from __future__ import annotations

import socket as sockets
from typing import Optional

from ovirt_imageio.httpd.stream import Stream

__all__ = ["BodySink", "ChunkedSink", "NoSink"]


class BodySink:
    """A body of `length` bytes, or of any number up to the end of the connection; a relay.Sink.

    Its methods raise ClientGone and errors.OperationCanceled.

    Threads: the connection's.
    """

    __slots__ = ("_head", "_left", "_stream")

    def __init__(self, stream: Stream, head: bytes, length: Optional[int]) -> None:
        self._stream = stream
        self._head = head
        self._left = length

    @property
    def is_started(self) -> bool:
        """True if the head has left: the client knows the status."""
        return not self._head

    @property
    def is_complete(self) -> bool:
        """True if all that the head promised was written."""
        return not self._left

    @property
    def socket(self) -> Optional[sockets.socket]:
        """The socket that takes our next bytes as they are; None over TLS, but where the kernel encrypts.

        It blocks, for as long as timeouts.get_timeout() says. No more than what is left of the length may be put there,
        and it must be told to advance().
        """
        sock = self._stream.sink
        if sock is not None and self._head and self._left:
            self._stream.send_ahead(self._head)
            self._head = b""
        return sock

    def advance(self, count: int) -> None:
        """Tell that `count` bytes were put into the socket."""
        self._take(count)
        self._stream.note_moved(count)

    def _take(self, count: int) -> None:
        """Count what is written against the length that was promised."""
        if self._left is not None:
            assert count <= self._left
            self._left -= count

    def write(self, view: memoryview) -> None:
        """Send all of view."""
        self._take(len(view))
        if self._head:
            head, self._head = self._head, b""
            self._stream.send_parts([head, view])
        else:
            self._stream.send(view)

    def finish(self) -> None:
        """Send what was not sent yet: a body without bytes has only a head."""
        if self._head:
            head, self._head = self._head, b""
            self._stream.send(head)


class ChunkedSink(BodySink):
    """A body whose length turns out at its end. Each write is a chunk: write large views."""

    __slots__ = ("_is_finished",)

    def __init__(self, stream: Stream, head: bytes) -> None:
        super().__init__(stream, head, None)
        self._is_finished = False

    @property
    def is_complete(self) -> bool:
        """True after finish(): what ends without the last chunk is known to be cut off."""
        return self._is_finished

    @property
    def socket(self) -> Optional[sockets.socket]:
        """None: the bytes must be framed."""
        return None

    def write(self, view: memoryview) -> None:
        """Send all of view."""
        if not len(view):
            # A chunk without bytes would be the last one.
            return
        head, self._head = self._head, b""
        self._stream.send_parts([b"%s%x\r\n" % (head, len(view)), view, b"\r\n"])

    def finish(self) -> None:
        """Send the last chunk."""
        head, self._head = self._head, b""
        self._stream.send(head + b"0\r\n\r\n")
        self._is_finished = True


class NoSink(BodySink):
    """The body of an answer that has none: to HEAD."""

    __slots__ = ()

    def __init__(self, stream: Stream, head: bytes) -> None:
        super().__init__(stream, head, 0)

    @property
    def socket(self) -> Optional[sockets.socket]:
        """None: nothing must get there."""
        return None

    def advance(self, count: int) -> None:
        """Take no notice."""

    def write(self, view: memoryview) -> None:
        """Drop it."""
