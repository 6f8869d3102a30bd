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

import bisect
import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
        flushes = Flushes(self._flushes)
        crashes = sorted(self._crashes)
        for block, reads in sorted(self.reads.items()):
            writes = self._writes[block]
            settle(writes, reads)
            for read in impossible(writes, reads, flushes, crashes):
                yield self._describe(block, read)

    # --- Inside ------------------------------------------------------------------------------------------------------

    def _describe(self, block: int, read: Read) -> str:
        writes = self._writes[block]
        text = f"block {block}: {read.what} [{read.begin:.6f}, {read.end:.6f}] found {read.value}"
        found = [str(write) for write in writes if write.value == read.value and write.begin < read.end][-2:]
        newer = sorted((write for write in writes if write.end < read.begin), key=lambda write: write.end)[-3:]
        return f"{text}, of {', '.join(found) or 'nothing'}; before it ended {', '.join(map(str, newer))}"


# --- One block -------------------------------------------------------------------------------------------------------
#
# Each question is answered from something sorted: histories of killed processes have thousands of reads, writes and
# flushes, and to look at all of them for each read takes minutes.


class Flushes:
    """When what was acknowledged has been made safe."""

    def __init__(self, flushes: Sequence[tuple[float, float]]) -> None:
        ordered = sorted(flushes, reverse=True)
        self._begins = [begin for begin, _ in reversed(ordered)]
        # Of the flush that ends first of those that begin then or later.
        self._ends = list(itertools.accumulate((end for _, end in ordered), min))[::-1]

    def safe_at(self, acknowledged: float) -> float:
        """Return when a write was safe that was acknowledged then."""
        if acknowledged == -math.inf:
            return -math.inf
        first = bisect.bisect_left(self._begins, acknowledged)
        return self._ends[first] if first < len(self._ends) else NEVER


class Candidates:
    """The writes of one value."""

    def __init__(self, writes: Iterable[Write]) -> None:
        ordered = sorted(writes, key=lambda write: write.begin)
        self._begins = [write.begin for write in ordered]
        # Of all that begin then or earlier, the last moment at which one was done.
        self._untils = list(itertools.accumulate((write.until for write in ordered), max))

    def is_there(self, begun: float, done: float) -> bool:
        """Return True if one began before `begun`, and may have been done at `done` or later."""
        count = bisect.bisect_left(self._begins, begun)
        return count > 0 and self._untils[count - 1] >= done


def settle(writes: Sequence[Write], reads: Iterable[Read]) -> None:
    """A write that was read has ended then."""
    by_value = {write.value: write for write in writes if write.value}
    for read in reads:
        write = by_value.get(read.value)
        if write is not None and write.begin < read.end:
            write.end = min(write.end, read.end)
            write.until = min(write.until, read.end)


def impossible(
    writes: Sequence[Write], reads: Iterable[Read], flushes: Flushes, crashes: Sequence[float]
) -> list[Read]:
    """Return the reads that could not have been, by their ends."""
    candidates: defaultdict[int, list[Write]] = defaultdict(list)
    for write in writes:
        candidates[write.value].append(write)
    by_value = {value: Candidates(those) for value, those in candidates.items()}
    found = []
    # The next one that ends comes last.
    coming = sorted(writes, key=lambda write: write.end, reverse=True)
    # When those that have ended began, below 0 as the last one is the first of a heap, and when a crash can undo them.
    holding: list[tuple[float, float]] = []
    for read in sorted(reads, key=lambda read: read.begin):
        while coming and coming[-1].end < read.begin:
            write = coming.pop()
            heapq.heappush(holding, (-write.begin, lost_at(write, flushes, crashes)))
        while holding and holding[0][1] < read.begin:
            heapq.heappop(holding)
        # What was done before that is not there any more.
        newest = -holding[0][0] if holding else -math.inf
        if read.value not in by_value or not by_value[read.value].is_there(read.end, newest):
            found.append(read)
    return sorted(found, key=lambda read: read.end)


def lost_at(write: Write, flushes: Flushes, crashes: Sequence[float]) -> float:
    """Return when the first crash was, if it can have undone a write, or NEVER."""
    first = bisect.bisect_right(crashes, write.begin)
    if first == len(crashes) or flushes.safe_at(write.acknowledged) < crashes[first]:
        return NEVER
    return crashes[first]
