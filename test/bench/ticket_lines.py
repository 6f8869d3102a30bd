"""What tickets cost: bookkeeping of operations, its memory, and the life of a ticket over the control socket."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from bench.lines import Line, Side
from fakes.connections import FakeConnection
from real import daemon

from ovirt_imageio.auth.ticket import parse
from ovirt_imageio.auth.transfer import Transfer
from ovirt_imageio.backends.null import NullBackend
from ovirt_imageio.ops.operations import Operation
from ovirt_imageio.service.metrics import Metrics

__all__ = ["LINES"]

OPERATIONS = 100_000
SIZE = 4096
CYCLES = 3000

UUID = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"
TICKET = {"uuid": UUID, "size": 2**40, "url": "file:///disk", "ops": ["read"], "timeout": 300}


class Nothing(Operation):
    """Moves 4 KiB in no time."""

    name = "read"

    def run(self) -> None:
        self.done = SIZE


def scattered() -> list[int]:
    """Return offsets in random order with gaps between them: the worst case of fragmentation."""
    offsets = [index * 2 * SIZE for index in range(OPERATIONS)]
    random.Random(1).shuffle(offsets)
    return offsets


def bookkeeping() -> float:
    """Return the microseconds that a transfer adds to an operation."""
    backend = NullBackend(2**40)
    transfer = Transfer(parse(TICKET), lambda ticket, line, traceparent: backend, observer=Metrics())
    connection = FakeConnection()
    link = transfer.begin("read", connection)
    operations = [Nothing(backend, offset, SIZE) for offset in scattered()]
    started = time.perf_counter()
    for operation in operations:
        transfer.run(operation, link)
    seconds = time.perf_counter() - started
    assert transfer.info()["transferred"] == OPERATIONS * SIZE
    return seconds / OPERATIONS * 1e6


def memory() -> float:
    """Return the MiB that a transfer keeps after them."""
    backend = NullBackend(2**40)
    transfer = Transfer(parse(TICKET), lambda ticket, line, traceparent: backend)
    connection = FakeConnection()
    link = transfer.begin("read", connection)
    offsets = scattered()
    tracemalloc.start()
    try:
        for offset in offsets:
            transfer.run(Nothing(backend, offset, SIZE), link)
        return tracemalloc.get_traced_memory()[0] / 1024**2
    finally:
        tracemalloc.stop()


class Control:
    """The daemon, and a client of its control socket that costs next to nothing."""

    def __init__(self) -> None:
        self._sock: Optional[socket.socket] = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            running = stack.enter_context(daemon.running(Path(folder)))
            self._sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._sock.connect(running.control_socket)
            yield

    def cycles(self) -> float:
        """Return how often in a second a ticket can be added, looked at and deleted, one request after the other."""
        body = json.dumps(TICKET).encode()
        path = f"/tickets/{UUID} HTTP/1.1\r\nHost: localhost\r\n".encode()
        put = b"PUT %sContent-Length: %d\r\n\r\n%s" % (path, len(body), body)
        get = b"GET %s\r\n" % path
        delete = b"DELETE %s\r\n" % path
        started = time.perf_counter()
        for _ in range(CYCLES):
            self.ask(put, b" 200 OK\r\n")
            assert self.ask(get, b" 200 OK\r\n").endswith(b"}\n")
            self.ask(delete, b" 204 No Content\r\n")
        return CYCLES / (time.perf_counter() - started)

    def ask(self, request: bytes, status: bytes) -> bytes:
        """Send a request; return the answer, which the server sends in one write."""
        assert self._sock is not None
        self._sock.sendall(request)
        answer = self._sock.recv(65536)
        assert status in answer, answer
        return answer


control = Control()

LINES = [
    Line(
        *("ticket-bookkeeping", "microseconds", [Side("transfer", bookkeeping)], 10, True),
        about=f"each of {OPERATIONS:,} scattered operations of 4 KiB on one ticket",
    ),
    Line(
        *("ticket-memory", "MiB", [Side("transfer", memory)], 64, True, 1),
        about=f"what {OPERATIONS:,} scattered operations of 4 KiB leave in memory",
    ),
    Line(
        *("ticket-cycles", "cycles/s", [Side("daemon", control.cycles, control.running)], 3000),
        about="add, get and delete a ticket over the Unix socket, one connection",
    ),
]
