"""What to do with each part of a disk: extents become tasks.

    extents     |data|zero|data|  hole    |data       data      |
    full        |      copy    |   zero   |   copy    |  copy   |     small gaps are copied along, long runs are split
    to new disk |copy|    |copy|          |   copy    |  copy   |     ... what reads as zero already is skipped

Pure: knows neither backends nor threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ovirt_imageio.geometry import blocks
from ovirt_imageio.geometry.extent import DirtyExtent, Extent

__all__ = ["COPY", "MAX_COPY", "MAX_PARTS", "MAX_ZERO", "SKIP", "ZERO", "Rules", "Task", "cut", "plan"]

COPY = "copy"
ZERO = "zero"
SKIP = "skip"

# Long enough to make the cost of a request vanish, short enough for all workers to finish together, and for little to
# be sent again after a connection was lost.
MAX_COPY = 64 * 1024**2

# A server may list extents of a byte; with blocks of 8 KiB this does not limit anything.
MAX_PARTS = 4096

# Longer ones, many at once, have brought storage to its knees.
MAX_ZERO = 128 * 1024**2


class Task(NamedTuple):
    """One piece of work. `parts` are the ranges, as (start, length), whose bytes count: most tasks have one.

    What is between the parts of a copy travels, but is not written, or is known to be zero.
    """

    action: str
    start: int
    length: int
    parts: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """How many bytes are done when it is done."""
        return self.length if len(self.parts) == 1 else sum(length for _, length in self.parts)


def cut(task: Task, length: int) -> tuple[Task, Task]:
    """Return two tasks for one, the first one of about this length, which is shorter than the task."""
    assert 0 < length < task.length
    end = task.start + length
    halves = (
        [(start, min(count, end - start)) for start, count in task.parts if start < end],
        [(max(start, end), start + count - max(start, end)) for start, count in task.parts if start + count > end],
    )
    first, second = (Task(task.action, parts[0][0], sum(parts[-1]) - parts[0][0], tuple(parts)) for parts in halves)
    return first, second


class Rules(NamedTuple):
    """How to treat the extents of a source.

    `zero`, `hole`: shall zero extents be zeroed in the destination, and those that are holes? False means that they
    read as they should already. With `dirty`, extents tell what changed, and only that is copied.

    A gap of up to `max_gap` bytes between data is copied along, as that is cheaper than another request. With
    `is_gap_written` it becomes part of the task, so that only zeroes may be in it; else the destination gets the
    parts alone. No copy is longer than `max_copy`.
    """

    zero: bool = True
    hole: bool = True
    dirty: bool = False
    max_gap: int = 0
    is_gap_written: bool = False
    max_copy: int = MAX_COPY

    def action(self, extent: Extent) -> str:
        """Return what to do with an extent."""
        if isinstance(extent, DirtyExtent):
            if not extent.dirty:
                return SKIP
            return ZERO if extent.zero else COPY
        if not extent.zero:
            return COPY
        return ZERO if self.zero and (self.hole or not extent.hole) else SKIP

    def absorbs(self, action: str, length: int) -> bool:
        """May a gap become part of a copy? Not where a hole must stay one: what is below shall show through."""
        return self.is_gap_written and length <= self.max_gap and (action == ZERO or self.hole)


@dataclass
class Run:
    """A copy that may still grow."""

    parts: list[tuple[int, int]] = field(default_factory=list)
    # What lies behind the last part, and becomes part of the copy if data follows.
    gap: list[Task] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Where the last part ends."""
        start, length = self.parts[-1]
        return start + length

    def takes(self, start: int, length: int, rules: Rules) -> bool:
        """Can it grow by this data?"""
        if not self.parts:
            return False
        is_near = start - self.end <= rules.max_gap and start + length - self.parts[0][0] <= rules.max_copy
        return is_near and len(self.parts) < MAX_PARTS

    def add(self, start: int, length: int) -> None:
        """Grow."""
        self.gap_to_parts()
        self.parts.append((start, length))

    def gap_to_parts(self) -> None:
        """Make the gap part of the copy."""
        self.parts += [part for task in self.gap for part in task.parts]
        self.gap.clear()

    def finish(self) -> Iterator[Task]:
        """Yield the copy, and the gap behind it; then be empty."""
        if self.parts:
            start = self.parts[0][0]
            yield Task(COPY, start, self.end - start, joined(self.parts))
        yield from self.gap
        self.parts = []
        self.gap = []


def plan(
    extents: Iterable[Extent],
    rules: Rules,
    done: Iterable[tuple[int, int]] = (),
    zeroes: Iterable[tuple[int, int]] = (),
) -> Iterator[Task]:
    """Yield the tasks that copy a disk with these extents.

    Ranges that are `done`, in order, as (start, end), are skipped; so are zeroes in ranges that are `zeroes` already.
    """
    run = Run()
    for extent, is_done, is_zero in separated(extents, OrderedRanges(done), OrderedRanges(zeroes)):
        action = SKIP if is_done else rules.action(extent)
        if is_zero and action == ZERO:
            action = SKIP
        if action == COPY:
            for start, length in blocks.pieces(extent.start, extent.length, rules.max_copy):
                if not run.takes(start, length, rules):
                    yield from run.finish()
                run.add(start, length)
            continue
        # What is skipped is one task, however long it is: a large disk would have very many.
        whole = (extent.start, extent.length)
        tasks = [single(action, *part) for part in (blocks.pieces(*whole, MAX_ZERO) if action == ZERO else [whole])]
        if run.parts and not is_done and rules.absorbs(action, extent.length):
            run.gap += tasks
            continue
        if rules.is_gap_written or extent.length > rules.max_gap:
            yield from run.finish()
        yield from tasks
    yield from run.finish()


def separated(
    extents: Iterable[Extent], done: OrderedRanges, zeroes: OrderedRanges
) -> Iterator[tuple[Extent, bool, bool]]:
    """Yield the parts of extents with whether they are in one of `done`, and in one of `zeroes`."""
    for extent in extents:
        start, end = extent.start, extent.start + extent.length
        while start < end:
            is_done, first = done.at(start)
            is_zero, second = zeroes.at(start)
            stop = min(end, first, second)
            part = extent if (start, stop) == (extent.start, end) else extent._replace(start=start, length=stop - start)
            yield part, is_done, is_zero
            start = stop


class OrderedRanges:
    """Ranges that come in order, and are looked at in order."""

    END = 2**63

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._ranges = iter(ranges)
        self._first, self._last = 0, 0

    def at(self, position: int) -> tuple[bool, int]:
        """Return whether a position, not before the last one, is in a range, and where that changes."""
        while self._last <= position:
            self._first, self._last = next(self._ranges, (self.END, self.END))
        return (True, self._last) if self._first <= position else (False, self._first)


def single(action: str, start: int, length: int) -> Task:
    """Return a task of one part."""
    return Task(action, start, length, ((start, length),))


def joined(parts: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return parts with neighbours made one."""
    result = [parts[0]]
    for start, length in parts[1:]:
        last, size = result[-1]
        if last + size == start:
            result[-1] = (last, size + length)
        else:
            result.append((start, length))
    return tuple(result)
