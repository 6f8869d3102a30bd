"""Where a file has data, and where it has holes.

Knows descriptors; asks the file system, reads nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Range", "ranges"]


class Range(NamedTuple):
    """`length` bytes at `start`, which are data, or are known to read as zeroes."""

    start: int
    length: int
    is_data: bool


def ranges(fd: int, start: int, end: int) -> Iterator[Range]:
    """Yield what lies between start and end, in order and without gaps.

    A file system or device that cannot tell has data everywhere. A file that shrinks meanwhile has a hole there.
    """
    while start < end:
        data = min(_seek(fd, start, os.SEEK_DATA, end), end)
        if data > start:
            yield Range(start, data - start, False)
        if data < end:
            hole = min(_seek(fd, data, os.SEEK_HOLE, end), end)
            # It was data a moment ago: if it was punched since, or it cannot be told, call the rest data.
            start = hole if hole > data else end
            yield Range(data, start - data, True)
        else:
            start = end


def _seek(fd: int, start: int, what: int, end: int) -> int:
    """Return where the next data or hole begins; end if there is none."""
    try:
        return os.lseek(fd, start, what)
    except OSError as e:
        if e.errno == errno.ENXIO:  # No data up to the end of the file.
            return end
        if e.errno == errno.EINVAL:  # A block device, or an old file system.
            return start if what == os.SEEK_DATA else end
        raise
