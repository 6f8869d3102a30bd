"""The copy engine: a queue of tasks, and workers that each have a lane to move them on.

    extents ──plan──> queue ──> worker ── lane ── source, destination
                            └─> worker ── lane ── source, destination

A lane is one connection to each side, on which several tasks may be under way. Knows neither URLs nor images: what
a lane is, its maker decides.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Callable, Optional, Protocol

from ovirt_imageio import errors
from ovirt_imageio.client.copy import pace, plan
from ovirt_imageio.client.copy.plan import Task
from ovirt_imageio.client.copy.queue import Closed, Queue
from ovirt_imageio.client.progress import Reporter

__all__ = ["Copier", "Lane", "OpenLane", "Recorder", "uninterrupted"]

log = logging.getLogger(__name__)

# Tasks that wait: enough to keep workers busy, few enough to keep a long list of extents out of memory.
QUEUE_LIMIT = 64

# ... while what lists them keeps the connections of workers. Those start with other connections when more wait: a list
# may be longer than memory.
LISTED_LIMIT = 100_000

# With a journal, a worker flushes and notes what is safe when this many bytes moved, or this time passed, since it did.
CHECKPOINT = 256 * 1024**2
CHECKPOINT_SECONDS = 5.0


class Lane(Protocol):
    """One way for tasks: a source and a destination.

    Threads: one, but for `interrupt`.
    """

    def begin(self, task: Task) -> None:
        """Begin a task; it may stay under way."""

    @property
    def is_busy(self) -> bool:
        """Is a task under way?"""

    @property
    def is_full(self) -> bool:
        """Must one end before another one begins?"""

    @property
    def longest(self) -> int:
        """How long a copy may be that begins now: a slow connection should not have long ones."""

    def finish(self) -> Task:
        """Wait for the oldest task under way, and return it."""

    def flush(self) -> None:
        """Make everything that ended survive a power failure."""

    def recover(self, error: errors.Error) -> list[Task]:
        """Be usable again after an error, and return the tasks under way. Raises the error if that is in vain."""

    def interrupt(self) -> None:
        """Make whatever blocks fail soon. Threads: any."""

    def close(self) -> None:
        """Release everything."""


class Recorder(Protocol):
    """Is told what is safely in the destination. Threads: any."""

    def record(self, tasks: Iterable[Task]) -> None:
        """Note that tasks are done and flushed."""


# Returns a new lane; what it is called with reports bytes that move, and raises to stop them.
OpenLane = Callable[[Callable[[int], None]], Lane]


class Copier:
    """One copy from beginning to end.

    `open_lane` makes the lane of a worker when it has its first task. A task that fails with an error from which
    the lane can recover is tried again, up to `retries` times without success in between. With a journal, what is done
    is flushed and noted now and then. What lists the tasks may use connections that workers will need: as
    many as `listers` start when all is listed, or when `listed_limit` tasks wait.

    Threads: `run` by one; it starts and ends all others.
    """

    def __init__(
        self,
        open_lane: OpenLane,
        workers: int,
        reporter: Reporter,
        *,
        throttle: Optional[pace.Throttle] = None,
        retries: int = 0,
        journal: Optional[Recorder] = None,
        listers: int = 0,
        checkpoint: Optional[int] = None,
        listed_limit: int = LISTED_LIMIT,
        now: Callable[[], float] = time.monotonic,
        name: str = "copy",
    ) -> None:
        assert workers > 0
        self._open_lane = open_lane
        self._reporter = reporter
        self._throttle = throttle or pace.Throttle(None)
        self._retries = retries
        self._journal = journal
        self._checkpoint = CHECKPOINT if checkpoint is None else checkpoint
        self._now = now
        self._queue: Queue[Task] = Queue(listed_limit if listers else QUEUE_LIMIT)
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}/{number}", daemon=True) for number in range(workers)
        ]
        self._late = self._threads[:listers]
        # Guards what follows.
        self._lock = threading.Lock()
        self._lanes: list[Lane] = []
        self._error: Optional[BaseException] = None

    def run(self, tasks: Iterable[Task]) -> None:
        """Carry out the tasks, and flush. Raises the first error of any thread; then nothing is left running."""
        try:
            self._start(self._threads[len(self._late) :])
            with contextlib.suppress(Closed):
                self._plan(tasks)
                self._start_late()
            self._join()
        except BaseException as error:  # KeyboardInterrupt too: nothing may be left behind.
            self.fail(error)
            self._join()
        if self._error is not None:
            raise self._error

    def _plan(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            if task.action == plan.SKIP:
                self.check()
                self._reporter.update(task.size)
            else:
                if self._queue.is_full:
                    self._start_late()
                self._queue.put(task)
        self._queue.complete()

    def _start_late(self) -> None:
        late, self._late = self._late, []
        self._start(late)

    def _start(self, threads: list[threading.Thread]) -> None:
        with uninterrupted():
            for thread in threads:
                thread.start()

    def _join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def fail(self, error: BaseException) -> None:
        """Stop everything because of an error, of which the first one counts. Threads: any."""
        with self._lock:
            if self._error is None:
                self._error = error
        self._queue.close()
        # A lane that is not there yet finds the queue closed.
        with self._lock:
            lanes = list(self._lanes)
        self._throttle.stop()
        for lane in lanes:
            lane.interrupt()

    # In a worker.

    def _work(self) -> None:
        try:
            first = self._queue.get()
            if first is not None:
                count = WorkerCount(self, self._reporter, self._throttle)
                with self._lane(count.move) as lane:
                    self._carry_out(lane, first, count)
        except Closed:
            pass
        except BaseException as error:  # Raised again by run().
            self.fail(error)

    @contextlib.contextmanager
    def _lane(self, moved: Callable[[int], None]) -> Iterator[Lane]:
        lane = self._open_lane(moved)
        try:
            with self._lock:
                self._lanes.append(lane)
            # A failure that did not reach this lane has closed the queue.
            self.check()
            yield lane
        finally:
            with self._lock:
                self._lanes.remove(lane)
            lane.close()

    def _carry_out(self, lane: Lane, first: Task, count: WorkerCount) -> None:
        """Move tasks until there are no more, then flush."""
        todo: list[Task] = [first]
        unsafe = Unsafe(self._checkpoint if self._journal else None, self._now)
        pauses = pace.backoff(self._retries)
        while True:
            # What is under way must end before a flush.
            is_checkpoint = unsafe.is_due()
            try:
                if not is_checkpoint:
                    self._fill(lane, todo)
                done = lane.finish() if lane.is_busy else None
                if done is None:
                    lane.flush()
            except errors.Error as error:
                self.check()
                pause = next(pauses, None)
                if pause is None:
                    raise
                todo[:0] = lane.recover(error)
                count.start_over()
                log.warning("Trying again in %.1f seconds: %s", pause, error)
                self._throttle.pause(pause)
                self.check()
                continue
            pauses = pace.backoff(self._retries)
            if done is not None:
                count.finish(done)
                unsafe.append(done)
                continue
            if self._journal is not None:
                self._journal.record(unsafe.take())
            if not is_checkpoint:
                return

    def _fill(self, lane: Lane, todo: list[Task]) -> None:
        """Begin as many tasks as the lane takes."""
        while not lane.is_full:
            if not todo:
                task = self._queue.get(block=not lane.is_busy)
                if task is None:
                    return
                # Never one that was lost: its bytes are counted here.
                if task.action == plan.COPY and task.length > lane.longest:
                    task, rest = plan.cut(task, lane.longest)
                    self._queue.put_back(rest)
                todo.append(task)
            # It stays there if it cannot begin.
            lane.begin(todo[0])
            del todo[0]

    def check(self) -> None:
        """Raise errors.OperationCanceled if something failed. Threads: any."""
        if self._queue.is_closed:
            raise errors.OperationCanceled()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the with block.

    An exception within Thread.start() can leave a lock of the thread taken: it would never run, and join() would never
    return. Threads that are started here leave these signals to others.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


class WorkerCount:
    """Counts the bytes of one worker: when they move, but each only once.

    Threads: one.
    """

    def __init__(self, copier: Copier, reporter: Reporter, throttle: pace.Throttle) -> None:
        self._copier = copier
        self._reporter = reporter
        self._throttle = throttle
        # What was reported of tasks that have not ended, and how much of that will move once more.
        self._ahead = 0
        self._again = 0

    def move(self, count: int) -> None:
        """Count bytes that moved, and wait if that was too fast; raises OperationCanceled to stop."""
        self._copier.check()
        repeated = min(count, self._again)
        self._again -= repeated
        self._ahead += count - repeated
        self._report(count - repeated)
        self._throttle.take(count)
        self._copier.check()

    def finish(self, task: Task) -> None:
        """Count what is left of a task that ended: zeroes do not move."""
        known = min(self._ahead, task.size)
        self._ahead -= known
        self._report(task.size - known)

    def _report(self, count: int) -> None:
        """Tell the caller's progress; what that raises ends the copy, and is never taken for a lost connection."""
        try:
            self._reporter.update(count)
        except BaseException as error:  # Raised again by run().
            self._copier.fail(error)
            raise errors.OperationCanceled() from error

    def start_over(self) -> None:
        """Note that what is under way will move again."""
        self._again = self._ahead


class Unsafe:
    """The tasks that ended since the last flush. Without a limit they are not kept.

    Threads: one.
    """

    def __init__(self, limit: Optional[int], now: Callable[[], float]) -> None:
        self._limit = limit
        self._now = now
        self._tasks: list[Task] = []
        self._size = 0
        self._since = now()

    def append(self, task: Task) -> None:
        """Add a task that ended."""
        if self._limit is not None:
            self._tasks.append(task)
            self._size += task.size

    def is_due(self) -> bool:
        """Is it time to flush?"""
        if self._limit is None or not self._tasks:
            return False
        return self._size >= self._limit or self._now() - self._since >= CHECKPOINT_SECONDS

    def take(self) -> list[Task]:
        """Return the tasks, and forget them."""
        tasks, self._tasks = self._tasks, []
        self._size = 0
        self._since = self._now()
        return tasks
