"""What comes from a client of our NBD server: requests in a buffer of fixed size, and payloads as sources.

Knows the channel to the client, and how requests look; knows nothing of disks and replies.
"""

from __future__ import annotations

import socket as sockets
from collections.abc import Sequence
from typing import Optional, Protocol

from ovirt_imageio.nbd import requests, wire
from ovirt_imageio.nbd.errors import ClientFault
from ovirt_imageio.nbd.requests import Request
from ovirt_imageio.nbd.wire import Mode
from ovirt_imageio.net.stream import Data, Stream

__all__ = ["SMALL", "Channel", "Inbox", "Payload"]

# What is received at once: many small requests, or the beginning of a long one.
INBOX = 256 * 1024

# Up to here a read goes through the outbox, and a payload through the inbox; longer ones stream.
SMALL = 64 * 1024


class Channel(Protocol):
    """The connection to the client, after whatever came before NBD."""

    @property
    def stream(self) -> Stream:
        """The bytes themselves."""

    def wait(self, view: memoryview) -> int:
        """Read at least one byte of the next request, which may be long in coming; return how many, 0 at the end."""

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte of what the client has begun; return how many, 0 at the end."""

    def send_parts(self, parts: Sequence[Data]) -> None:
        """Send all parts."""


class Inbox:
    """What came from the client and was not used yet."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._memory = memoryview(bytearray(INBOX))
        self._start = 0
        self._end = 0

    def find(self, mode: Mode) -> Optional[Request]:
        """Take the header of the next request, if it is here."""
        request = requests.find(self._memory, self._start, self._end, mode)
        if request is not None:
            self._start += wire.EXTENDED_REQUEST.size if mode is Mode.EXTENDED else wire.REQUEST.size
        return request

    def wait(self) -> bool:
        """Receive more of the next request; return False if the client left between two requests."""
        is_idle = self._start == self._end
        self._make_room()
        receive = self._channel.wait if is_idle else self._channel.readinto
        count = receive(self._memory[self._end :])
        if not count and not is_idle:
            raise ClientFault("the NBD client left amid a request")
        self._end += count
        return count > 0

    def holds(self, size: int) -> bool:
        """Return True if this number of bytes is here."""
        return size <= self._end - self._start

    def gather(self, size: int) -> memoryview:
        """Take the next bytes, at most SMALL, receiving what is not here; good until the next call."""
        self._make_room()
        while self._end - self._start < size:
            count = self._channel.readinto(self._memory[self._end :])
            if not count:
                raise ClientFault("the NBD client left amid a request")
            self._end += count
        self._start += size
        return self._memory[self._start - size : self._start]

    def take(self, size: int) -> bytes:
        """Take the next bytes."""
        return bytes(self.gather(size))

    def readinto(self, view: memoryview) -> int:
        """Take some of the next bytes, at least one, 0 at the end."""
        count = min(len(view), self._end - self._start)
        if not count:
            return self._channel.readinto(view)
        view[:count] = self._memory[self._start : self._start + count]
        self._start += count
        return count

    def take_all(self) -> bytes:
        """Take what is here."""
        return self.take(self._end - self._start)

    def skip(self, size: int) -> None:
        """Throw the next bytes away."""
        while size:
            size -= len(self.gather(min(size, SMALL)))

    def _make_room(self) -> None:
        """Move what is here to the front, where the rest could not hold a small request."""
        if self._start == self._end:
            self._start = self._end = 0
        elif INBOX - self._start < 2 * SMALL:
            left = self._end - self._start
            self._memory[:left] = bytes(self._memory[self._start : self._end])
            self._start, self._end = 0, left


class Payload:
    """The payload of one request as a source."""

    socket: Optional[sockets.socket] = None

    def __init__(self, inbox: Inbox, size: int) -> None:
        self._inbox = inbox
        self.left = size

    def readinto(self, view: memoryview) -> int:
        """Read some of it, 0 at its end."""
        if not self.left:
            return 0
        count = self._inbox.readinto(view[: self.left])
        if not count:
            raise ClientFault("the NBD client left amid a request")
        self.left -= count
        return count

    def advance(self, count: int) -> None:
        """Never called: there is no socket."""
