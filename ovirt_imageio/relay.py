"""How bytes move: a source, a sink, and the ways between them.

    source ──> slot ──> sink        bytes that pass through us: TLS, or data that must be looked at
    source ──> pipe ──> sink        bytes that stay in the kernel: both ends are plain descriptors

Knows descriptors and views; knows nothing of disks, protocols and HTTP.
"""

from __future__ import annotations

import functools
import queue
import socket as sockets
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Callable, Generic, NoReturn, Optional, Protocol, TypeVar

__all__ = ["Progress", "Sink", "Source", "Worker", "fill", "read_ahead", "write_behind"]

T = TypeVar("T")

# Called with the number of bytes moved since the last call, at least once per MiB; it may raise, to stop the move.
Progress = Callable[[int], None]


class Source(Protocol):
    """Where bytes come from: the body of a request, a file, a test."""

    def readinto(self, view: memoryview) -> int:
        """Read up to len(view) bytes, at least one; return how many, 0 at the end."""

    @property
    def socket(self) -> Optional[sockets.socket]:
        """The plain socket whose next bytes are ours, when the kernel may take them from there; else None."""

    def advance(self, count: int) -> None:
        """Tell that `count` bytes were taken from the socket."""


class Sink(Protocol):
    """Where bytes go: the body of a response, a file, a test."""

    def write(self, view: memoryview) -> None:
        """Write all of view."""

    @property
    def socket(self) -> Optional[sockets.socket]:
        """The plain socket that takes our next bytes, when the kernel may put them there; else None."""

    def advance(self, count: int) -> None:
        """Tell that `count` bytes were put into the socket."""


def fill(source: Source, view: memoryview) -> int:
    """Read from the source until view is full or the source ends; return the number of bytes read."""
    done = 0
    while done < len(view):
        count = source.readinto(view[done:])
        if count == 0:
            break
        done += count
    return done


class Worker(Generic[T]):
    """A thread that makes calls, in order, while its owner does something else.

        with Worker[int]("read-ahead") as worker:
            worker.submit(lambda: slow(1))
            worker.submit(lambda: slow(2))
            worker.result()         # of slow(1)

    After a call that failed no other is made: their results are its error. At the end of the with block what was not
    begun is dropped, and the thread has ended.

    Threads: one, the owner.
    """

    def __init__(self, name: str) -> None:
        # Calls, then None; and what came of each: the result, or the error.
        self._calls: queue.SimpleQueue[Optional[Callable[[], T]]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def submit(self, call: Callable[[], T]) -> None:
        """Let the thread make a call."""
        self._calls.put(call)

    def is_ready(self) -> bool:
        """Return True if result() would not block."""
        return not self._results.empty()

    def result(self) -> T:
        """Wait for the oldest call whose result was not taken; return what it returned, or raise what it raised."""
        return self._results.get()()

    def _run(self) -> None:
        outcome: Callable[[], T]
        has_failed = False
        while (call := self._calls.get()) is not None and not self._is_stopping:
            if not has_failed:
                try:
                    outcome = functools.partial(_give, call())
                except BaseException as e:  # Whatever it is, it is raised where the result is taken.
                    outcome = functools.partial(_fail, e)
                    has_failed = True
            self._results.put(outcome)

    def __enter__(self) -> Worker[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._is_stopping = True
        self._calls.put(None)
        self._thread.join()


def _give(result: T) -> T:
    return result


def _fail(error: BaseException) -> NoReturn:
    raise error


def read_ahead(
    read: Callable[[memoryview, int, int], memoryview],
    pieces: Iterable[tuple[int, int]],
    slots: Sequence[memoryview],
    sink: Sink,
    progress: Progress,
) -> int:
    """Send pieces, given as offset and length, to the sink, while the next ones are read; return how much was sent.

    `read(slot, offset, length)` reads into a slot, and returns the part of it that holds the data. A piece that is
    shorter than it should be is the last.
    """
    done = 0
    todo = iter(pieces)
    free = deque(slots)
    reading: deque[tuple[memoryview, int]] = deque()
    with Worker[memoryview]("read-ahead") as worker:
        while True:
            while free and (piece := next(todo, None)):
                slot = free.popleft()
                worker.submit(functools.partial(read, slot, *piece))
                reading.append((slot, piece[1]))
            if not reading:
                return done
            slot, length = reading.popleft()
            view = worker.result()
            if view:
                sink.write(view)
                done += len(view)
                progress(len(view))
            if len(view) < length:
                return done
            free.append(slot)


def write_behind(
    write: Callable[[int, memoryview], None],
    pieces: Iterable[tuple[int, int]],
    slots: Sequence[memoryview],
    source: Source,
    progress: Progress,
    place: Callable[[memoryview, int, int], memoryview] = lambda slot, offset, length: slot[:length],
) -> int:
    """Write pieces, given as offset and length, from the source, while the next ones arrive; return how much was.

    `place(slot, offset, length)` returns the part of a slot where a piece shall be. Progress is told when a piece is
    written, not when it came. A source that ends, or fails, ends the move; what came before is written and counted.
    """
    done = 0
    free = deque(slots)
    writing: deque[tuple[memoryview, int]] = deque()

    def settle() -> None:
        nonlocal done
        slot, count = writing.popleft()
        worker.result()
        free.append(slot)
        done += count
        progress(count)

    with Worker[None]("write-behind") as worker:
        for offset, length in pieces:
            while writing and (worker.is_ready() or not free):
                settle()
            view = place(free[0], offset, length)
            try:
                count = fill(source, view)
            except Exception:
                while writing:
                    settle()
                raise
            if count:
                worker.submit(functools.partial(write, offset, view[:count]))
                writing.append((free.popleft(), count))
            if count < length:
                break
        while writing:
            settle()
    return done
