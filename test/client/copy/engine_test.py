"""The engine: every task once, failures to the caller, nothing left running."""

from __future__ import annotations

import random
import signal
import threading
from collections import deque

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.client.copy import pace
from ovirt_imageio.client.copy.engine import Copier, uninterrupted
from ovirt_imageio.client.copy.plan import COPY, SKIP, ZERO, Rules, Task, plan
from ovirt_imageio.client.copy.queue import Queue
from ovirt_imageio.client.progress import Reporter
from ovirt_imageio.geometry.extent import ZeroExtent

KiB = 1024


class Broken(Exception):
    pass


def task(start: int, action: str = COPY) -> Task:
    return Task(action, start, 1, ((start, 1),))


class ScriptedLane:
    """A lane that keeps two tasks under way, and fails where a test says so."""

    longest = 4

    def __init__(self, log: list, fail=lambda lane, what: None) -> None:
        self.log = log
        self.fail = fail
        self.pending: deque[Task] = deque()
        self.interrupted = threading.Event()
        self.closed = False

    def begin(self, item: Task) -> None:
        self.fail(self, ("begin", item.start))
        self.pending.append(item)

    @property
    def is_busy(self) -> bool:
        return bool(self.pending)

    @property
    def is_full(self) -> bool:
        return len(self.pending) >= 2

    def finish(self) -> Task:
        self.fail(self, ("finish", self.pending[0].start))
        item = self.pending.popleft()
        self.log.append(item.start)
        return item

    def flush(self) -> None:
        assert not self.pending
        self.fail(self, ("flush", 0))
        self.log.append("flush")

    def recover(self, error: errors.Error) -> list[Task]:
        if not isinstance(error, errors.BackendUnavailable):
            raise error
        lost = list(self.pending)
        self.pending.clear()
        return lost

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed = True


def copier(make, workers: int = 1, counts=None, **options) -> Copier:
    options.setdefault("throttle", pace.Throttle(None, wait=lambda seconds: None))
    return Copier(make, workers, Reporter(counts.append if counts is not None else None), **options)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("listers", [0, 1, 2])
def test_everything_is_done_once_then_flushed(workers, listers):
    log: list = []
    counts: list[int] = []
    made: list[ScriptedLane] = []

    def make(moved):
        made.append(ScriptedLane(log))
        return made[-1]

    copier(make, workers, counts, listers=listers).run(task(number) for number in range(500))
    assert sorted(item for item in log if item != "flush") == list(range(500))
    assert log.count("flush") == len(made) <= workers
    assert sum(counts) == 500
    assert all(lane.closed for lane in made)


@pytest.mark.parametrize("workers", [1, 2])
def test_long_list_is_not_kept(workers):
    """It waits for the worker that would have waited for its end."""
    log: list = []
    waiting: list[int] = []

    def tasks():
        for number in range(1000):
            waiting.append(number - len(log))
            yield task(number)

    copier(lambda moved: ScriptedLane(log), workers, listers=1, listed_limit=10).run(tasks())
    assert sorted(item for item in log if item != "flush") == list(range(1000))
    # Those in the queue, in the hands of the workers, and the one that is offered.
    assert max(waiting) <= 10 + 1 + 3 * workers


def test_copies_that_are_too_long_are_cut():
    """But for the first one, for which there was no lane yet; zeroes are never too long."""
    log: list = []
    counts: list[int] = []
    long = [Task(action, start, 10, ((start, 10),)) for action, start in ((COPY, 0), (ZERO, 10), (COPY, 20))]
    copier(lambda moved: ScriptedLane(log), 1, counts).run(long)
    assert log == [0, 10, 20, 24, 28, "flush"]
    assert sum(counts) == 30


def test_order_of_one_worker():
    log: list = []
    copier(lambda moved: ScriptedLane(log)).run(task(number) for number in range(5))
    assert log == [0, 1, 2, 3, 4, "flush"]


def test_skipped_requests_open_nothing():
    counts: list[int] = []

    def make(moved):
        raise AssertionError

    copier(make, 4, counts).run(task(number, SKIP) for number in range(5))
    assert sum(counts) == 5


def test_first_error_of_a_worker_is_raised_and_wakes_the_others():
    lanes_made: list[ScriptedLane] = []
    is_waiting = threading.Event()

    def fail(lane, what):
        if what == ("finish", 0):
            is_waiting.wait(DEADLINE)
            raise Broken("first")
        if what[0] == "finish":
            is_waiting.set()
            assert lane.interrupted.wait(DEADLINE)
            raise errors.OperationCanceled()

    def make(moved):
        lanes_made.append(ScriptedLane([], fail))
        return lanes_made[-1]

    with pytest.raises(Broken, match="first"):
        copier(make, 2).run(task(number) for number in range(1000))
    assert all(lane.closed for lane in lanes_made)


def test_lane_that_is_made_while_another_fails_is_interrupted():
    is_failing = threading.Event()
    is_made = threading.Event()

    class Last(Queue):
        """Closes when the second lane is there."""

        def close(self) -> None:
            is_failing.set()
            assert is_made.wait(DEADLINE)
            super().close()

    def fail(lane, what):
        if lane is lanes_made[0]:
            raise Broken("first")
        is_made.set()
        was_interrupted.append(lane.interrupted.wait(DEADLINE))
        raise errors.OperationCanceled()

    lanes_made: list[ScriptedLane] = []
    was_interrupted: list[bool] = []
    turn = threading.Lock()

    def make(moved):
        with turn:
            if lanes_made:
                assert is_failing.wait(DEADLINE)
            lanes_made.append(ScriptedLane([], fail))
            return lanes_made[-1]

    engine = copier(make, 2)
    engine._queue = Last()
    with pytest.raises(Broken, match="first"):
        engine.run(task(number) for number in range(10))
    assert was_interrupted == [True]


def test_error_of_the_list_is_raised():
    def tasks():
        yield task(0)
        raise Broken("list")

    with pytest.raises(Broken, match="list"):
        copier(lambda moved: ScriptedLane([]), 3).run(tasks())


@pytest.mark.parametrize("kind", [Broken, BrokenPipeError, errors.BackendUnavailable])
def test_error_of_progress_is_raised_and_never_retried(kind):
    calls: list[int] = []

    def update(count):
        calls.append(count)
        raise kind("progress", "x")

    engine = Copier(lambda moved: ScriptedLane([]), 1, Reporter(update), retries=5)
    with pytest.raises(kind, match="progress"):
        engine.run(task(number) for number in range(100))
    assert len(calls) == 1


def test_interrupt_of_the_main_thread_leaves_nothing():
    def tasks():
        yield task(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copier(lambda moved: ScriptedLane([]), 3).run(tasks())


@pytest.mark.parametrize("place", [("begin", 3), ("finish", 3), ("flush", 0)])
def test_lost_connection_loses_nothing(place):
    log: list = []
    left = [3]

    def fail(lane, what):
        if what == place and left[0]:
            left[0] -= 1
            raise errors.BackendUnavailable("copy", "lost")

    counts: list[int] = []
    copier(lambda moved: ScriptedLane(log, fail), 1, counts, retries=3).run(task(number) for number in range(8))
    assert log == [*range(8), "flush"]
    assert sum(counts) == 8


def test_retries_end():
    attempts = []

    def fail(lane, what):
        attempts.append(what)
        raise errors.BackendUnavailable("copy", "lost")

    with pytest.raises(errors.BackendUnavailable):
        copier(lambda moved: ScriptedLane([], fail), retries=4).run([task(0)])
    assert len(attempts) == 5


def test_success_earns_new_retries():
    failed = set()

    def fail(lane, what):
        if what[0] == "finish" and what not in failed:
            failed.add(what)
            raise errors.BackendUnavailable("copy", "lost")

    log: list = []
    copier(lambda moved: ScriptedLane(log, fail), retries=1).run(task(number) for number in range(10))
    assert log == [*range(10), "flush"]


def test_what_cannot_be_recovered_is_raised_at_once():
    def fail(lane, what):
        raise errors.StorageError("copy", "broken")

    with pytest.raises(errors.StorageError, match="broken"):
        copier(lambda moved: ScriptedLane([], fail), retries=100).run([task(0)])


def test_bytes_that_move_again_are_counted_once():
    counts: list[int] = []
    left = [2]

    class Moving(ScriptedLane):
        def __init__(self, moved):
            super().__init__([])
            self.moved = moved

        def begin(self, item):
            self.moved(item.length // 2)
            if left[0]:
                left[0] -= 1
                raise errors.BackendUnavailable("copy", "lost")
            self.moved(item.length - item.length // 2)
            self.pending.append(item)

    items = [Task(COPY, start, 100, ((start, 100),)) for start in range(0, 500, 100)]
    copier(Moving, 1, counts, retries=5).run(items)
    assert sum(counts) == 500


def test_journal_hears_only_of_what_was_flushed():
    log: list = []

    class Journal:
        def record(self, tasks):
            log.append([item.start for item in tasks])

    copier(lambda moved: ScriptedLane(log), journal=Journal(), checkpoint=2).run(task(n) for n in range(5))
    for position, entry in enumerate(log):
        if isinstance(entry, list):
            assert log[position - 1] == "flush"
            assert all(start in log[:position] for start in entry)
    assert sorted(start for entry in log if isinstance(entry, list) for start in entry) == [0, 1, 2, 3, 4]


class MemoryLane(ScriptedLane):
    """Copies between two disks in memory."""

    def __init__(self, source: bytes, destination: bytearray, moved) -> None:
        super().__init__([])
        self._source = source
        self._destination = destination
        self._moved = moved

    def begin(self, task: Task) -> None:
        super().begin(task)
        end = task.start + task.length
        if task.action == COPY:
            self._destination[task.start : end] = self._source[task.start : end]
            self._moved(task.length)
        else:
            self._destination[task.start : end] = bytes(task.length)


@pytest.mark.parametrize("seed", range(5))
def test_copies_a_disk(seed):
    dice = random.Random(seed)
    source, extents = bytearray(), []
    while len(source) < 2 * 1024 * KiB:
        length = dice.randrange(1, 200 * KiB)
        zero = dice.random() < 0.5
        extents.append(ZeroExtent(len(source), length, zero, zero and dice.random() < 0.5))
        source += bytes(length) if zero else dice.randbytes(length)
    destination = bytearray(b"x" * len(source))
    counts: list[int] = []
    engine = copier(lambda moved: MemoryLane(source, destination, moved), 3, counts)
    rules = Rules(max_gap=dice.choice([0, 64 * KiB]), is_gap_written=True)
    engine.run(plan(extents, rules))
    assert destination == source
    assert sum(counts) == len(source)


def test_zero_counts():
    counts: list[int] = []
    disk = bytearray(b"x" * 100)
    engine = copier(lambda moved: MemoryLane(b"", disk, moved), 1, counts)
    engine.run([Task(ZERO, 0, 100, ((0, 100),))])
    assert disk == bytes(100)
    assert sum(counts) == 100


def test_signals_wait_while_threads_start():
    """What starts the threads may be interrupted only before and after; the threads leave signals to others."""
    masks: dict[str, set] = {}

    class Lane(ScriptedLane):
        def begin(self, item: Task) -> None:
            masks["worker"] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            super().begin(item)

    def tasks():
        masks["before"] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        yield task(0)

    copier(lambda moved: Lane([])).run(tasks())
    with uninterrupted():
        masks["inside"] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    masks["after"] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    both = {signal.SIGINT, signal.SIGTERM}
    assert {name: both & mask for name, mask in masks.items()} == {
        "worker": both,
        "before": set(),
        "inside": both,
        "after": set(),
    }
