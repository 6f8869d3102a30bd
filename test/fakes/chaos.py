"""A TCP proxy that cuts connections: after so many bytes, in a given order, hard or softly.

with ChaosProxy(("localhost", port), cuts=[100_000, 5_000_000]) as proxy:
    ...                             # the first connection lives for 100,000 bytes, the second for 5,000,000

Connections after the last cut live as long as they like. One thread serves them all.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterable

__all__ = ["ChaosProxy"]

STEP = 64 * 1024


class Link:
    """One connection and its counterpart; `left` is how many bytes may still pass."""

    def __init__(self, client: socket.socket, server: socket.socket, left: float) -> None:
        self.ends = (client, server)
        self.left = left

    def other(self, end: socket.socket) -> socket.socket:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def close(self, hard: bool) -> None:
        for end in self.ends:
            if hard:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class ChaosProxy:
    """Forwards to `target`. `hard` cuts send a reset, others just end. `seen` is all that passed, if `keep`.

    Threads: any.
    """

    def __init__(
        self, target: tuple[str, int], cuts: Iterable[float] = (), hard: bool = True, keep: bool = False
    ) -> None:
        self._target = target
        self._cuts = iter(cuts)
        self._hard = hard
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)
        self._links: set[Link] = set()
        self.port: int = self._listener.getsockname()[1]
        self.cut = 0
        self.accepted = 0
        self._keep = keep
        self.seen = bytearray()

    def __enter__(self) -> ChaosProxy:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waker.send(b"x")
        self._thread.join()
        for link in self._links:
            link.close(hard=False)
        for sock in (self._listener, self._wake, self._waker):
            sock.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._links:
                    self._forward(key.data, key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self.accepted += 1
        link = Link(client, server, next(self._cuts, float("inf")))
        self._links.add(link)
        for end in link.ends:
            self._selector.register(end, selectors.EVENT_READ, link)

    def _forward(self, link: Link, end: socket.socket) -> None:
        try:
            data = end.recv(int(min(STEP, link.left)))
            if self._keep:
                self.seen += data
            link.other(end).sendall(data)
        except OSError:
            data = b""
        link.left -= len(data)
        if not data or link.left <= 0:
            self.cut += bool(data)
            self._drop(link, self._hard and bool(data))

    def _drop(self, link: Link, hard: bool) -> None:
        self._links.discard(link)
        for end in link.ends:
            with contextlib.suppress(KeyError):
                self._selector.unregister(end)
        link.close(hard)
