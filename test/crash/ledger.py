"""What clients were told, and what may therefore be on a disk after a crash.

A client writes only to sectors of its own. For each of its sectors a crash leaves what it wrote last of all that a
flush made safe, or anything that it began to write after that.
"""

from __future__ import annotations

import itertools
import struct
import threading
from dataclasses import dataclass, field
from typing import Callable, Optional

from fakes.volatile import SECTOR

__all__ = ["Ledger", "Lost", "Write"]


class Lost(AssertionError):
    """A disk does not have what a client was told is safe."""


@dataclass
class Write:
    """One change of a range of sectors. The numbers are points in the log of the disk."""

    first: int
    data: bytes
    begun: int
    # When a flush that covers it was acknowledged.
    safe: Optional[int] = None

    @property
    def sectors(self) -> range:
        """The sectors that it changes."""
        return range(self.first, self.first + len(self.data) // SECTOR)

    def value(self, sector: int) -> bytes:
        """Return what it writes to a sector."""
        start = (sector - self.first) * SECTOR
        return self.data[start : start + SECTOR]


@dataclass
class Ledger:
    """What one client did, in order. `now` returns how much the disk has logged.

    Threads: one at a time.
    """

    now: Callable[[], int]
    writes: list[Write] = field(default_factory=list)
    flushes: int = 0

    def begin(self, first: int, data: bytes) -> Write:
        """Note that a change begins."""
        self.writes.append(Write(first, data, self.now()))
        return self.writes[-1]

    def flushed(self, writes: list[Write]) -> None:
        """Note that a flush was acknowledged, and covers these."""
        self.flushes += 1
        now = self.now()
        for write in writes:
            write.safe = now if write.safe is None else write.safe

    def check(self, point: int, disk: bytes) -> int:
        """Raise Lost unless a disk is one that a crash may leave; return how many sectors had something safe."""
        allowed: dict[int, list[bytes]] = {}
        safe: set[int] = set()
        for write in self.writes:
            if write.begun > point:
                continue
            is_safe = write.safe is not None and write.safe <= point
            for sector in write.sectors:
                if is_safe:
                    safe.add(sector)
                    allowed[sector] = []
                allowed.setdefault(sector, [bytes(SECTOR)]).append(write.value(sector))
        for sector, values in allowed.items():
            found = disk[sector * SECTOR : (sector + 1) * SECTOR]
            if found not in values:
                told = [stamp_of(value) for value in values]
                raise Lost(f"crash at {point}: sector {sector} has {stamp_of(found)}, expected one of {told}")
        return len(safe)


_stamps = itertools.count(1)
_lock = threading.Lock()


def stamped(count: int) -> bytes:
    """Return so many sectors with bytes that nothing else ever has."""
    with _lock:
        return b"".join(struct.pack(">Q", next(_stamps)) * (SECTOR // 8) for _ in range(count))


def stamp_of(data: bytes) -> int:
    """Return what tells a sector from others; 0 for zeroes."""
    return int(struct.unpack_from(">Q", data)[0])
