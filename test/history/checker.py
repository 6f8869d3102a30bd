"""Decides whether what was read from a disk could have been: each block of 512 bytes is a register of its own.

    history = History()
    history.write(blocks, value, begin, end)        # end NEVER: it was not acknowledged
    history.attempt(blocks, value, begin, until)    # ... and if it was done, then before
    history.read(block, value, begin, end)
    history.flush(begin, end)
    history.crash(when)                             # what was not flushed may be lost
    assert not list(history.faults())

A read may return any write that began before the read ended, unless a newer one had taken its place before the read
began: a write that began after that one had ended, and that had itself ended. A write that a read has returned has
taken its place when that read ended, acknowledged or not: no client reads what was before from then on.

Blocks begin as zeroes, and values are unique, but for 0. Pure: times are arguments.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["BLOCK", "NEVER", "TORN", "History", "decode", "encode"]

BLOCK = 512

NEVER = math.inf

# The value of a block that is no block of any write.
TORN = -1


def encode(value: int, count: int = 1) -> bytes:
    """Return blocks that hold a value."""
    return value.to_bytes(8, "big") * (BLOCK // 8 * count)


def decode(data: bytes) -> list[int]:
    """Return the values of blocks."""
    views = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    return [int.from_bytes(view[:8], "big") if view == view[:8] * (BLOCK // 8) else TORN for view in views]


@dataclass
class Write:
    """Something that gives a block a value."""

    value: int
    begin: float
    # When it has surely been done, and when it was done if at all: they differ if it was never acknowledged.
    end: float
    until: float
    # When it was acknowledged: `end` may be earlier, if it was read before.
    acknowledged: float
    what: str = "nothing"

    def __str__(self) -> str:
        return f"{self.what} {self.value} [{self.begin:.6f}, {self.end:.6f}]"


@dataclass
class Read:
    """Something that tells the value of a block."""

    value: int
    begin: float
    end: float
    what: str


class History:
    """What was done to a disk. Threads: one at a time."""

    def __init__(self) -> None:
        self.reads: defaultdict[int, list[Read]] = defaultdict(list)
        self._writes: defaultdict[int, list[Write]] = defaultdict(self._first)
        self._flushes: list[tuple[float, float]] = []
        self._crashes: list[float] = []

    @staticmethod
    def _first() -> list[Write]:
        return [Write(0, -math.inf, -math.inf, -math.inf, -math.inf)]

    def write(self, blocks: Iterable[int], value: int, begin: float, end: float = NEVER, what: str = "write") -> None:
        """Note that blocks were given a value."""
        for block in blocks:
            self._writes[block].append(Write(value, begin, end, end, end, what))

    def attempt(
        self, blocks: Iterable[int], value: int, begin: float, until: float = NEVER, what: str = "write"
    ) -> None:
        """Note that blocks may have been given a value, or not, but not after `until`."""
        for block in blocks:
            self._writes[block].append(Write(value, begin, NEVER, until, NEVER, what))

    def read(self, block: int, value: int, begin: float, end: float, what: str = "read") -> None:
        """Note that a block was found to have a value."""
        self.reads[block].append(Read(value, begin, end, what))

    def flush(self, begin: float, end: float) -> None:
        """Note that what was acknowledged before `begin` was made safe at `end`."""
        self._flushes.append((begin, end))

    def crash(self, when: float) -> None:
        """Note that what was not made safe may be lost."""
        self._crashes.append(when)

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each read that could not have been."""
        for block, reads in sorted(self.reads.items()):
            self._settle(block)
            for read in sorted(reads, key=lambda read: read.end):
                if not self._is_possible(block, read):
                    yield self._describe(block, read)

    # --- Inside ------------------------------------------------------------------------------------------------------

    def _settle(self, block: int) -> None:
        """A write that was read has ended then."""
        by_value = {write.value: write for write in self._writes[block] if write.value}
        for read in self.reads[block]:
            write = by_value.get(read.value)
            if write is not None and write.begin < read.end:
                write.end = min(write.end, read.end)
                write.until = min(write.until, read.end)

    def _is_possible(self, block: int, read: Read) -> bool:
        writes = self._writes[block]
        # Those whose place nothing before the read can have.
        holding = [write for write in writes if write.end < read.begin and self._holds(write, read.begin)]
        newest = max((write.begin for write in holding), default=-math.inf)
        return any(write.value == read.value and write.begin < read.end and write.until >= newest for write in writes)

    def _holds(self, write: Write, when: float) -> bool:
        """Return True if no crash before `when` can have undone it."""
        crashes = [crash for crash in self._crashes if write.begin < crash < when]
        return not crashes or self._safe_at(write) < min(crashes)

    def _safe_at(self, write: Write) -> float:
        if write.acknowledged == -math.inf:
            return -math.inf
        return min((end for begin, end in self._flushes if write.acknowledged <= begin), default=NEVER)

    def _describe(self, block: int, read: Read) -> str:
        writes = self._writes[block]
        text = f"block {block}: {read.what} [{read.begin:.6f}, {read.end:.6f}] found {read.value}"
        found = [str(write) for write in writes if write.value == read.value and write.begin < read.end][-2:]
        newer = sorted((write for write in writes if write.end < read.begin), key=lambda write: write.end)[-3:]
        return f"{text}, of {', '.join(found) or 'nothing'}; before it ended {', '.join(map(str, newer))}"
