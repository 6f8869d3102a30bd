"""The file backend alone: zeroing, and looking for zeroes. Its way of bytes is among path_lines."""

from __future__ import annotations

import contextlib
import tempfile
import time

from bench.lines import Line, Side

from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.storage import zero

__all__ = ["LINES"]

GIB = 1024**3
MIB = 1024**2


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


LINES = [
    Line(*("file-zero", "s", [Side("backend", zero_sparse)], 0.1, True), about="zero 100 GiB of a sparse file"),
    Line(
        *("is-zero", "MiB/s", [Side("is_zero", find_zeroes), Side("copy", copy_memory)]),
        about="recognize zeroes, against copying them",
    ),
]
