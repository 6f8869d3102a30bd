"""The body of a request: where an upload comes from.

Knows HTTP framing; knows nothing of its readers.
"""

from __future__ import annotations

import socket as sockets
from typing import Optional

from ovirt_imageio.httpd import framing
from ovirt_imageio.httpd.head import Head, parse_fields
from ovirt_imageio.httpd.refusal import Refusal
from ovirt_imageio.httpd.stream import Stream, Timeout

__all__ = ["Body", "ChunkedBody", "open_body"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# One step of read(): a body that lies about its length does not make us allocate.
PIECE = 64 * 1024

# Lines after the last chunk; clients do not send any.
TRAILERS_LIMIT = 100


class Body:
    """A body of `length` bytes, a relay.Source.

    The first look at it tells a client that waits for it to go on: until then a refusal spares it the upload.

    Threads: the connection's.
    """

    __slots__ = ("_expects_continue", "_left", "_stream", "length")

    def __init__(self, stream: Stream, length: Optional[int], expects_continue: bool = False) -> None:
        self._stream = stream
        self._expects_continue = expects_continue
        # How many bytes there are; None if they come in chunks.
        self.length = length
        self._left = length or 0

    @property
    def is_consumed(self) -> bool:
        """True if all of it was read: the next byte on the connection begins the next request."""
        return not self._left

    @property
    def socket(self) -> Optional[sockets.socket]:
        """The plain socket whose next bytes are ours, or None: over TLS, and while some were received ahead.

        It blocks, for as long as timeouts.get_timeout() says. No more than what is left of `length` may be taken, and
        it must be told to advance().
        """
        if self._stream.ahead or not self._left or self._stream.is_tls:
            return None
        self._go_on()
        return self._stream.socket

    def advance(self, count: int) -> None:
        """Tell that `count` bytes were taken from the socket."""
        assert count <= self._left
        self._left -= count
        self._stream.note_moved(count)

    def readinto(self, view: memoryview) -> int:
        """Read up to len(view) bytes, at least one; return how many, 0 at the end of the body or of the client.

        Raises Refusal(408) if nothing comes in time, ClientGone, errors.OperationCanceled.
        """
        if not self._left:
            return 0
        count = self._receive(view[: self._left])
        self._left -= count
        return count

    def read(self, limit: int) -> bytes:
        """Return the whole body. Raises Refusal: 413 if it is longer than limit, 400 if it ends early."""
        if self.length is not None and self.length > limit:
            raise too_long(limit)
        data = bytearray()
        piece = memoryview(bytearray(min(PIECE, limit + 1 if self.length is None else self.length)))
        while not self.is_consumed:
            count = self.readinto(piece)
            if not count:
                break
            data += piece[:count]
            if len(data) > limit:
                raise too_long(limit)
        if not self.is_consumed:
            raise Refusal(400, f"Expected a body of {self.length} bytes, got only {len(data)}", close=True)
        return bytes(data)

    def _go_on(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            if not self._stream.ahead:
                self._stream.send(CONTINUE)

    def _receive(self, view: memoryview) -> int:
        self._go_on()
        try:
            return self._stream.readinto(view)
        except Timeout:
            raise stalled(self._stream) from None


class ChunkedBody(Body):
    """A body in chunks: its length is known when it has ended."""

    __slots__ = ("_is_ended", "_is_first")

    def __init__(self, stream: Stream, expects_continue: bool = False) -> None:
        super().__init__(stream, None, expects_continue)
        # _left is what is left of the current chunk.
        self._is_first = True
        self._is_ended = False

    @property
    def is_consumed(self) -> bool:
        """True if the last chunk was read."""
        return self._is_ended

    @property
    def socket(self) -> Optional[sockets.socket]:
        """None: the bytes must be looked at."""
        return None

    def readinto(self, view: memoryview) -> int:
        """Read up to len(view) bytes, at least one; return how many, 0 after the last chunk.

        Raises Refusal if the body is malformed, ends early or stalls, ClientGone, errors.OperationCanceled.
        """
        if not len(view):
            return 0
        if not self._left and not self._next_chunk():
            return 0
        count = self._receive(view[: self._left])
        if not count:
            raise ended_early()
        self._left -= count
        return count

    def _next_chunk(self) -> bool:
        """Step to the next chunk; return False after the last one."""
        if self._is_ended:
            return False
        if not self._is_first and self._line():
            raise Refusal(400, "A chunk of the request body is longer than its size", close=True)
        self._is_first = False
        self._left = framing.parse_chunk_size(self._line())
        if self._left:
            return True
        for _ in range(TRAILERS_LIMIT):
            line = self._line()
            if not line:
                self._is_ended = True
                return False
            # They are not used, but what is not a header field could be something else for another reader.
            parse_fields([line.decode("latin-1")])
        raise Refusal(400, "The request body has too many trailer lines", close=True)

    def _line(self) -> bytes:
        self._go_on()
        try:
            line = self._stream.read_until(b"\r\n", framing.CHUNK_LINE_LIMIT)
        except Timeout:
            raise stalled(self._stream) from None
        if line is None:
            raise ended_early()
        if len(line) > framing.CHUNK_LINE_LIMIT:
            raise Refusal(400, "A line between the chunks of the request body is too long", close=True)
        return line


def open_body(head: Head, stream: Stream) -> Body:
    """Return the body that the head announces. Raises Refusal."""
    length = framing.body_length(head)
    if length is None:
        return ChunkedBody(stream, framing.expects_continue(head))
    return Body(stream, length, bool(length) and framing.expects_continue(head))


def stalled(stream: Stream) -> Refusal:
    """Return the refusal of a client that promised more, and sends nothing."""
    return Refusal(408, f"No data of the request body came for {stream.timeout:g} seconds", close=True)


def ended_early() -> Refusal:
    """Return the refusal of chunks that end without the last one."""
    return Refusal(400, "The request body ended before its last chunk", close=True)


def too_long(limit: int) -> Refusal:
    """Return the refusal of a body that is longer than we are willing to hold."""
    return Refusal(413, f"The request body is longer than {limit} bytes", close=True)
