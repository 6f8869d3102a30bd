"""A lane over NBD: many requests under way at both of its ends.

    source ──read──> slots ──write──> destination

What was read is written at once, in whatever order it comes. Knows ends; knows nothing of how they came to be.
"""

from __future__ import annotations

import bisect
import time
from collections import deque
from collections.abc import Iterator
from typing import Callable, NamedTuple

from ovirt_imageio import errors
from ovirt_imageio.client.copy.ends import End
from ovirt_imageio.client.copy.pair import Pair
from ovirt_imageio.client.copy.plan import COPY, Task
from ovirt_imageio.client.copy.reach import NEAR, Reach, Window
from ovirt_imageio.geometry import blocks
from ovirt_imageio.nbd.batches import MAX_LENGTH
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.origin.answers import is_passing
from ovirt_imageio.relay import Progress
from ovirt_imageio.storage.zero import is_zero

__all__ = ["NBDLane"]

# Tasks begin before there is room for all of those before: while one ends, the next is on its way.
MAX_WAITING = 2


class Job:
    """A task under way, and how many of its pieces are not done."""

    __slots__ = ("left", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.left = 0


class Piece(NamedTuple):
    """A range that moves, or is zeroed, with one request."""

    job: Job
    start: int
    length: int


class NBDLane:
    """From the disk here to the one there if `is_upload`, else from there to here.

    The ends are opened when the first task begins; a thread that cuts the line ends the wait for the one there.
    `detect_zeroes`: zeroes are looked for in an upload, and not sent.

    Threads: one, but for `interrupt`.
    """

    def __init__(
        self,
        open_local: Callable[[], End[Piece]],
        open_remote: Callable[[Lifeline], End[Piece]],
        moved: Progress,
        *,
        is_upload: bool,
        reach: Reach = NEAR,
        detect_zeroes: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pair = Pair(open_local, open_remote)
        self._moved = moved
        self._is_upload = is_upload
        # How much is under way at one end: enough to fill the line.
        self._reach = reach
        self._max_requests = reach.nbd_requests
        self._window = Window(reach.nbd_window, reach.least, reach.seconds)
        self._detect_zeroes = detect_zeroes
        self._now = now
        self._jobs: deque[Job] = deque()
        # The parts of them that did not begin.
        self._todo: deque[Piece] = deque()
        # How many bytes are on their way from the source, and to the destination.
        self._reading = self._writing = 0

    @property
    def is_busy(self) -> bool:
        """Is a task under way?"""
        return bool(self._jobs)

    @property
    def is_full(self) -> bool:
        """Must one end before another one begins?"""
        return len(self._jobs) >= MAX_WAITING and bool(self._todo)

    @property
    def longest(self) -> int:
        """How long a copy may be that begins now."""
        return self._reach.longest(self._window.size)

    def begin(self, task: Task) -> None:
        """Begin a task, as far as there is room."""
        source, destination = self._ends()
        if not self._jobs:
            self._window.begin(self._now())
        job = Job(task)
        # Gaps between parts are read along: that is cheaper than one more request.
        step = MAX_LENGTH if task.action == COPY else task.length
        pieces = [Piece(job, start, length) for start, length in blocks.pieces(task.start, task.length, step)]
        job.left = len(pieces)
        self._todo += pieces
        self._fill(source, destination)
        self._jobs.append(job)

    def finish(self) -> Task:
        """Wait until the oldest task is done."""
        source, destination = self._ends()
        job = self._jobs[0]
        while job.left:
            self._fill(source, destination)
            source.push()
            destination.push()
            if self._waits_for_source(source, destination):
                for piece, view in source.finish():
                    self._reading -= piece.length
                    self._pass(piece, view, destination)
                # Their bytes stay only until the next time.
                destination.push()
            else:
                for piece, _ in destination.finish():
                    self._writing -= piece.length
                    piece.job.left -= 1
        self._jobs.popleft()
        self._window.ended(job.task.length if job.task.action == COPY else 0, self._now())
        return job.task

    def flush(self) -> None:
        """Flush the destination."""
        _, destination = self._ends()
        assert not self._jobs
        destination.flush()

    def recover(self, error: errors.Error) -> list[Task]:
        """Return what was under way, if the server may be back soon, and the fault is not here."""
        self._drop()
        if not is_passing(error):
            raise error
        try:
            self._pair.open_local()
        except errors.Error:
            raise error from None
        lost = [job.task for job in self._jobs]
        self._jobs.clear()
        return lost

    def interrupt(self) -> None:
        """Wake whatever blocks. Threads: any."""
        self._pair.interrupt()

    def close(self) -> None:
        """Close both ends."""
        self._drop()

    def _ends(self) -> tuple[End[Piece], End[Piece]]:
        """Return source and destination."""
        local, remote = self._pair.open()
        return (local, remote) if self._is_upload else (remote, local)

    def _waits_for_source(self, source: End[Piece], destination: End[Piece]) -> bool:
        """True if bytes of the source are waited for next, False if replies of the destination to writes are."""
        if not (source.count and destination.count):
            return source.count > 0
        if destination.count >= self._max_requests or self._writing >= self._window.size:
            return False
        if self._is_upload or self._todo or not self._reach.seconds:
            return True
        # The destination is here, and ends soon. Then more tasks may begin, before a server that is far has none left.
        return 2 * source.count > self._max_requests or 2 * self._reading > self._max_reading

    @property
    def _max_reading(self) -> int:
        """How many bytes may be on their way from the source."""
        # Bytes that were read here cannot be sent by another connection any more.
        return self._window.size // (self._reach.share if self._is_upload else 1)

    def _fill(self, source: End[Piece], destination: End[Piece]) -> None:
        """Begin what there is room for, in order."""
        todo = self._todo
        max_reading = self._max_reading
        while todo:
            piece = todo[0]
            if piece.job.task.action == COPY:
                if source.count >= self._max_requests or self._reading >= max_reading:
                    break
                source.read(piece, piece.start, piece.length)
                self._reading += piece.length
            else:
                if destination.count >= self._max_requests:
                    break
                self._zero(piece, destination)
            todo.popleft()

    def _pass(self, piece: Piece, view: memoryview, destination: End[Piece]) -> None:
        """Write what was read."""
        if len(piece.job.task.parts) > 1:
            self._pass_parts(piece, view, destination)
        elif self._detect_zeroes and is_zero(view):
            self._zero(piece, destination)
        else:
            self._write(piece, view, destination)

    def _pass_parts(self, whole: Piece, view: memoryview, destination: End[Piece]) -> None:
        """Write the parts of a task that were read with a piece; what is between them is dropped."""
        for start, length in parts_within(whole.job.task.parts, whole.start, whole.start + whole.length):
            whole.job.left += 1
            skip = start - whole.start
            self._write(Piece(whole.job, start, length), view[skip : skip + length], destination)
        whole.job.left -= 1

    @staticmethod
    def _zero(piece: Piece, destination: End[Piece]) -> None:
        # No bytes are on their way.
        destination.zero(piece._replace(length=0), piece.start, piece.length)

    def _write(self, piece: Piece, view: memoryview, destination: End[Piece]) -> None:
        destination.write(piece, piece.start, view)
        self._writing += piece.length
        self._moved(piece.length)

    def _drop(self) -> None:
        """Close both ends, with all that is under way."""
        self._todo.clear()
        self._reading = self._writing = 0
        self._pair.close()


def parts_within(parts: tuple[tuple[int, int], ...], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the start and length of what is in a range of each of these parts, which are in order."""
    # The part that begins before the range does may reach into it.
    for number in range(max(0, bisect.bisect_right(parts, (start, 0)) - 1), len(parts)):
        first, length = parts[number]
        if first >= end:
            return
        last = min(first + length, end)
        first = max(first, start)
        if first < last:
            yield first, last - first
