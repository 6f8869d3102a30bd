"""Locks of the blocks that several writers share."""

from __future__ import annotations

import gc
import threading

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.storage.shared import GRAIN, Shared, shared_by


class Holder:
    """A thread that holds the lock of a range until it is told to let go."""

    def __init__(self, shared, offset, length):
        self.has = threading.Event()
        self.may_leave = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(shared, offset, length))
        self._thread.start()

    def _run(self, shared, offset, length):
        with shared.locked(offset, length):
            self.has.set()
            assert self.may_leave.wait(DEADLINE)

    def leave(self):
        self.may_leave.set()
        self._thread.join()


@pytest.fixture
def hold():
    """Make holders that end with the test."""
    holders = []

    def make(*args):
        holder = Holder(*args)
        holders.append(holder)
        return holder

    yield make
    for holder in holders:
        holder.may_leave.set()
    for holder in holders:
        holder.leave()


@pytest.mark.parametrize(
    "first,second",
    [
        ((0, GRAIN), (0, GRAIN)),  # Whole blocks: their writers know what they do.
        ((0, 100), (GRAIN, 100)),
        ((0, GRAIN + 100), (GRAIN * 2, 100)),
    ],
)
def test_no_shared_block_no_waiting(hold, first, second):
    shared = Shared()
    assert hold(shared, *first).has.wait(DEADLINE)
    assert hold(shared, *second).has.wait(DEADLINE)


@pytest.mark.parametrize(
    "first,second",
    [
        ((0, 100), (100, 100)),
        ((0, GRAIN + 1), (GRAIN + 1, GRAIN)),
        ((GRAIN - 1, 2), (0, GRAIN - 1)),
        ((GRAIN - 1, 2), (GRAIN + 1, 10 * GRAIN)),
        # A part, and the whole: the part is written with what the rest of the block was before.
        ((0, 100), (0, GRAIN)),
        ((0, GRAIN), (0, 100)),
        ((5 * GRAIN, 100), (0, 10 * GRAIN)),
        ((0, 10 * GRAIN), (5 * GRAIN + 100, 100)),
    ],
)
def test_shared_block_waits(hold, first, second):
    shared = Shared()
    holder = hold(shared, *first)
    assert holder.has.wait(DEADLINE)
    waiting = hold(shared, *second)
    assert not waiting.has.wait(0.02)
    holder.leave()
    assert waiting.has.wait(DEADLINE)


def test_who_waits_for_two_blocks_holds_none(hold):
    shared = Shared()
    last = hold(shared, 10 * GRAIN, 1)
    assert last.has.wait(DEADLINE)
    both = hold(shared, 1, 10 * GRAIN)
    assert not both.has.wait(0.02)
    # Its first block is free for others.
    first = hold(shared, 0, 1)
    assert first.has.wait(DEADLINE)


def test_error_unlocks():
    shared = Shared()
    with pytest.raises(RuntimeError), shared.locked(0, 1):
        raise RuntimeError
    with shared.locked(0, 1):
        pass


def test_one_object_for_one_disk():
    first = shared_by((1, 2))
    assert shared_by((1, 2)) is first
    assert shared_by((1, 3)) is not first


def test_forgotten_when_nobody_has_the_disk_open():
    shared_by((1, 2)).unsupported.add("something")
    gc.collect()
    assert shared_by((1, 2)).unsupported == set()
