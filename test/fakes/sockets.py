"""A socket that follows a script: which bytes come in which pieces, and what goes wrong when."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import Union

__all__ = ["ScriptedSocket", "reset", "split_at", "timeout"]


class ScriptedSocket:
    """Receives the pieces one by one, then the end; a piece that is an exception is raised.

    `sent` has what was sent, `writes` in which system calls; `capacity` is the most that one call takes.
    """

    def __init__(self, pieces: Iterable[Union[bytes, Exception]] = (), capacity: int = 1 << 30) -> None:
        self._pieces = list(pieces)
        self._capacity = capacity
        self.writes: list[bytes] = []
        self.failure = None

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def fileno(self):
        """Like a socket that is closed: the system knows nothing of it."""
        return -1

    def settimeout(self, seconds):
        pass

    def setsockopt(self, level, name, value):
        pass

    def recv(self, size, flags=0):
        if not self._pieces:
            return b""
        if flags & socket.MSG_DONTWAIT and isinstance(self._pieces[0], Exception):
            # What happens while we wait did not happen yet.
            raise BlockingIOError
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def recv_into(self, view, size=0, flags=0):
        data = self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def send(self, data, flags=0):
        if self.failure is not None:
            raise self.failure
        taken = bytes(data[: self._capacity])
        self.writes.append(taken)
        return len(taken)

    def sendmsg(self, parts):
        return self.send(b"".join(parts))

    def close(self):
        pass


def split_at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return the pieces of data between the cuts."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:]) if end > start]


def reset() -> OSError:
    """Return the error of a peer that is gone."""
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


# What a socket raises whose time the kernel keeps.
timeout = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
