"""Slots between a storage that blocks and a network that blocks, so that both work at once.

    read_ahead      the next pieces are read while one is sent
    write_behind    the last pieces are written while one arrives

Knows sources, sinks and views; knows nothing of where the pieces are stored.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from ovirt_imageio.relay.ends import Progress, Sink, Source, fill
from ovirt_imageio.relay.worker import Worker, run_ahead

__all__ = ["Tally", "read_ahead", "write_behind"]

# How many reads, or writes, are under way at once: most disks serve two faster than one after the other.
READERS = 2
WRITERS = 2


def read_ahead(
    read: Callable[[memoryview, int, int], memoryview],
    pieces: Iterable[tuple[int, int]],
    slots: Sequence[memoryview],
    sink: Sink,
    progress: Progress,
) -> int:
    """Send pieces, given as offset and length, to the sink, while the next ones are read; return how much was sent.

    `read(slot, offset, length)` reads into a slot, and returns the part of it that holds the data; threads call it at
    the same time. A piece that is shorter than it should be is the last.
    """

    def send(slot: memoryview, view: memoryview) -> int:
        if view:
            sink.write(view)
            progress(len(view))
        return len(view)

    return run_ahead(read, pieces, slots, send, READERS)


def write_behind(
    write: Callable[[int, memoryview], None],
    pieces: Iterable[tuple[int, int]],
    slots: Sequence[memoryview],
    source: Source,
    progress: Progress,
    place: Callable[[memoryview, int, int], memoryview] = lambda slot, offset, length: slot[:length],
) -> int:
    """Write pieces, given as offset and length, from the source, while the next ones arrive; return how much was.

    `place(slot, offset, length)` returns the part of a slot where a piece shall be. Threads call `write` at the same
    time, and tell progress: of what is written without a gap. A source that ends, or fails, ends the move; what came
    before is written.
    """
    tally = Tally(progress)

    def put(number: int, offset: int, view: memoryview) -> None:
        write(offset, view)
        tally.add(number, len(view))

    free = deque(slots)
    writing: deque[tuple[memoryview, Worker[None]]] = deque()
    todo = enumerate(pieces)
    item = next(todo, None)
    with contextlib.ExitStack() as stack:
        turns = itertools.cycle([stack.enter_context(Worker[None]("write-behind")) for _ in range(WRITERS)])
        while item is not None:
            (number, (offset, length)), item = item, next(todo, None)
            if not free:
                slot, worker = writing.popleft()
                worker.result()
                free.append(slot)
            view = place(free[0], offset, length)
            try:
                count = fill(source, view)
            except Exception:
                settle(writing)
                raise
            if count and item is None and not writing:
                put(number, offset, view[:count])  # A short range needs no thread.
            elif count:
                worker = next(turns)
                worker.submit(functools.partial(put, number, offset, view[:count]))
                writing.append((free.popleft(), worker))
            if count < length:
                break
        settle(writing)
    return tally.total


def settle(writing: Iterable[tuple[memoryview, Worker[None]]]) -> None:
    """Wait for all that is being written."""
    for _, worker in writing:
        worker.result()


class Tally:
    """Tells the progress of pieces that end in any order, in their order: what is told has no gap.

    Once progress has raised, it is not called any more: adding more raises the same.

    Threads: any; progress is called by one at a time.
    """

    def __init__(self, progress: Progress) -> None:
        self.total = 0
        self._progress = progress
        self._lock = threading.Lock()
        self._next = 0
        # The lengths of pieces that ended before their predecessor, by number.
        self._early: dict[int, int] = {}
        self._error: Optional[BaseException] = None

    def add(self, number: int, count: int) -> None:
        """Piece `number`, of `count` bytes, has ended; raises what progress raises."""
        with self._lock:
            self._early[number] = count
            while self._next in self._early and self._error is None:
                count = self._early.pop(self._next)
                self._next += 1
                self.total += count
                try:
                    self._progress(count)
                except BaseException as e:
                    self._error = e
            if self._error is not None:
                raise self._error
