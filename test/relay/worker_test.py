"""A thread that makes calls."""

from __future__ import annotations

import threading

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.relay import Worker


def test_worker_calls_in_order_in_another_thread():
    calls = []
    with Worker[int]("test") as worker:
        for number in range(100):
            worker.submit(lambda number=number: calls.append((number, threading.current_thread().name)) or number)
        assert [worker.result() for _ in range(100)] == list(range(100))
    assert calls == [(number, "test") for number in range(100)]


def test_worker_works_while_its_owner_does_something_else():
    begun, may_end = threading.Event(), threading.Event()
    with Worker[bool]("test") as worker:
        worker.submit(lambda: begun.set() or may_end.wait(DEADLINE))
        assert begun.wait(DEADLINE)
        may_end.set()
        assert worker.result()


def test_worker_stops_at_an_error():
    calls = []

    def fail():
        raise RuntimeError("failed")

    with Worker[None]("test") as worker:
        worker.submit(lambda: calls.append(1))
        worker.submit(fail)
        worker.submit(lambda: calls.append(2))
        worker.result()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="failed"):
                worker.result()
    assert calls == [1]


def test_worker_drops_what_was_not_begun():
    calls = []
    begun, may_end = threading.Event(), threading.Event()
    with pytest.raises(RuntimeError), Worker[object]("test") as worker:
        worker.submit(lambda: begun.set() or may_end.wait(DEADLINE))
        for number in range(10):
            worker.submit(lambda number=number: calls.append(number))
        assert begun.wait(DEADLINE)
        # It ends only after the with block has told it to stop.
        threading.Timer(0.01, may_end.set).start()
        raise RuntimeError
    assert calls == []


def test_worker_without_work_has_no_thread():
    with Worker[None]("test"):
        assert not any(thread.name == "test" for thread in threading.enumerate())
