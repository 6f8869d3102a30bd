"""Extents of a fragmented disk: how long until the first byte and until the last, and what the daemon needs for it.

The disk is a sparse file in memory: 4 KiB of data, 64 KiB of nothing, and so on. Each sample is asked of a daemon
of its own over its Unix socket, so the memory is that of this one request.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from bench.arena import LIFE, MEMORY, MIB, local_socket, serve
from bench.lines import Line, Side, Times
from real import daemon, release

from ovirt_imageio.qemu.nbd import QemuNbd

__all__ = ["LINES"]

DATA = 4096
HOLE = 64 * 1024
PAIR = DATA + HOLE


class Extents:
    """One daemon that lists the extents of one disk."""

    def __init__(self, kind: str, count: int) -> None:
        self._start = daemon.running if kind == "ours" else release.running
        self._count = count
        self._server: Optional[QemuNbd] = None

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Hold the disk and its server."""
        release.python()
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            path = Path(folder) / "disk"
            with open(path, "wb", buffering=0) as file:
                for index in range(self._count // 2):
                    os.pwrite(file.fileno(), b"x" * DATA, index * PAIR)
                file.truncate(self._count // 2 * PAIR)
            with serve(path) as self._server:
                yield

    def total(self) -> float:
        """Return the seconds until the last byte."""
        return self._ask()[1]

    def first(self) -> float:
        """Return the seconds until the first byte of the list."""
        return self._ask(only_first=True)[0]

    def memory(self) -> float:
        """Return the peak memory of the daemon, in MiB."""
        return self._ask()[2]

    def _ask(self, only_first: bool = False) -> tuple[float, float, float]:
        assert self._server is not None
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            text = f"[local]\nsocket = {local_socket(folder)}\n"
            running = stack.enter_context(self._start(folder, text))
            url = running.add_ticket(url=self._server.url, size=self._count // 2 * PAIR, **LIFE)
            connection = stack.enter_context(contextlib.closing(running.connect_unix(local_socket(folder))))
            # A million take the release longer than tests have patience.
            connection.sock.settimeout(600)
            started = time.perf_counter()
            connection.request("GET", f"/images/{url.rpartition('/')[2]}/extents")
            response = connection.getresponse()
            tail = response.read(1)
            first = time.perf_counter() - started
            if not only_first:
                tail, extents = b"", tail.count(b"{")
                while data := response.read(MIB):
                    extents += data.count(b"{")
                    tail = data[-4:]
                assert response.status == 200 and extents == self._count, (response.status, extents, tail)
            return first, time.perf_counter() - started, peak_memory(running.process.pid)


def peak_memory(pid: int) -> float:
    """Return the MiB that a process had in memory when it had most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found.group(1)) / 1024


def line(name: str, unit: str, measure: str, count: int, about: str, rounds: int = 3) -> Line:
    """Return a line of both daemons."""
    sides = []
    for kind in ("ours", "release"):
        extents = Extents(kind, count)
        sides.append(Side(kind, getattr(extents, measure), extents.setup))
    targets = (Times(1),) if measure == "memory" else ()
    return Line(name, unit, sides, about=about, rounds=rounds, less_is_better=True, targets=targets)


LINES = [
    line("extents-40k-first", "s", "first", 40_000, "first byte of the list of 40,000 extents"),
    line("extents-40k", "s", "total", 40_000, "list of 40,000 extents"),
    line("extents-40k-memory", "MiB", "memory", 40_000, "peak memory of a daemon that listed 40,000 extents", 1),
    line("extents-1m-first", "s", "first", 1_000_000, "first byte of the list of 1,000,000 extents", 1),
    line("extents-1m", "s", "total", 1_000_000, "list of 1,000,000 extents", 1),
    line("extents-1m-memory", "MiB", "memory", 1_000_000, "peak memory of a daemon that listed 1,000,000 extents", 1),
]
