"""Connections that are opened before they are needed: each is given once, or closed; none is waited for in vain."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio import errors
from ovirt_imageio.client.ahead import Ahead
from ovirt_imageio.net.lifeline import Lifeline


class Connection:
    """One that knows whether it was closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Server:
    """Opens a connection when it is told to, or fails."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.opened: list[Connection] = []
        self.asked = 0
        self._lock = threading.Lock()

    def open(self, line: Lifeline) -> Connection:
        with self._lock:
            self.asked += 1
        with line.waking(lambda: self.orders.put(False)):
            if not self.orders.get(timeout=DEADLINE):
                raise errors.BackendUnavailable("open", "not now")
        connection = Connection()
        self.opened.append(connection)
        return connection


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def test_all_are_opened_at_once(server):
    ahead = Ahead(3, server.open)
    wait_until(lambda: server.asked == 3)
    for _ in range(3):
        server.orders.put(True)
    taken = {ahead.take(Lifeline()) for _ in range(3)}
    assert taken == set(server.opened)
    assert ahead.take(Lifeline()) is None
    ahead.close()
    assert not any(connection.is_closed for connection in taken)


def test_none(server):
    ahead = Ahead(0, server.open)
    assert ahead.take(Lifeline()) is None
    ahead.close()


def test_those_that_nobody_took_are_closed(server):
    ahead = Ahead(2, server.open)
    server.orders.put(True)
    taken = ahead.take(Lifeline())
    server.orders.put(True)
    wait_until(lambda: len(server.opened) == 2)
    ahead.close()
    ahead.close()
    assert [connection.is_closed for connection in server.opened] == [False, True]
    assert taken is server.opened[0]
    assert ahead.take(Lifeline()) is None


def test_what_is_being_opened_in_the_end_may_be_opened(server, pool):
    """A server would complain of clients that leave amid the handshake."""
    ahead = Ahead(2, server.open, patience=DEADLINE)
    wait_until(lambda: server.asked == 2)
    closing = pool.submit(ahead.close)
    for _ in range(2):
        server.orders.put(True)
    closing.result(DEADLINE)
    assert [connection.is_closed for connection in server.opened] == [True, True]


def test_what_hangs_in_the_end_is_cut(server):
    ahead = Ahead(2, server.open, patience=0.01)
    wait_until(lambda: server.asked == 2)
    ahead.close()
    assert server.opened == []


def test_one_that_fails_leaves_it_to_the_caller(server, pool):
    ahead = Ahead(2, server.open)
    waiting = [pool.submit(ahead.take, Lifeline()) for _ in range(2)]
    server.orders.put(False)
    server.orders.put(True)
    results = [future.result(DEADLINE) for future in waiting]
    assert sorted(map(bool, results)) == [False, True]
    ahead.close()


def test_a_caller_that_has_none_to_expect_does_not_wait(server, pool):
    ahead = Ahead(1, server.open)
    results: queue.SimpleQueue[object] = queue.SimpleQueue()
    waiting = [pool.submit(lambda: results.put(ahead.take(Lifeline()))) for _ in range(2)]
    assert results.get(timeout=DEADLINE) is None
    server.orders.put(True)
    assert results.get(timeout=DEADLINE) is server.opened[0]
    for future in waiting:
        future.result(DEADLINE)
    ahead.close()


def test_a_wait_is_canceled(server, pool):
    ahead = Ahead(1, server.open)
    line = Lifeline()
    waiting = pool.submit(ahead.take, line)
    line.cut()
    with pytest.raises(errors.OperationCanceled):
        waiting.result(DEADLINE)
    # It stays cut.
    with pytest.raises(errors.OperationCanceled):
        ahead.take(line)
    server.orders.put(True)
    assert ahead.take(Lifeline()) is server.opened[0]
    ahead.close()
