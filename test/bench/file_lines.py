"""What the file backend costs: the daemon over its Unix socket against dd, both with direct I/O, and zeroing."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from bench.lines import Line, Side
from real import daemon

from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.storage import zero

__all__ = ["LINES"]

GIB = 1024**3
MIB = 1024**2
SIZE = GIB

# What the disk and the client send: any data but zeroes.
DATA = bytes(range(1, 256)) * 4 * 1024 + b"x" * 4096


class Bench:
    """A disk of 1 GiB on real storage, the daemon, and a client of its local listener that costs little."""

    def __init__(self) -> None:
        self._path: Optional[Path] = None
        self._request = b""
        self._sock: Optional[socket.socket] = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the disk, a daemon that serves it, and a connection to that."""
        with contextlib.ExitStack() as stack:
            # Not in /tmp, which may be memory.
            self._path = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))) / "disk"
            with open(self._path, "wb") as f:
                for _ in range(SIZE // MIB):
                    f.write(DATA)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            running = stack.enter_context(daemon.running(folder))
            url = running.add_ticket(url=f"file://{self._path}", size=SIZE)
            self._sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._sock.connect(running.local_socket)
            self._request = b"/images/%s HTTP/1.1\r\nHost: localhost\r\n" % url.rpartition("/")[2].encode()
            yield

    def get(self) -> float:
        """Download the disk; return MiB/s."""
        assert self._sock is not None
        view = memoryview(bytearray(MIB))
        started = time.perf_counter()
        self._sock.sendall(b"GET %s\r\n" % self._request)
        count = self._sock.recv_into(view)
        head, _, rest = bytes(view[:count]).partition(b"\r\n\r\n")
        assert b" 200 " in head, head
        done = len(rest)
        while done < SIZE:
            done += self._sock.recv_into(view)
        return SIZE / MIB / (time.perf_counter() - started)

    def put(self) -> float:
        """Upload the disk and flush; return MiB/s."""
        assert self._sock is not None
        started = time.perf_counter()
        self._sock.sendall(b"PUT %sContent-Length: %d\r\n\r\n" % (self._request, SIZE))
        for _ in range(SIZE // MIB):
            self._sock.sendall(DATA)
        answer = self._sock.recv(65536)
        assert b" 200 " in answer, answer
        return SIZE / MIB / (time.perf_counter() - started)

    def dd_read(self) -> float:
        """Read the disk with dd; return MiB/s."""
        return dd(f"if={self._path}", "of=/dev/null", "iflag=direct")

    def dd_write(self) -> float:
        """Write the disk with dd and flush; return MiB/s."""
        return dd("if=/dev/zero", f"of={self._path}", "oflag=direct", "conv=notrunc,fsync")


def dd(*arguments: str) -> float:
    """Copy the size of the disk; return MiB/s."""
    started = time.perf_counter()
    subprocess.run(["dd", "bs=1M", f"count={SIZE // MIB}", "status=none", *arguments], check=True)
    return SIZE / MIB / (time.perf_counter() - started)


def zero_sparse() -> float:
    """Return the seconds that it takes to zero 100 GiB of a sparse disk."""
    size = 100 * GIB
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as f:
        f.truncate(size)
        with contextlib.closing(FileBackend(f.name, writable=True, sparse=True)) as disk:
            started = time.perf_counter()
            for offset in range(0, size, disk.zero_step):
                disk.zero(offset, min(disk.zero_step, size - offset))
            return time.perf_counter() - started


def find_zeroes() -> float:
    """Return how many MiB of zeroes are recognized in a second."""
    view = memoryview(bytearray(256 * MIB))
    started = time.perf_counter()
    assert zero.is_zero(view)
    return len(view) / MIB / (time.perf_counter() - started)


def copy_memory() -> float:
    """Return how many MiB can be copied in a second."""
    view = memoryview(bytearray(256 * MIB))
    target = memoryview(bytearray(256 * MIB))
    started = time.perf_counter()
    target[:] = view
    return len(view) / MIB / (time.perf_counter() - started)


reading, writing = Bench(), Bench()

LINES = [
    Line(
        *("file-get", "MiB/s", [Side("daemon", reading.get, reading.running), Side("dd", reading.dd_read)]),
        about="download 1 GiB over the Unix socket; should reach 0.85 times dd iflag=direct",
    ),
    Line(
        *("file-put", "MiB/s", [Side("daemon", writing.put, writing.running), Side("dd", writing.dd_write)]),
        about="upload 1 GiB over the Unix socket and flush; should reach 0.85 times dd oflag=direct conv=fsync",
    ),
    Line(*("file-zero", "s", [Side("backend", zero_sparse)], 0.1, True), about="zero 100 GiB of a sparse file"),
    Line(
        *("is-zero", "MiB/s", [Side("is_zero", find_zeroes), Side("copy", copy_memory)]),
        about="recognize zeroes, against copying them",
    ),
]
