"""Threads that do brief things in turn are put on one processor, and let go before they do anything else."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import pytest

from ovirt_imageio.net import crowd as shared
from ovirt_imageio.net.crowd import STAY, Crowd, Scheduler

EVERYWHERE = (0, 1, 2, 3)

# Enough for an average to follow.
ROUNDS = 40


class FakeScheduler(Scheduler):
    """A kernel that runs any thread on `here`, and forbids to move threads when `is_forbidden`."""

    def __init__(self, processors: Collection[int] = EVERYWHERE) -> None:
        self._processors = processors
        self.here = 2
        self.is_forbidden = False
        self.moves = 0
        # Where each thread may run.
        self.places: dict[int, tuple[int, ...]] = {}

    def allowed(self) -> Collection[int]:
        return self.places.get(threading.get_ident(), self._processors)

    def current(self) -> int:
        return self.here

    def move(self, processors: Collection[int]) -> None:
        self.moves += 1
        if self.is_forbidden:
            raise PermissionError("Operation not permitted")
        self.places[threading.get_ident()] = tuple(processors)


class House:
    """Some threads, which do what they are told, one after the other."""

    def __init__(self, crowd: Crowd, scheduler: FakeScheduler, threads: list[ThreadPoolExecutor]) -> None:
        self.crowd = crowd
        self._scheduler = scheduler
        self._threads = threads

    def settle(self, index: int, now: float = 0, *, is_brief: bool = True) -> None:
        self._threads[index].submit(self.crowd.settle, is_brief=is_brief, now=now).result()

    def be_busy(self, threads: int, now: float = 0) -> None:
        """Let the first threads do brief things in turn."""
        for _ in range(ROUNDS):
            for index in range(threads):
                self.settle(index, now)

    def joined(self) -> list[bool]:
        """Which threads say that they are in the crowd."""
        return [thread.submit(self.crowd.has_joined).result() for thread in self._threads]

    def places(self) -> list[tuple[int, ...]]:
        """Where each thread may run."""
        idents = [thread.submit(threading.get_ident).result() for thread in self._threads]
        return [self._scheduler.places.get(ident, EVERYWHERE) for ident in idents]


@pytest.fixture
def scheduler():
    """Four processors."""
    return FakeScheduler()


@pytest.fixture
def house(scheduler):
    """Four threads, and their crowd."""
    with contextlib.ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(4)]
        yield House(Crowd(scheduler), scheduler, threads)


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_a_crowd_gathers(house, threads):
    house.be_busy(threads)
    assert house.places() == [(2,)] * threads + [EVERYWHERE] * (4 - threads)


def test_one_stays_where_it_is(house, scheduler):
    house.be_busy(1)
    assert scheduler.moves == 0


def test_a_thread_leaves_for_what_takes_longer(house):
    house.be_busy(4)
    house.settle(0, is_brief=False)
    assert house.places() == [EVERYWHERE, (2,), (2,), (2,)]
    assert house.joined() == [False, True, True, True]


def test_a_thread_comes_back(house):
    house.be_busy(4)
    house.settle(0, is_brief=False)
    house.be_busy(4)
    assert house.places() == [(2,)] * 4


def test_the_last_one_leaves(house):
    house.be_busy(4)
    house.be_busy(1)
    assert house.places()[0] == EVERYWHERE


def test_a_thread_that_was_away_for_long(house, scheduler):
    house.be_busy(1)
    house.settle(3)
    house.settle(3)
    assert scheduler.moves == 0


def test_it_follows_the_kernel(house, scheduler):
    house.be_busy(4)
    scheduler.here = 3
    house.settle(0, STAY)
    assert house.places() == [EVERYWHERE, (2,), (2,), (2,)]
    house.settle(1, STAY)
    assert house.places() == [EVERYWHERE, (2,), (2,), (2,)]
    house.settle(0, STAY)
    house.settle(1, STAY)
    assert house.places() == [(3,), (3,), (2,), (2,)]


def test_one_that_was_let_go_does_not_come_back(house, scheduler):
    house.be_busy(4)
    scheduler.here = 3
    house.settle(0, STAY)
    house.settle(1, 2 * STAY)
    house.settle(1, 2 * STAY)
    assert house.places() == [EVERYWHERE, (3,), (2,), (2,)]


def test_a_thread_in_a_crowd_is_not_moved_again(house, scheduler):
    house.be_busy(4)
    moves = scheduler.moves
    house.be_busy(4)
    assert scheduler.moves == moves == 4


def test_forbidden(house, scheduler, caplog):
    caplog.set_level("INFO")
    scheduler.is_forbidden = True
    house.be_busy(4)
    assert house.places() == [EVERYWHERE] * 4
    # It is tried once, and what was done is undone.
    assert scheduler.moves == 2
    assert caplog.messages == ["Threads are not moved to one processor: Operation not permitted"]


def test_forbidden_later(house, scheduler):
    house.be_busy(4)
    scheduler.is_forbidden = True
    house.be_busy(4, STAY)
    house.settle(0, is_brief=False)
    house.be_busy(4, STAY)


def test_nowhere_to_go():
    scheduler = FakeScheduler((5,))
    with contextlib.ExitStack() as stack:
        house = House(Crowd(scheduler), scheduler, [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(4)])
        house.be_busy(4)
    assert scheduler.moves == 0


def test_no_crowd_to_leave(house, scheduler):
    house.settle(0, is_brief=False)
    assert scheduler.moves == 0


def test_the_kernel():
    scheduler = Scheduler()
    with ThreadPoolExecutor(1) as thread:
        allowed = thread.submit(scheduler.allowed).result()
        current = thread.submit(scheduler.current).result()
        thread.submit(scheduler.move, (current,)).result()
        assert thread.submit(scheduler.current).result() == current
        assert thread.submit(scheduler.allowed).result() == {current}
        thread.submit(scheduler.move, allowed).result()
        assert thread.submit(scheduler.allowed).result() == allowed
    # Other threads stay where they are.
    assert os.sched_getaffinity(0) == allowed


def test_this_process():
    shared.settle(is_brief=True, now=0)
    shared.leave()
    assert not shared.has_joined()
