"""Threads in any order keep their promises; and what is broken on purpose is found.

A seed that fails is tried again with the command that the failure tells. `make soak T=interleavings` tries more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import pytest
from interleavings import scenarios
from interleavings.scheduler import Deadlock, Endless, Scheduler

from ovirt_imageio import errors
from ovirt_imageio.auth import cutter, lease, links
from ovirt_imageio.auth import store as stores
from ovirt_imageio.auth import transfer as transfers
from ovirt_imageio.client.copy import engine
from ovirt_imageio.client.copy import queue as queues
from ovirt_imageio.relay import buffers, ring, worker
from ovirt_imageio.storage import shared

# Some seconds in all.
SEEDS = 80

# What is planted is found by the first few seeds; this many are tried.
PLANTED_SEEDS = 3000


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_any_order(name):
    for seed in range(SEEDS):
        try:
            scenarios.run(scenarios.SCENARIOS[name], seed)
        except BaseException as error:
            raise AssertionError(f"again: make soak T='interleavings {name} --seed {seed}'") from error


def test_a_seed_repeats_what_happened():
    for name, scenario in scenarios.SCENARIOS.items():
        first, second = (scenarios.run(scenario, 5).trace for _ in range(2))
        assert first == second, name
        assert first != scenarios.run(scenario, 6).trace


# --- What is planted --------------------------------------------------------------------------------------------------


class NoLock:
    """A lock that was forgotten."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return True

    def release(self) -> None:
        pass

    def locked(self) -> bool:
        return True

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc_info: object) -> None:
        pass


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def without_lock(module: ModuleType) -> scenarios.Change:
    """Return what lets a module have locks that do not lock."""

    def change(scheduler: Scheduler) -> contextlib.AbstractContextManager[object]:
        return replaced(module, "threading", SimpleNamespace(**{**vars(scheduler.threading), "Lock": NoLock}))

    return change


def changed(owner: Any, name: str, value: Any) -> scenarios.Change:
    return lambda scheduler: replaced(owner, name, value)


def a_take_that_looks_first(scheduler: Scheduler) -> contextlib.AbstractContextManager[object]:
    def take(self):
        buffer = self._idle[-1] if self._idle else buffers.aligned(self.size)
        scheduler.switch()
        self._idle = [other for other in self._idle if other is not buffer]
        return buffer

    return replaced(buffers.Pool, "take", take)


def end_without_lock(self, link):
    books = self._books
    is_over = books._state is not lease.State.OPEN
    backends = books.links.take_backends([link], self._clock()) if is_over else []
    self.describe_state()
    link.is_in_use = False
    with self._lock:
        books._settle()
    self._close(backends)


def tick_that_decides_too_late(self):
    books = self._books
    with self._lock:
        is_attended = books.tick(self._clock())
        books._is_attended = True
    self.describe_state()
    books._is_attended = is_attended
    return is_attended


def put_that_does_not_tell(self, item):
    with self._lock:
        if self.is_full:
            self._has_room.wait_for(self._is_half_empty)
        if self._is_closed:
            raise queues.Closed
        self._items.append(item)


def close_that_forgets_who_adds(self):
    with self._lock:
        self._is_closed = True
        self._has_news.notify_all()


def exit_without_join(self, *exc_info):
    if self._thread is not None:
        self._is_stopping = True
        self._calls.put(None)


def fail_that_interrupts_nothing(self, error):
    with self._lock:
        if self._error is None:
            self._error = error
    self._queue.close()
    self._throttle.stop()


@contextlib.contextmanager
def locked_by_looking(self, offset, length):
    start, count = shared.blocks.span(offset, length, shared.GRAIN)
    claim = shared.Claim(start, start + count, shared.blocks.shared_blocks(offset, length, shared.GRAIN))
    with self._changed:
        self._changed.wait_for(lambda: not any(map(claim.excludes, self._claims)))
    self._claims.append(claim)
    try:
        yield
    finally:
        with self._changed:
            self._claims.remove(claim)
            self._changed.notify_all()


def observer_that_calls_back(self, *what):
    with contextlib.suppress(errors.Error):
        self.store.states()


@contextlib.contextmanager
def a_call_under_the_lock(scheduler):
    """Lets what is told that an operation ended ask the store, which asks the transfer that is locked."""
    make = scenarios.World.__init__

    def init(self, *args, **options):
        make(self, *args, **options)
        self.tally.store = self.store

    with (
        replaced(scenarios.World, "__init__", init),
        replaced(scenarios.Tally, "operation_finished", observer_that_calls_back),
    ):
        yield


PLANTED = MappingProxyType(
    {
        "no lock in transfers": ("remove", without_lock(transfers)),
        "no lock in the store": ("replace_twice", without_lock(stores)),
        "no lock in the queue": ("queue", without_lock(queues)),
        "no lock in the tally of progress": ("write_behind", without_lock(ring)),
        "no lock in the pool of buffers": ("pool", without_lock(buffers)),
        "a buffer is lent that was only looked at": ("pool", a_take_that_looks_first),
        "blocks are locked by looking": ("blocks", changed(shared.Shared, "locked", locked_by_looking)),
        "the end of a use takes no lock": ("remove_twice", changed(transfers.Transfer, "end", end_without_lock)),
        "what is in use counts as idle": ("remove", changed(links.Links, "idle", lambda self: [*self._links.values()])),
        "a transfer calls out under its lock": ("remove", a_call_under_the_lock),
        "the watchdog forgets what just began": (
            "crowd",
            changed(transfers.Transfer, "tick", tick_that_decides_too_late),
        ),
        "what only waits for the storage is cut": (
            "remove",
            changed(cutter.Cutter, "_may_be_cut", lambda self, running, now: True),
        ),
        "a change does not wait for an older one": (
            "crowd",
            changed(links.Links, "find_overlapping", lambda self, operation: set()),
        ),
        "a put that wakes no consumer": ("queue", changed(queues.Queue, "put", put_that_does_not_tell)),
        "a close that wakes no producer": ("queue", changed(queues.Queue, "close", close_that_forgets_who_adds)),
        "a worker that is not joined": ("read_ahead", changed(worker.Worker, "__exit__", exit_without_join)),
        "writes that are not awaited": ("write_behind", changed(ring, "settle", lambda writing: None)),
        "a lane that no failure reaches": ("copy", changed(engine.Copier, "fail", fail_that_interrupts_nothing)),
    }
)


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(name):
    scenario, change = PLANTED[name]
    for seed in range(PLANTED_SEEDS):
        try:
            scenarios.run(scenarios.SCENARIOS[scenario], seed, change)
        except Exception:
            return
    raise AssertionError(f"{PLANTED_SEEDS} seeds did not find it")


# --- The scheduler itself ---------------------------------------------------------------------------------------------


def test_a_deadlock_is_found_at_once():
    """Two locks, taken in two orders."""
    found = 0
    for seed in range(50):
        scheduler = Scheduler(seed)
        locks = [scheduler.threading.Lock() for _ in range(2)]

        def take(first, second):
            with first, second:
                pass

        def main(scheduler=scheduler, locks=locks):
            threads = [
                scheduler.threading.Thread(target=take, args=(locks[0], locks[1]), name="up"),
                scheduler.threading.Thread(target=take, args=(locks[1], locks[0]), name="down"),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        try:
            scheduler.run(main)
        except Deadlock as error:
            assert "up waits for a lock; down waits for a lock" in str(error)
            found += 1
    assert 0 < found < 50


def test_circles_are_found():
    scheduler = Scheduler(1)

    def main():
        while True:
            scheduler.sleep(1)

    with pytest.raises(Endless):
        scheduler.run(main)


def test_time_passes_only_for_a_wait_that_times_out():
    scheduler = Scheduler(1)

    def main():
        event = scheduler.threading.Event()
        assert not event.wait(7)
        assert scheduler.now == 1007
        event.set()
        assert event.wait(7)
        assert scheduler.now == 1007

    scheduler.run(main)


def test_an_error_in_a_thread_is_raised():
    scheduler = Scheduler(1)

    def fail():
        raise KeyError("planted")

    def main():
        thread = scheduler.threading.Thread(target=fail)
        thread.start()
        thread.join()

    with pytest.raises(KeyError, match="planted"):
        scheduler.run(main)
