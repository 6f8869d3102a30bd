"""Many small requests of one client: sent in batches, answered in batches.

    batches.read(piece, offset, length)     as many as like to be under way
    batches.write(other, offset, view)
    batches.send()                          all of them with one call
    batches.receive()                       [(piece, bytes), ...]: all that came with one call, in any order

A request costs a few microseconds, where `Client` needs fifty: replies are simple ones, whose length is known from
what was asked for, and bytes are taken from where they were received. In exchange an error ends everything.

Knows the protocol and streams; knows nothing of what requests are for.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.errors import ProtocolError, RequestFailed
from ovirt_imageio.nbd.handshake import Agreement, Export
from ovirt_imageio.nbd.stream import ServerStream
from ovirt_imageio.nbd.wire import Command, Mode
from ovirt_imageio.net.stream import Data

__all__ = ["AGREEMENT", "MAX_LENGTH", "Batches"]

# How the server must speak.
AGREEMENT = Agreement(Mode.SIMPLE)

# The longest request that moves bytes, and two of them: no less fits, and more leaves the cache of the processor.
MAX_LENGTH = 512 * 1024
BUFFER = 2 * MAX_LENGTH

HEADER = wire.SIMPLE_REPLY.size
EMPTY = memoryview(b"")

T = TypeVar("T")


class Batches(Generic[T]):
    """The requests of one connection, each with something of the caller that comes back with its reply.

    After an error the connection must be closed: what else is under way is not known.

    Threads: one.
    """

    def __init__(self, stream: ServerStream, export: Export) -> None:
        assert export.mode is Mode.SIMPLE
        self._stream = stream
        self._unsent: list[Data] = []
        # By cookie: what the caller gave, the command, and how many bytes its reply has.
        self._pending: dict[int, tuple[T, Command, int]] = {}
        self._cookie = 0
        self._buffer = memoryview(bytearray(BUFFER))
        # What was received and not understood yet.
        self._start = self._end = 0

    def __len__(self) -> int:
        """Return how many requests are under way."""
        return len(self._pending)

    def read(self, item: T, offset: int, length: int) -> None:
        """Ask for a range."""
        assert length <= MAX_LENGTH
        self._add(item, Command.READ, 0, offset, length, length)

    def write(self, item: T, offset: int, view: memoryview) -> None:
        """Write view, which must stay as it is until send() returns."""
        self._add(item, Command.WRITE, 0, offset, len(view), 0)
        self._unsent.append(view)

    def zero(self, item: T, offset: int, length: int, flags: int) -> None:
        """Zero a range."""
        self._add(item, Command.WRITE_ZEROES, flags, offset, length, 0)

    def _add(self, item: T, command: Command, flags: int, offset: int, length: int, payload: int) -> None:
        cookie = self._cookie = self._cookie + 1
        self._pending[cookie] = (item, command, payload)
        self._unsent.append(wire.encode_request(Mode.SIMPLE, flags, command, cookie, offset, length))

    def send(self) -> None:
        """Send the requests that were made since the last time. Raises errors.ConnectionDead."""
        parts, self._unsent = self._unsent, []
        if parts:
            self._stream.send_all(parts)

    def receive(self) -> list[tuple[T, memoryview]]:
        """Wait for replies; return what they answer, with the bytes of reads, which are there until the next call.

        Raises errors.RequestFailed, and errors.ConnectionDead.
        """
        assert not self._unsent
        found = self._parse()
        while not found:
            self._make_room()
            self._end += self._stream.receive_some(self._buffer[self._end :])
            found = self._parse()
        return found

    def _parse(self) -> list[tuple[T, memoryview]]:
        """Return the replies that are complete."""
        found = []
        buffer, start, end = self._buffer, self._start, self._end
        pending = self._pending
        unpack = wire.SIMPLE_REPLY.unpack_from
        while end - start >= HEADER:
            magic, code, cookie = unpack(buffer, start)
            known = pending.get(cookie)
            if magic != wire.SIMPLE_REPLY_MAGIC or known is None:
                raise ProtocolError("the NBD server sent what is not the reply to a request under way")
            item, command, length = known
            if code:
                raise RequestFailed(str(command), code)
            stop = start + HEADER + length
            if stop > end:
                break
            del pending[cookie]
            found.append((item, buffer[start + HEADER : stop] if length else EMPTY))
            start = stop
        self._start = start
        return found

    def _make_room(self) -> None:
        """Have room for the rest of the reply that has begun."""
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = 0
        elif BUFFER - start < HEADER + MAX_LENGTH:
            self._buffer[: end - start] = bytes(self._buffer[start:end])
            self._start, self._end = 0, end - start
