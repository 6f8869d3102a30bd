"""A socket whose kernel speaks TLS, as Linux does: it gives data, and tells of any other record that this is not data.

Nothing is encrypted, and the machine needs no module.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable

from fakes.waiting import DEADLINE

from ovirt_imageio.net.controls import SOL_TLS
from ovirt_imageio.net.plain_socket import PlainSocket

__all__ = ["FakeTLS", "KernelSocket"]

DATA = 23

# To poll for: it always has something, as the script never waits.
READY = os.open(os.devnull, os.O_RDONLY)


class KernelSocket:
    """Gives records, each with its type, then the end. `sent` has records, too.

    versions: what the kernel says that it speaks, sending and receiving; 0: nothing.
    """

    def __init__(self, records: Iterable[tuple[int, bytes]] = (), versions: tuple[int, int] = (0x304, 0x304)) -> None:
        self._records = list(records)
        self._versions = {1: versions[0], 2: versions[1]}
        self.sent: list[tuple[int, bytes]] = []
        self.options: list[tuple[int, int, object]] = []
        self.is_full = False

    def fileno(self) -> int:
        return READY

    def settimeout(self, seconds):
        pass

    def setblocking(self, flag):
        pass

    def setsockopt(self, level, name, value):
        self.options.append((level, name, value))

    def getsockopt(self, level, name, size):
        assert level == SOL_TLS
        if not self._versions[name]:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return struct.pack("@HH", self._versions[name], 52)

    def recv(self, size, flags=0):
        if not self._records:
            return b""
        kind, data = self._records[0]
        if kind != DATA:
            raise OSError(errno.EIO, "Input/output error")
        if not data:
            # A record without data: nothing is here.
            del self._records[0]
            raise BlockingIOError
        self._records[:1] = [(kind, data[size:])] if len(data) > size else []
        return data[:size]

    def recv_into(self, view, size=0, flags=0):
        data = self.recv(len(view), flags)
        view[: len(data)] = data
        return len(data)

    def recvmsg(self, size, space=0, flags=0):
        if not self._records:
            return b"", [], 0, None
        kind, data = self._records.pop(0)
        return data[:size], [(SOL_TLS, 2, bytes([kind]))], 0, None

    def recvmsg_into(self, views, space=0, flags=0):
        data, ancillary, *rest = self.recvmsg(len(views[0]), space, flags)
        views[0][: len(data)] = data
        return len(data), ancillary, *rest

    def send(self, data, flags=0):
        if self.is_full:
            raise BlockingIOError
        self.sent.append((DATA, bytes(data)))
        return len(data)

    def sendmsg(self, parts, ancillary=(), flags=0):
        if self.is_full:
            raise BlockingIOError
        kind = ancillary[0][2][0] if ancillary else DATA
        self.sent.append((kind, b"".join(parts)))
        return len(self.sent[-1][1])

    def close(self):
        pass


class FakeTLS:
    """A handshake that is over; the kernel took the keys, or what it left OpenSSL has `received`."""

    def __init__(self, sock, is_server=True, cipher="TLS_AES_256_GCM_SHA384", received=b""):
        self.below = PlainSocket(sock, DEADLINE)
        self.is_server = is_server
        self.cipher = cipher
        self.is_released = False
        self._received = received

    def pending(self):
        return len(self._received)

    def recv(self, size, is_eager=True):
        return self._received

    def recv_into(self, view):
        view[: len(self._received)] = self._received
        return len(self._received)

    def release(self):
        self.is_released = True
