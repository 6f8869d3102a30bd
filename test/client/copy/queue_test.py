"""The queue: order, limits, the end, and failure."""

from __future__ import annotations

import threading

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.client.copy.queue import Closed, Queue


def test_order_then_end():
    queue: Queue[int] = Queue()
    queue.put(1)
    queue.put(2)
    queue.complete()
    assert [queue.get(), queue.get(), queue.get(), queue.get()] == [1, 2, None, None]


def test_what_is_put_back_is_next():
    queue: Queue[int] = Queue(limit=2)
    queue.put(1)
    queue.put(2)
    queue.complete()
    # It does not wait for room, and a queue that is complete takes it.
    queue.put_back(0)
    assert [queue.get(), queue.get(), queue.get(), queue.get()] == [0, 1, 2, None]
    queue.put_back(3)
    assert queue.get() == 3
    queue.close()
    with pytest.raises(Closed):
        queue.put_back(4)


def test_without_block_there_may_be_nothing_yet():
    queue: Queue[int] = Queue()
    assert queue.get(block=False) is None
    queue.put(1)
    assert queue.get(block=False) == 1


def test_closed():
    queue: Queue[int] = Queue()
    queue.put(1)
    queue.close()
    assert queue.is_closed
    with pytest.raises(Closed):
        queue.get()
    with pytest.raises(Closed):
        queue.put(2)


def test_full_queue_waits_for_room():
    queue: Queue[int] = Queue(limit=1)
    queue.put(1)
    thread = threading.Thread(target=queue.put, args=(2,))
    thread.start()
    assert [queue.get(), queue.get()] == [1, 2]
    thread.join(DEADLINE)
    assert not thread.is_alive()


@pytest.mark.parametrize("method", ["put", "get"])
def test_close_wakes_whoever_waits(method):
    queue: Queue[int] = Queue(limit=1)
    if method == "put":
        queue.put(1)
    ended: list[bool] = []

    def wait() -> None:
        with pytest.raises(Closed):
            queue.put(2) if method == "put" else queue.get()
        ended.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    queue.close()
    thread.join(DEADLINE)
    assert ended == [True]


def test_is_full():
    queue: Queue[int] = Queue(limit=2)
    for number in range(2):
        assert not queue.is_full
        queue.put(number)
    assert queue.is_full
    queue.get()
    assert not queue.is_full
    unlimited: Queue[int] = Queue()
    unlimited.put(1)
    assert not unlimited.is_full
