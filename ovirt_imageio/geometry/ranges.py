"""How many distinct bytes a set of ranges covers, when ranges arrive in any order and overlap.

        [----)   [--)         islands: known ranges, sorted, apart from each other
           [------)           one more range absorbs those that it overlaps or touches
        [-----------)

Pure: knows neither what the bytes are nor what moved them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Optional

__all__ = ["Ranges"]

# Islands are kept in chunks of at most this many: an insertion moves 8 KiB at most, and two binary searches find it.
CHUNK = 1024

# Random small pieces can leave this many islands, 16 bytes each. Beyond, a new island is joined to its neighbour over
# the gap between them. The gap is not counted, but neither are bytes that fill it later: `total` errs on the low side.
LIMIT = 1024 * 1024


class Ranges:
    """A union of half-open ranges, of which `total` bytes were added.

    Threads: one at a time. Adding costs O(log n), amortized, in any order.

    >>> ranges = Ranges([(0, 100), (200, 300)])
    >>> ranges.add(80, 200)
    >>> ranges.total
    300
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = (), limit: int = LIMIT) -> None:
        self.total = 0
        self._limit = limit
        self._count = 0
        # Parallel arrays of starts and ends, in chunks. _firsts has the first start of each chunk, but 0 for chunk 0:
        # so every offset belongs to one. A chunk is empty only when there is no other one.
        self._firsts = [0]
        self._starts = [array("q")]
        self._ends = [array("q")]
        for start, end in ranges:
            self.add(start, end)

    def __len__(self) -> int:
        """Return the number of islands."""
        return self._count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the islands in order."""
        for starts, ends in zip(self._starts, self._ends):
            yield from zip(starts, ends)

    def add(self, start: int, end: int) -> None:
        """Add the bytes from start up to, but not including, end."""
        assert 0 <= start <= end, (start, end)
        if start == end:
            return
        self.total += end - start
        while True:
            place = self._last_before(end)
            if place is None:
                break
            chunk, index = place
            left, right = self._starts[chunk][index], self._ends[chunk][index]
            if right < start:
                break
            if left <= start:
                # What moves on makes its island longer: no other one is touched.
                self._ends[chunk][index] = max(right, end)
                self.total -= min(right, end) - start
                return
            self.total -= min(right, end) - left
            self._remove(chunk, index)
            end = max(right, end)
        self._insert(start, end)

    def missing(self, start: int, end: int) -> int:
        """Return how many of the bytes from start up to, but not including, end were not added."""
        count = end - start
        chunk, index = self._last_before(start) or (0, 0)
        while chunk < len(self._starts):
            starts, ends = self._starts[chunk], self._ends[chunk]
            while index < len(starts):
                if starts[index] >= end:
                    return count
                count -= max(0, min(ends[index], end) - max(starts[index], start))
                index += 1
            chunk, index = chunk + 1, 0
        return count

    def _last_before(self, offset: int) -> Optional[tuple[int, int]]:
        """Return where the last island is that starts at or before offset: its chunk and index."""
        chunk = bisect_right(self._firsts, offset) - 1
        index = bisect_right(self._starts[chunk], offset) - 1
        return (chunk, index) if index >= 0 else None

    def _insert(self, start: int, end: int) -> None:
        if self._count >= self._limit:
            start, end = self._join(start, end)
        chunk = bisect_right(self._firsts, start) - 1
        starts, ends = self._starts[chunk], self._ends[chunk]
        index = bisect_right(starts, start)
        starts.insert(index, start)
        ends.insert(index, end)
        self._count += 1
        if len(starts) > CHUNK:
            self._split(chunk)

    def _join(self, start: int, end: int) -> tuple[int, int]:
        """Take out the neighbour of an island that does not fit any more; return the island that spans both."""
        place = self._last_before(start) or (0, 0)
        left, right = self._starts[place[0]][place[1]], self._ends[place[0]][place[1]]
        self._remove(*place)
        return min(left, start), max(right, end)

    def _split(self, chunk: int) -> None:
        """Move the upper half of a chunk to a new one behind it."""
        half = len(self._starts[chunk]) // 2
        for arrays in (self._starts, self._ends):
            arrays.insert(chunk + 1, arrays[chunk][half:])
            del arrays[chunk][half:]
        self._firsts.insert(chunk + 1, self._starts[chunk + 1][0])

    def _remove(self, chunk: int, index: int) -> None:
        starts = self._starts[chunk]
        del starts[index], self._ends[chunk][index]
        self._count -= 1
        if starts:
            self._firsts[chunk] = starts[0]
        elif len(self._firsts) > 1:
            del self._firsts[chunk], self._starts[chunk], self._ends[chunk]
        self._firsts[0] = 0
