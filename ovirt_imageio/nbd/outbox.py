"""What goes to a client of our NBD server: how a reply looks in the mode that was agreed; small ones leave together.

Knows the channel to the client; knows nothing of disks.
"""

from __future__ import annotations

import socket as sockets
from collections.abc import Sequence
from typing import Optional

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.inbox import SMALL, Channel
from ovirt_imageio.nbd.requests import Request
from ovirt_imageio.nbd.wire import Chunk, Mode
from ovirt_imageio.net.stream import Data

__all__ = ["Answer", "Outbox"]

# Replies are sent when they are so long together, or when no request waits.
OUTBOX = 256 * 1024

# What goes to a client of an error: "MUST NOT exceed 4096 bytes".
MAX_MESSAGE = 1024


class Outbox:
    """What goes to the client: how a reply looks in the mode that was agreed, gathered in the outbox."""

    def __init__(self, channel: Channel, mode: Mode) -> None:
        self._channel = channel
        self._mode = mode
        self._memory = memoryview(bytearray(OUTBOX + 2 * SMALL))
        self._end = 0
        # Lists of extents, which follow what is in the outbox.
        self._lists: list[bytes] = []

    @property
    def is_full(self) -> bool:
        """True if it must be sent before more comes."""
        return self._end >= OUTBOX or bool(self._lists)

    def send(self, *more: Data) -> None:
        """Send what is gathered, and more."""
        parts: list[Data] = [self._memory[: self._end]] if self._end else []
        parts += self._lists
        parts += more
        self._end = 0
        self._lists = []
        if parts:
            self._channel.send_parts(parts)

    def done(self, request: Request) -> None:
        """The request is done, and nothing is to be told."""
        if self._mode is Mode.SIMPLE:
            self._add(wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, 0, request.cookie))
        else:
            self._add(self.chunk(request, wire.CHUNK_DONE, Chunk.NONE, 0))

    def fail(self, request: Request, code: int, message: str = "") -> None:
        """The request failed."""
        if self._mode is Mode.SIMPLE:
            self._add(wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, code, request.cookie))
            return
        text = message.encode("utf-8", "replace")[:MAX_MESSAGE]
        head = self.chunk(request, wire.CHUNK_DONE, Chunk.ERROR, wire.ERROR.size + len(text))
        self._add(head + wire.ERROR.pack(code, len(text)) + text)

    def room_for_data(self, request: Request) -> memoryview:
        """Return where the data of a small read goes, before `data`."""
        start = self._end + len(self.data_head(request, request.offset, request.length, True))
        return self._memory[start : start + request.length]

    def data(self, request: Request) -> None:
        """The data of a small read stands in its room: the reply is complete."""
        self._add(self.data_head(request, request.offset, request.length, True))
        self._end += request.length

    def data_head(self, request: Request, offset: int, length: int, is_last: bool) -> bytes:
        """Return what comes before data in a reply."""
        if self._mode is Mode.SIMPLE:
            return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, 0, request.cookie)
        flags = wire.CHUNK_DONE if is_last else 0
        head = self.chunk(request, flags, Chunk.OFFSET_DATA, wire.DATA_OFFSET.size + length)
        return head + wire.DATA_OFFSET.pack(offset)

    def status(self, request: Request, context: int, extents: Sequence[tuple[int, int]], is_last: bool) -> None:
        """Tell the extents of one context, as length and flags."""
        flags = wire.CHUNK_DONE if is_last else 0
        if self._mode is Mode.EXTENDED:
            body = wire.STATUS_EXT.pack(context, len(extents))
            body += b"".join(wire.STATUS_EXT_EXTENT.pack(*extent) for extent in extents)
            self._lists += (self.chunk(request, flags, Chunk.BLOCK_STATUS_EXT, len(body)), body)
        else:
            body = wire.CONTEXT_ID.pack(context)
            body += b"".join(wire.STATUS_EXTENT.pack(*extent) for extent in extents)
            self._lists += (self.chunk(request, flags, Chunk.BLOCK_STATUS, len(body)), body)

    def chunk(self, request: Request, flags: int, kind: Chunk, length: int) -> bytes:
        """Return the header of a chunk."""
        if self._mode is Mode.EXTENDED:
            return wire.EXTENDED_REPLY.pack(
                wire.EXTENDED_REPLY_MAGIC, flags, kind, request.cookie, request.offset, length
            )
        return wire.STRUCTURED_REPLY.pack(wire.STRUCTURED_REPLY_MAGIC, flags, kind, request.cookie, length)

    def _add(self, data: bytes) -> None:
        self._memory[self._end : self._end + len(data)] = data
        self._end += len(data)


class Answer:
    """The data of a long read as a sink: each piece is a chunk, so that one that cannot be read can be told apart."""

    socket: Optional[sockets.socket] = None

    def __init__(self, replies: Outbox, request: Request, is_simple: bool) -> None:
        self._replies = replies
        self._request = request
        self._is_simple = is_simple
        self.sent = 0

    def write(self, view: memoryview) -> None:
        """Send a piece."""
        request = self._request
        if self._is_simple and self.sent:
            self._replies.send(view)
        else:
            is_last = self.sent + len(view) == request.length
            head = self._replies.data_head(request, request.offset + self.sent, len(view), is_last)
            self._replies.send(head, view)
        self.sent += len(view)

    def advance(self, count: int) -> None:
        """Never called: there is no socket."""
