"""The answer to an HTTP request: a head that is parsed, and a body that streams into the caller's views.

Knows HTTP/1.1 framing; knows nothing of disks, and nothing of how the connection came to be.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.net.stream import Stream
from ovirt_imageio.origin.connection import BUFFER_SIZE, Peer
from ovirt_imageio.relay.ends import fill

__all__ = ["Release", "Reply"]

# Called with the connection when a reply is over, and whether it can serve another request.
Release = Callable[[Peer, bool], None]

# A body that is not needed is read up to here to keep the connection; beyond, a new one is cheaper.
DRAIN_LIMIT = 64 * 1024

# Lines after the last chunk; servers do not send any.
TRAILERS_LIMIT = 100

STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
LENGTH = re.compile(r"[0-9]{1,18}")


class Reply:
    """An answer whose head came. A context manager: leaving it releases the connection.

    `length` is how much of the body is still to come, None if only its end will tell.
    """

    def __init__(self, peer: Peer, method: str, release: Release) -> None:
        self._peer = peer
        self._release = release
        peer.hurry()
        self.status, version, self.headers = read_head(peer)
        peer.relax()
        options = self.headers.get("connection", "").lower()
        self._is_persistent = "close" not in options and (version == 1 or "keep-alive" in options)
        self._is_chunked = "transfer-encoding" in self.headers
        # What is left of the current chunk.
        self._chunk = 0
        self.length = self._body_length(method)
        self._is_done = self.length == 0

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        if kind is None and self._is_persistent and not self._is_done:
            with contextlib.suppress(errors.Error):
                self.read(DRAIN_LIMIT)
        self._release(self._peer, kind is None and self._is_persistent and self._is_done)

    def lend(self) -> Stream:
        """Return the bytes behind "101 Switching Protocols"; the connection is closed with the reply."""
        assert self.status == 101
        self._is_persistent = False
        return self._peer.stream

    @property
    def socket(self) -> Optional[socket.socket]:
        """The plain socket whose next `length` bytes are the body, if there is one."""
        return None if self.length is None else self._peer.socket

    def advance(self, count: int) -> None:
        """Tell that `count` bytes of the body were taken from the socket."""
        assert self.length is not None
        self.length -= count
        self._is_done = self.length == 0

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte of the body into view, 0 at its end; a body that ends too early is an error."""
        if self._is_done or not view:
            return 0
        if self._is_chunked:
            return self._read_chunk(view)
        if self.length is None:
            count = self._peer.readinto(view)
            self._is_done = count == 0
            return count
        count = self._peer.readinto(view[: self.length])
        if not count:
            raise self._peer.lost(f"it was closed {self.length} bytes before the end of the data")
        self.advance(count)
        return count

    def fill(self, view: memoryview) -> int:
        """Read until view is full or the body ends; return how much was read."""
        if self.length is None:
            return fill(self, view)
        view = view[: self.length]
        count = self._peer.fill(view) if view else 0
        self.advance(count)
        if count < len(view):
            raise self._peer.lost(f"it was closed {self.length} bytes before the end of the data")
        return count

    def read(self, limit: int) -> bytes:
        """Return the next `limit` bytes of the body, or what there is: all of it in time, as it is not much."""
        body = bytearray(limit)
        with self._peer.in_time():
            count = self.fill(memoryview(body))
        return bytes(body[:count])

    def chunks(self) -> Iterator[bytes]:
        """Yield the body piece by piece, as it comes."""
        buffer = memoryview(bytearray(BUFFER_SIZE))
        while True:
            count = self.readinto(buffer)
            if not count:
                return
            yield buffer[:count].tobytes()

    def _body_length(self, method: str) -> Optional[int]:
        if method == "HEAD":
            # Old daemons refuse HEAD with a body, which we would take for the next answer.
            self._is_persistent = self._is_persistent and self.status < 400
            return 0
        if self.status in (101, 204, 304):
            return 0
        if self._is_chunked:
            return None
        length = self.headers.get("content-length")
        if length is None:
            self._is_persistent = False
            return None
        if not LENGTH.fullmatch(length):
            raise self._peer.protocol_error(f"Content-Length {errors.quoted(length)}")
        return int(length)

    def _read_chunk(self, view: memoryview) -> int:
        if not self._chunk:
            line = self._peer.read_until(b"\r\n")
            match = CHUNK_SIZE.fullmatch(line)
            if not match:
                raise self._peer.protocol_error("a chunk without size")
            self._chunk = int(match[1], 16)
            if not self._chunk:
                self._drop_trailers()
                self._is_done = True
                return 0
        count = self._peer.readinto(view[: self._chunk])
        if not count:
            raise self._peer.lost("it was closed within the data")
        self._chunk -= count
        if not self._chunk and self._peer.read_until(b"\r\n"):
            raise self._peer.protocol_error("a chunk that is longer than its size")
        return count

    def _drop_trailers(self) -> None:
        for _ in range(TRAILERS_LIMIT):
            if not self._peer.read_until(b"\r\n"):
                return
        raise self._peer.protocol_error(f"more than {TRAILERS_LIMIT} trailers")


def read_head(peer: Peer) -> tuple[int, int, dict[str, str]]:
    """Return status, minor version and headers of the next final answer."""
    while True:
        lines = peer.read_until(b"\r\n\r\n").split(b"\r\n")
        match = STATUS_LINE.fullmatch(lines[0])
        if not match:
            raise peer.protocol_error(f"it began with {errors.quoted(lines[0])}")
        # 101 is the last answer in HTTP.
        if int(match[2]) >= 200 or int(match[2]) == 101:
            return int(match[2]), int(match[1]), parse_headers(peer, lines[1:])


def parse_headers(peer: Peer, lines: list[bytes]) -> dict[str, str]:
    """Return headers, their names in lower case."""
    headers: dict[str, str] = {}
    for line in lines:
        # Old daemons put a file name there in UTF-8.
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        name, value = name.lower(), value.strip(" \t")
        if not colon or not name or name.split() != [name]:
            raise peer.protocol_error("a malformed header")
        if headers.get(name, value) != value and name in ("content-length", "transfer-encoding"):
            raise peer.protocol_error(f"two values of {name}")
        headers[name] = value
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise peer.protocol_error("an unknown Transfer-Encoding")
    return headers
