"""Clients that change a disk at random, and note what they are told: requests of HTTP, and NBD through an upgrade."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
from collections.abc import Iterator
from typing import Any

from crash.ledger import Ledger, Write, stamped
from fakes.nbdclient import handshake, receive, request
from fakes.volatile import SECTOR
from fakes.waiting import DEADLINE

from ovirt_imageio.nbd.wire import Command, CommandFlag

__all__ = ["HttpClient", "NbdClient"]

# How many sectors are changed at once.
MOST = 5

# What a client may see when its server is cut from its disk.
CUT = (OSError, EOFError, http.client.HTTPException)


class HttpClient:
    """A client with sectors of its own, from `first` on; `failures` counts the answers that were errors.

    Threads: one.
    """

    def __init__(self, path: str, ticket: str, first: int, count: int, ledger: Ledger, dice: random.Random) -> None:
        self._path = path
        self._ticket = ticket
        self._sectors = (first, count)
        self._ledger = ledger
        self._dice = dice
        # What was acknowledged, and is not safe.
        self._pending: list[Write] = []
        self._connection = self._connect()
        self.failures = 0

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def run(self, steps: int) -> None:
        """Do so many things."""
        for _ in range(steps):
            do = self._dice.choice((self.put, self.put, self.put, self.zero, self.zero, self.flush, self.get))
            do()

    def put(self, flush: bool | None = None) -> None:
        """Write some sectors."""
        flush = self._dice.random() < 0.4 if flush is None else flush
        first, count = self._range()
        data = stamped(count)
        start = first * SECTOR
        headers = {"content-range": f"bytes {start}-{start + len(data) - 1}/*"}
        body: Any = data
        if self._dice.random() < 0.3:
            body = iter([data[: len(data) // 2 + 1], data[len(data) // 2 + 1 :]])
        path = self._path_of("" if flush else "?flush=n")
        self._change(self._ledger.begin(first, data), flush, "PUT", path, body, headers)

    def zero(self) -> None:
        """Zero some sectors."""
        flush = self._dice.random() < 0.4
        first, count = self._range()
        message = {"op": "zero", "offset": first * SECTOR, "size": count * SECTOR, "flush": flush}
        write = self._ledger.begin(first, bytes(count * SECTOR))
        self._change(write, flush, "PATCH", self._path_of(), json.dumps(message), {})

    def flush(self) -> bool:
        """Flush; return whether that was acknowledged."""
        return self._change(None, True, "PATCH", self._path_of(), json.dumps({"op": "flush"}), {})

    def get(self) -> None:
        """Read something."""
        self._ask("GET", self._path_of(), None, {"range": "bytes=0-1000"})

    def _range(self) -> tuple[int, int]:
        first, count = self._sectors
        start = self._dice.randrange(count)
        return first + start, self._dice.randint(1, min(MOST, count - start))

    def _path_of(self, query: str = "") -> str:
        return f"/images/{self._ticket}{query}"

    def _change(self, write: Write | None, flush: bool, *ask: Any) -> bool:
        is_good = self._ask(*ask)
        if is_good:
            self._pending += [write] if write else []
            if flush:
                self._ledger.flushed(self._pending)
                self._pending.clear()
        elif flush:
            # The client is told; what it wrote before must be written again.
            self._pending.clear()
        return is_good

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> bool:
        try:
            self._connection.request(method, path, body, headers, encode_chunked=not isinstance(body, (str, bytes)))
            response = self._connection.getresponse()
            response.read()
            if response.status < 400:
                return True
        except CUT:
            self._connection.close()
            self._connection = self._connect()
        self.failures += 1
        return False

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
        connection.sock = connect(self._path)
        return connection


class NbdClient:
    """A client that speaks NBD over a connection that was HTTP.

    Threads: one.
    """

    def __init__(self, path: str, ticket: str, first: int, count: int, ledger: Ledger, dice: random.Random) -> None:
        self._sectors = (first, count)
        self._ledger = ledger
        self._dice = dice
        self._cookies = iter(range(1, 2**32))
        self.failures = 0
        self._scope = contextlib.ExitStack()
        self._sock = self._scope.enter_context(attached(path, ticket))

    def close(self) -> None:
        """Leave."""
        self._sock.sendall(request(Command.DISCONNECT, 0, 0, 0))
        self._scope.close()

    def run(self, steps: int) -> None:
        """Do so many things, several at once: a flush covers what was answered before it was asked for."""
        answered: list[Write] = []
        while steps > 0:
            under_way: dict[int, tuple[Write | None, list[Write]]] = {}
            taken: set[int] = set()
            for _ in range(self._dice.randint(1, 6)):
                steps -= 1
                cookie = next(self._cookies)
                if self._dice.random() < 0.25:
                    under_way[cookie] = None, list(answered)
                    self._sock.sendall(request(Command.FLUSH, cookie, 0, 0))
                    continue
                write = self._begin(cookie, taken)
                if write is not None:
                    under_way[cookie] = write
            self._finish(under_way, answered)

    def _begin(self, cookie: int, taken: set[int]) -> tuple[Write, list[Write]] | None:
        """Send a change of sectors that no other request changes now; return it, and what it makes safe."""
        first, total = self._sectors
        start = self._dice.randrange(total)
        count = self._dice.randint(1, min(MOST, total - start))
        wanted = set(range(first + start, first + start + count))
        if wanted & taken:
            return None
        taken |= wanted
        fua = CommandFlag.FUA if self._dice.random() < 0.4 else CommandFlag.NONE
        is_zero = self._dice.random() < 0.4
        data = bytes(count * SECTOR) if is_zero else stamped(count)
        write = self._ledger.begin(first + start, data)
        kind = Command.WRITE_ZEROES if is_zero else Command.WRITE
        offset = (first + start) * SECTOR
        self._sock.sendall(request(kind, cookie, offset, len(data), b"" if is_zero else data, fua))
        return write, [write] if fua else []

    def _finish(self, under_way: dict[int, tuple[Write | None, list[Write]]], answered: list[Write]) -> None:
        while under_way:
            cookie = reply(self._sock)
            write, safe = under_way.pop(cookie)
            if write is not None:
                answered.append(write)
            if safe:
                self._ledger.flushed(safe)


@contextlib.contextmanager
def attached(path: str, ticket: str) -> Iterator[socket.socket]:
    """Attach the disk of a ticket."""
    with connect(path) as sock:
        head = f"GET /images/{ticket} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: nbd\r\n\r\n"
        sock.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += receive(sock, 1)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        handshake(sock)
        yield sock


def reply(sock: socket.socket) -> int:
    """Return the cookie of a good reply without data, of either kind."""
    magic = receive(sock, 4)
    if magic == b"\x67\x44\x66\x98":
        rest = receive(sock, 12)
        assert rest[:4] == bytes(4), rest
        return int.from_bytes(rest[4:], "big")
    assert magic == b"\x66\x8e\x33\xef", magic
    rest = receive(sock, 16)
    assert rest[:4] == b"\x00\x01\x00\x00" and rest[12:] == bytes(4), rest
    return int.from_bytes(rest[4:12], "big")


def connect(path: str) -> socket.socket:
    """Connect to a Unix socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(path)
    return sock
