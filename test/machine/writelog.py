"""The log of dm-log-writes: every write of a disk, and when the disk was told to flush.

See Documentation/admin-guide/device-mapper/log-writes.rst of Linux. Knows the format; knows nothing of what is written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Entry", "apply", "read", "states"]

MAGIC = 0x6A736677736872
SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


@dataclass(frozen=True)
class Entry:
    """One line of the log: a write, a flush, a discard, or a text that a test put there."""

    offset: int
    length: int
    flags: int
    # What was written, or the text.
    data: bytes

    @property
    def mark(self) -> str:
        return self.data.decode() if self.flags & MARK else ""


def read(log: BinaryIO) -> Iterator[Entry]:
    """Yield the entries of a log."""
    magic, version, count, sector = struct.unpack("<QQQI", log.read(28))
    assert (magic, version, sector) == (MAGIC, 1, SECTOR), (magic, version, sector)
    log.seek(SECTOR)
    for _ in range(count):
        head = log.read(SECTOR)
        start, sectors, flags, length = struct.unpack_from("<QQQQ", head)
        # A text is in the head; a discard has no data.
        text = head[32 : 32 + length] if flags & MARK else b""
        data = text if flags & (MARK | DISCARD) else log.read(sectors * SECTOR)
        yield Entry(start * SECTOR, sectors * SECTOR, flags, data)


def apply(entry: Entry, disk: BinaryIO) -> None:
    """Do to a disk what the log says."""
    if not entry.flags & MARK and entry.length:
        disk.seek(entry.offset)
        disk.write(bytes(entry.length) if entry.flags & DISCARD else entry.data)


def states(entries: list[Entry]) -> Iterator[tuple[int, int]]:
    """Yield what a power cut at each flush and mark may leave: (safe, end).

    The entries before `safe` are on the disk; those from there to `end` may be, each of them or not, but for those with
    FUA, which are.
    """
    safe = 0
    for number, entry in enumerate(entries, 1):
        if entry.flags & FLUSH:
            yield safe, number
            # What the flush itself writes is safe only with FUA, or after the next one.
            safe = number if entry.flags & FUA or not entry.length else number - 1
        elif entry.flags & MARK:
            yield safe, number
