"""Plain sockets as sink and source: what lets a backend leave the bytes in the kernel.

with PlainSink() as sink:
    backend.send_to(sink, 0, 1000, progress)
    assert sink.received() == data

with PlainSource(data) as source:
    backend.receive_from(source, 0, len(data), progress)
"""

from __future__ import annotations

import contextlib
import socket
import threading

from fakes.waiting import DEADLINE

from ovirt_imageio.net.timeouts import set_timeout


class PlainSink:
    """A relay.Sink; a thread takes what arrives at the other end."""

    def __init__(self, timeout: float = DEADLINE) -> None:
        self.socket, self._far = socket.socketpair()
        set_timeout(self.socket, timeout)
        self._far.settimeout(DEADLINE)
        self.advanced = 0
        self._data = bytearray()
        self._reader = threading.Thread(target=self._read, name="plain sink")

    def write(self, view: memoryview) -> None:
        self.socket.sendall(view)

    def advance(self, count: int) -> None:
        self.advanced += count

    def received(self) -> bytes:
        """Return all that arrived; nothing can be sent any more."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self._reader.join(DEADLINE)
        return bytes(self._data)

    def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while part := self._far.recv(2**20):
                self._data += part

    def __enter__(self) -> PlainSink:
        self._reader.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.received()
        self.socket.close()
        self._far.close()


class PlainSource:
    """A relay.Source of data that a thread sends, in pieces of `step` bytes, and then ends."""

    def __init__(self, data: bytes, step: int = 2**20, timeout: float = DEADLINE) -> None:
        self.socket, self._far = socket.socketpair()
        set_timeout(self.socket, timeout)
        self._far.settimeout(DEADLINE)
        self.advanced = 0
        self._data = memoryview(data)
        self._step = step
        self._writer = threading.Thread(target=self._write, name="plain source")

    def readinto(self, view: memoryview) -> int:
        return self.socket.recv_into(view)

    def advance(self, count: int) -> None:
        self.advanced += count

    def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(self._data), self._step):
                self._far.sendall(self._data[start : start + self._step])
            self._far.shutdown(socket.SHUT_WR)

    def __enter__(self) -> PlainSource:
        self._writer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()
        self._writer.join(DEADLINE)
        self._far.close()
