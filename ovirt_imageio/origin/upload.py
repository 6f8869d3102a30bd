"""A PUT whose body is sent piece by piece, and how much of it counts.

    write()  write()  write()  end()  reply()        the server took it, or says why not
    write()  Refused           reply()               it says so before it has everything
    write()  cut()                                   the body ended too early: it says how much it has

Knows connections; knows nothing of images.
"""

from __future__ import annotations

import contextlib
from typing import Optional

from ovirt_imageio.origin.connection import Data, Lost, Peer
from ovirt_imageio.origin.reply import Release, Reply
from ovirt_imageio.relay.ends import Progress, Source, fill

__all__ = ["STEP", "CountedBody", "Refused", "Upload", "Zeroes"]

# Bytes that pass through us: whole TLS records are gathered, and it still fits in the processor's cache.
STEP = 256 * 1024


class Refused(Exception):
    """The server answered, or left, before it had the whole body."""


class Upload:
    """A PUT whose body is sent piece by piece: a sink. Leaving the context without `reply` gives it up."""

    def __init__(self, peer: Peer, release: Release, *, is_chunked: bool = False) -> None:
        self._release = release
        self._peer: Optional[Peer] = peer
        self._is_chunked = is_chunked
        # What ends the chunk before, if there was one.
        self._chunk_end = b""

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._peer is not None:
            self._release(self._peer, False)

    def write(self, view: memoryview) -> None:
        """Send a piece of the body; raises Refused as soon as the server answers instead of listening."""
        if not len(view):
            return  # An empty chunk would be the last one.
        if self._is_chunked:
            self._send(b"%s%x\r\n" % (self._chunk_end, len(view)))
            self._chunk_end = b"\r\n"
        self._send(view)

    def end(self) -> None:
        """Tell the server that the body is complete; raises Refused as write() does."""
        if self._is_chunked:
            self._send(self._chunk_end + b"0\r\n\r\n")

    def reply(self) -> Reply:
        """Return the reply."""
        assert self._peer is not None
        peer, self._peer = self._peer, None
        with contextlib.ExitStack() as stack:
            stack.callback(self._release, peer, False)
            reply = Reply(peer, "PUT", self._release)
            stack.pop_all()
            return reply

    def cut(self) -> Reply:
        """End the body too early, and return what the server says when it has dealt with what it got."""
        assert self._peer is not None
        self._peer.end_requests()
        return self.reply()

    def _send(self, data: Data) -> None:
        assert self._peer is not None
        try:
            is_sent = self._peer.send_unless_heard(data)
        except Lost as e:
            # It may be our system that failed, and not the server that left: that would wait for the rest.
            self._peer.stop_sending()
            raise Refused() from e
        if not is_sent:
            raise Refused()


class CountedBody:
    """Counts a body while it is sent; leaving the context takes back what is not known to be `stored`."""

    def __init__(self, progress: Progress) -> None:
        self.sent = 0
        self.stored = 0
        self._progress = progress

    def __enter__(self) -> CountedBody:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.stored < self.sent:
            self._progress(self.stored - self.sent)

    def send(self, upload: Upload, source: Source, buffer: memoryview, length: int) -> None:
        """Send what is in the buffer, then what the source has, up to `length` bytes."""
        count = len(buffer)
        while count:
            upload.write(buffer[:count])
            self.sent += count
            self._progress(count)
            count = fill(source, buffer[: min(STEP, length - self.sent)])


class Zeroes:
    """A source of zeroes that never ends."""

    socket = None

    def readinto(self, view: memoryview) -> int:
        """Fill view."""
        view[:] = bytes(len(view))
        return len(view)

    def advance(self, count: int) -> None:
        """Never called: there is no socket."""
