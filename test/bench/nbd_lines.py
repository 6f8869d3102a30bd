"""The nbd backend: the daemon before qemu-nbd on a memory disk, against nbdcopy, which goes there straight."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from bench.lines import Line, Side
from real import daemon
from real.nbd import uri

from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.nbd.server import Server

__all__ = ["LINES"]

MIB = 1024**2
SIZE = 1024 * MIB
# Nothing here is zero, and the storage is memory: what is measured is the way.
DATA = os.urandom(MIB).replace(b"\0", b"\1")
FRAGMENTS = 1_000_000


class Bench:
    """A disk in memory behind qemu-nbd, the daemon, and clients that cost little."""

    def __init__(self) -> None:
        self._folder = Path()
        self._server: Optional[Server] = None
        self._daemon: Optional[daemon.Daemon] = None
        self._url = ""
        self._sock: Optional[socket.socket] = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the disk, its servers, and a connection to the daemon."""
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
            with open(self._folder / "disk", "wb") as f:
                for _ in range(SIZE // MIB):
                    f.write(DATA)
            image = str(self._folder / "disk")
            self._server = stack.enter_context(Server(image, "raw", cache="writeback", aio="threads"))
            self._daemon = stack.enter_context(daemon.running(self._folder))
            self._url = self._daemon.add_ticket(url=self._server.url, size=SIZE)
            self._sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._sock.connect(self._daemon.local_socket)
            yield

    def get(self) -> float:
        """Download the disk over the Unix socket; return MiB/s."""
        sock, head = self._request("GET")
        view = memoryview(bytearray(MIB))
        started = time.perf_counter()
        sock.sendall(head + b"\r\n")
        count = sock.recv_into(view)
        head, _, rest = bytes(view[:count]).partition(b"\r\n\r\n")
        assert b" 200 " in head, head
        done = len(rest)
        while done < SIZE:
            done += sock.recv_into(view)
        return SIZE / MIB / (time.perf_counter() - started)

    def put(self) -> float:
        """Upload the disk over the Unix socket and flush; return MiB/s."""
        sock, head = self._request("PUT")
        started = time.perf_counter()
        sock.sendall(head + b"Content-Length: %d\r\n\r\n" % SIZE)
        for _ in range(SIZE // MIB):
            sock.sendall(DATA)
        answer = sock.recv(65536)
        assert b" 200 " in answer, answer
        return SIZE / MIB / (time.perf_counter() - started)

    def get_https(self) -> float:
        """Download the disk over HTTPS; return MiB/s."""
        return self._curl("--output", "/dev/null")

    def put_https(self) -> float:
        """Upload the disk over HTTPS and flush; return MiB/s."""
        return self._curl("--upload-file", str(self._folder / "disk"), "--header", "Expect:")

    def nbdcopy_get(self) -> float:
        """Read the disk with nbdcopy; return MiB/s."""
        return timed(["nbdcopy", "--connections=1", self._uri, "null:"])

    def nbdcopy_put(self) -> float:
        """Write the disk with nbdcopy and flush; return MiB/s."""
        return timed(["nbdcopy", "--connections=1", "--flush", str(self._folder / "disk"), self._uri])

    @property
    def _uri(self) -> str:
        assert self._server is not None
        return uri(self._server.url.partition("unix:")[2])

    def _request(self, method: str) -> tuple[socket.socket, bytes]:
        assert self._sock is not None
        path = self._url.partition("/images/")[2]
        return self._sock, f"{method} /images/{path} HTTP/1.1\r\nHost: localhost\r\n".encode()

    def _curl(self, *arguments: str) -> float:
        assert self._daemon is not None
        command = ["curl", "--silent", "--show-error", "--fail", "--http1.1", "--cacert", self._daemon.ca_file]
        return timed([*command, *arguments, self._url])


def timed(command: list[str]) -> float:
    """Run a program that moves the disk; return MiB/s."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return SIZE / MIB / (time.perf_counter() - started)


class Fragmented:
    """A raw disk with data in every other block."""

    def __init__(self) -> None:
        self._server: Optional[Server] = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the disk and its server."""
        with contextlib.ExitStack() as stack:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))) / "disk"
            block = b"x" * 4096
            with open(path, "wb", buffering=0) as f:
                for index in range(FRAGMENTS // 2):
                    os.pwrite(f.fileno(), block, index * 8192)
                f.truncate(FRAGMENTS * 4096)
            self._server = stack.enter_context(Server(str(path), "raw", cache="writeback", aio="threads"))
            yield

    def list(self, count: int) -> float:
        """Return the seconds until so many extents were listed."""
        assert self._server is not None
        with contextlib.closing(NBDBackend(self._server.url)) as backend:
            started = time.perf_counter()
            found = backend.extents()
            for _ in range(count):
                next(found)
            return time.perf_counter() - started


bench, fragmented = Bench(), Fragmented()

LINES = [
    Line(
        *("nbd-get", "MiB/s", [Side("daemon", bench.get, bench.running), Side("nbdcopy", bench.nbdcopy_get)]),
        about="download 1 GiB over the Unix socket; nbdcopy has one leg less",
    ),
    Line(
        *("nbd-put", "MiB/s", [Side("daemon", bench.put, bench.running), Side("nbdcopy", bench.nbdcopy_put)]),
        about="upload 1 GiB over the Unix socket and flush",
    ),
    Line(
        *("nbd-get-https", "MiB/s", [Side("daemon", bench.get_https, bench.running)]),
        about="download 1 GiB over HTTPS with curl",
    ),
    Line(
        *("nbd-put-https", "MiB/s", [Side("daemon", bench.put_https, bench.running)]),
        about="upload 1 GiB over HTTPS with curl and flush",
    ),
    Line(
        *("nbd-first-extent", "s", [Side("backend", lambda: fragmented.list(1), fragmented.running)], 1, True),
        about="the first extent of a disk with a million",
    ),
    Line(
        *("nbd-extents", "s", [Side("backend", lambda: fragmented.list(FRAGMENTS), fragmented.running)], 10, True),
        about="all extents of a disk with a million",
        rounds=3,
    ),
]
