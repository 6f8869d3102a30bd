"""How bytes move: a source, a sink, and the ways between them.

    source ──> slot ──> sink        bytes that pass through us: TLS, or data that must be looked at
    source ──> pipe ──> sink        bytes that stay in the kernel: both ends are plain descriptors

Knows descriptors and views; knows nothing of disks, protocols and HTTP.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import os
import queue
import select
import socket as sockets
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Callable, Generic, NoReturn, Optional, Protocol, TypeVar

__all__ = ["Pipe", "Progress", "Sink", "Source", "Tally", "Worker", "fill", "read_ahead", "write_behind"]

T = TypeVar("T")

# How many reads, or writes, are under way at once: most disks serve two faster than one after the other.
READERS = 2
WRITERS = 2

# Python gained splice() in 3.10, and with it this constant, which not every system names.
SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)

# Called with the number of bytes moved since the last call, at least once per MiB; it may raise, to stop the move.
# Calls come one at a time, but maybe from another thread than the one that started the move.
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
    begun is dropped, and the thread has ended. Without calls there is no thread.

    Threads: one, the owner.
    """

    def __init__(self, name: str) -> None:
        # Calls, then None; and what came of each: the result, or the error.
        self._calls: queue.SimpleQueue[Optional[Callable[[], T]]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
        self._is_stopping = False
        self._name = name
        self._thread: Optional[threading.Thread] = None

    def submit(self, call: Callable[[], T]) -> None:
        """Let the thread make a call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(call)

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
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._thread is not None:
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

    `read(slot, offset, length)` reads into a slot, and returns the part of it that holds the data; threads call it at
    the same time. A piece that is shorter than it should be is the last.
    """
    done = 0
    todo = iter(pieces)
    free = deque(slots)
    reading: deque[tuple[memoryview, int, Callable[[], memoryview]]] = deque()
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker[memoryview]("read-ahead")) for _ in range(READERS)]
        turns = itertools.cycle(workers)
        is_first = True
        while True:
            while free and (piece := next(todo, None)):
                slot = free.popleft()
                take: Callable[[], memoryview] = functools.partial(read, slot, *piece)
                if not is_first:
                    worker = next(turns)
                    worker.submit(take)
                    take = worker.result
                # We read the first piece, while others read the next: short ranges need no thread.
                is_first = False
                reading.append((slot, piece[1], take))
            if not reading:
                return done
            slot, length, take = reading.popleft()
            view = take()
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


class Pipe:
    """A pipe in the kernel, through which bytes go from one plain socket to another one without being copied.

        if Pipe.is_supported:
            pipe = Pipe()
            while pipe.fill(source, count):
                pipe.drain(sink, progress)

    Sockets with a time-out do not block under Python's hood: then we wait for them, as long as their time-out says.
    Both ends raise OSError, TimeoutError when nothing moves in time; then what is in the pipe is lost: close it.

    Threads: one.
    """

    is_supported = hasattr(os, "splice")

    def __init__(self, size: int = 1024 * 1024) -> None:
        self._read_end, self._write_end = os.pipe()
        self._level = 0
        # Where this user may not have so much, the default of 64 KiB works as well, in smaller steps.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._write_end, SET_PIPE_SIZE, size)

    def __len__(self) -> int:
        """How many bytes are in the pipe."""
        return self._level

    def fill(self, source: sockets.socket, count: int) -> int:
        """Move bytes into the empty pipe, up to `count`, once there are some; return how many, 0 at the end."""
        assert self._level == 0, "a full pipe would block for ever"
        self._level = self._splice(source, select.POLLIN, source.fileno(), self._write_end, count)
        return self._level

    def gather(self, source: sockets.socket, count: int) -> int:
        """Move `count` bytes into the empty pipe, less if the source ends or the pipe is full; return how many."""
        self.fill(source, count)
        while 0 < self._level < count:
            try:
                moved = os.splice(source.fileno(), self._write_end, count - self._level, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                if is_ready(source, select.POLLIN, 0):
                    break  # so it is the pipe that has no room
                wait(source, select.POLLIN)
                continue
            if moved == 0:
                break
            self._level += moved
        return self._level

    def drain(self, sink: sockets.socket, progress: Progress) -> None:
        """Move all that is in the pipe to the sink; `progress` is told of each part."""
        while self._level:
            moved = self._splice(sink, select.POLLOUT, self._read_end, sink.fileno(), self._level)
            self._level -= moved
            progress(moved)

    def _splice(self, sock: sockets.socket, event: int, source: int, target: int, count: int) -> int:
        """Splice once, after waiting for the socket if it does not block by itself."""
        while True:
            try:
                return os.splice(source, target, count)
            except BlockingIOError:
                if sock.gettimeout() is None:
                    # It has waited already, as long as the kernel was told.
                    raise TimeoutError(errno.ETIMEDOUT, "Nothing moved in time") from None
                wait(sock, event)

    def close(self) -> None:
        """Close both ends; harmless when repeated."""
        for end in {self._read_end, self._write_end} - {-1}:
            os.close(end)
        self._read_end = self._write_end = -1
        self._level = 0


def wait(sock: sockets.socket, event: int) -> None:
    """Wait until the socket is ready, as long as its time-out says; raises TimeoutError."""
    if not is_ready(sock, event, sock.gettimeout()):
        raise TimeoutError(errno.ETIMEDOUT, "Nothing moved in time")


def is_ready(sock: sockets.socket, event: int, timeout: Optional[float]) -> bool:
    """Return True if the socket is ready, broken or at its end within `timeout` seconds; None waits for ever."""
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(None if timeout is None else timeout * 1000))
