"""Measures what pages in docs/decisions compare: a thread for each connection with asyncio, and two parsers of heads.

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
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ovirt_imageio.httpd import head

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


if __name__ == "__main__":
    main()
