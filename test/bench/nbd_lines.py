"""The nbd backend alone: the extents of a disk with a million of them. Its way of bytes is among path_lines."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from bench.lines import Line, Side

from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.qemu.nbd import QemuNbd

__all__ = ["LINES"]

FRAGMENTS = 1_000_000


class Fragmented:
    """A raw disk with data in every other block."""

    def __init__(self) -> None:
        self._server: Optional[QemuNbd] = None

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
            self._server = stack.enter_context(QemuNbd(str(path), "raw", cache="writeback", aio="threads"))
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


fragmented = Fragmented()

LINES = [
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
