"""Measures what pages in docs/decisions compare: threads and asyncio, two parsers of heads, HTTP and NBD.

    .venv/bin/python test/bench/decisions.py

Prints ratios: each side is measured in turn, five times, and the medians are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import io
import multiprocessing
import random
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[depth]) for depth in (1, 2)]

from fakes import nbdclient  # noqa: E402  (the path comes first)
from real import daemon  # noqa: E402

from ovirt_imageio.httpd import head  # noqa: E402
from ovirt_imageio.nbd.wire import Command  # noqa: E402
from ovirt_imageio.qemu.nbd import QemuNbd  # noqa: E402

__all__ = ["parse_with_email", "parse_with_head", "ratio", "serve_with_asyncio", "serve_with_threads", "take"]

SMALL = 4096
PIECE = 1024 * 1024
ROUNDS = 5
WARM = 10

# What curl sends, with the length of a usual ticket.
HEAD = (
    b"GET /images/c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c HTTP/1.1\r\n"
    b"Host: host.example:54322\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nRange: bytes=1048576-2097151"
)


def serve_with_threads(sock: socket.socket, size: int) -> None:
    """Answer each byte with `size` bytes, until the peer closes."""
    answer = bytes(size)
    with sock:
        while sock.recv(1):
            sock.sendall(answer)


def serve_with_asyncio(sock: socket.socket, size: int) -> None:
    """Do the same with the streams of asyncio."""
    answer = bytes(size)

    async def serve() -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        while await reader.read(1):
            writer.write(answer)
            await writer.drain()
        writer.close()

    asyncio.run(serve())


def take(serve: Callable[[socket.socket, int], None], size: int, count: int) -> float:
    """Return the seconds that a client needs to ask a server, which is another process, `count` times."""
    ours, theirs = socket.socketpair()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, size))
    server.start()
    theirs.close()
    buffer = memoryview(bytearray(size))
    started = 0.0
    with contextlib.closing(ours):
        # The first answers come while the server starts.
        for number in range(-WARM, count):
            if number == 0:
                started = time.perf_counter()
            ours.sendall(b"x")
            done = 0
            while done < size:
                done += ours.recv_into(buffer[done:])
        seconds = time.perf_counter() - started
    server.join()
    return seconds


def parse_with_head(count: int) -> float:
    """Return the seconds that our parser needs for `count` heads."""
    started = time.perf_counter()
    for _ in range(count):
        head.parse(HEAD)
    return time.perf_counter() - started


def parse_with_email(count: int) -> float:
    """Return what http.server would need: its parser of header fields, that of the email package."""
    fields = HEAD.partition(b"\r\n")[2] + b"\r\n\r\n"
    started = time.perf_counter()
    for _ in range(count):
        http.client.parse_headers(io.BytesIO(fields))
    return time.perf_counter() - started


class Random:
    """Random reads of 4 KiB over one connection to the Unix socket of a daemon, of a disk behind qemu-nbd."""

    SIZE = 64 * 1024**2

    def __init__(self, path: str, ticket_id: str) -> None:
        self._path = path
        self._ticket_id = ticket_id

    def offset(self) -> int:
        """Return where to read."""
        return random.randrange(self.SIZE // SMALL) * SMALL

    def connect(self) -> socket.socket:
        """Return a connection."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        return sock

    def by_http(self, count: int) -> float:
        """Return the seconds for `count` requests, one after the other."""
        with self.connect() as sock, sock.makefile("rb") as file:
            started = time.perf_counter()
            for _ in range(count):
                offset = self.offset()
                fields = f"Host: a\r\nRange: bytes={offset}-{offset + SMALL - 1}\r\n\r\n"
                sock.sendall(f"GET /images/{self._ticket_id} HTTP/1.1\r\n{fields}".encode())
                while file.readline() != b"\r\n":
                    pass
                assert len(file.read(SMALL)) == SMALL
            return time.perf_counter() - started

    def by_nbd(self, count: int, window: int) -> float:
        """Return the seconds for `count` requests, of which `window` are under way."""
        with self.connect() as sock, sock.makefile("rb") as file:
            upgrade = "Host: a\r\nConnection: upgrade\r\nUpgrade: nbd\r\n\r\n"
            sock.sendall(f"GET /images/{self._ticket_id} HTTP/1.1\r\n{upgrade}".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += nbdclient.receive(sock, 1)
            nbdclient.handshake(sock)
            started = time.perf_counter()
            for number in range(count + window):
                if number < count:
                    sock.sendall(nbdclient.request(Command.READ, number, self.offset(), SMALL))
                if number >= window:
                    kind, _, length = struct.unpack(">6xHQI", file.read(20))
                    assert (kind, len(file.read(length))) == (1, SMALL + 8)
            return time.perf_counter() - started


@contextlib.contextmanager
def random_reads() -> Iterator[Random]:
    """Run a daemon and a qemu-nbd."""
    with tempfile.TemporaryDirectory(prefix="decisions-") as name:
        disk = Path(name) / "disk.raw"
        disk.write_bytes(random.randbytes(Random.SIZE))
        with daemon.running(Path(name)) as running, QemuNbd(str(disk), "raw", shared=0) as qemu:
            url = running.add_ticket(url=qemu.url, size=Random.SIZE)
            yield Random(running.local_socket, url.rpartition("/")[2])


def ratio(slow: Callable[[], float], fast: Callable[[], float]) -> float:
    """Measure two sides in turn; return how many times as long the first one takes."""
    samples = [(slow(), fast()) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in samples) / statistics.median(b for _, b in samples)


def main() -> None:
    """Print what the pages say."""
    for name, size, count in (("4 KiB", SMALL, 20_000), ("1 MiB", PIECE, 1000)):
        sides = (functools.partial(take, serve, size, count) for serve in (serve_with_asyncio, serve_with_threads))
        found = ratio(*sides)
        print(f"asyncio takes {found:.2f} times as long as a thread to answer requests for {name}")
    found = ratio(functools.partial(parse_with_email, 20_000), functools.partial(parse_with_head, 20_000))
    print(f"http.client.parse_headers takes {found:.1f} times as long as httpd/head.py, which parses the whole head")
    with random_reads() as reads:
        for window in (1, 16):
            found = ratio(functools.partial(reads.by_http, 3000), functools.partial(reads.by_nbd, 3000, window))
            print(f"HTTP takes {found:.1f} times as long as NBD with {window} under way, for random reads of 4 KiB")


if __name__ == "__main__":
    main()
