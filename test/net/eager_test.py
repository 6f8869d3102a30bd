"""Who receives eagerly looks for what comes soon, but not in vain, and not at the cost of others."""

from __future__ import annotations

import socket
import threading

import pytest

from ovirt_imageio.net import eager
from ovirt_imageio.net.eager import EagerSocket


class Socket:
    """A socket on which something comes at the look with this number, counted from 1; 0: nothing ever comes."""

    def __init__(self, comes_at: int = 0) -> None:
        self.comes_at = comes_at
        self.looks = 0

    def recv(self, size: int, flags: int) -> bytes:
        assert flags == socket.MSG_DONTWAIT
        self.looks += 1
        if self.looks != self.comes_at:
            raise BlockingIOError
        return b"x" * size


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nobody works, there is another processor, and time is no limit."""
    monkeypatch.setattr(eager, "workers", set())
    monkeypatch.setattr(eager, "can_look", True)
    monkeypatch.setattr(eager, "SECONDS", 60)


@pytest.fixture
def late(monkeypatch):
    """Every look takes too long."""
    monkeypatch.setattr(eager, "SECONDS", 0)


def test_what_is_here():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"abc")
        assert EagerSocket(ours).recv(10) == b"abc"
        theirs.send(b"abc")
        view = memoryview(bytearray(10))
        assert EagerSocket(ours).recv_into(view) == 3
        assert view[:3] == b"abc"


def test_what_comes_soon():
    sock = Socket(comes_at=5)
    assert EagerSocket(sock).recv(2) == b"xx"
    assert sock.looks == 5


def test_end_of_the_stream():
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        assert EagerSocket(ours).recv(10) == b""


def test_errors_are_told():
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(BrokenPipeError):
        ours.send(b"x")
    with pytest.raises(OSError):
        EagerSocket(ours).recv(10)


def test_nothing_comes(late):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert EagerSocket(ours).recv(10) is None


def test_looks_less_often_when_that_is_in_vain(late):
    sock = Socket()
    waiting = EagerSocket(sock)
    looked = []
    for number in range(200):
        before = sock.looks
        assert waiting.recv(1) is None
        if sock.looks > before:
            looked.append(number)
    assert looked == [0, 2, 6, 14, 30, 62, 126, 190]


def test_a_success_makes_it_eager_again(late):
    sock = Socket(comes_at=2)
    waiting = EagerSocket(sock)
    assert [waiting.recv(1) for _ in range(3)] == [None, None, b"x"]
    assert waiting.recv(1) is None
    assert sock.looks == 3


def test_not_while_another_thread_works():
    thread = threading.Thread(target=eager.begin_work)
    thread.start()
    thread.join()
    sock = Socket(comes_at=1)
    assert EagerSocket(sock).recv(1) is None
    eager.begin_work()
    assert EagerSocket(sock).recv(1) is None
    assert sock.looks == 0


def test_our_own_work_does_not_count():
    eager.begin_work()
    assert EagerSocket(Socket(comes_at=1)).recv(1) == b"x"
    eager.end_work()
    eager.end_work()
    assert EagerSocket(Socket(comes_at=1)).recv(1) == b"x"


def test_stops_when_another_thread_begins_to_work():
    class Busy(Socket):
        def recv(self, size: int, flags: int) -> bytes:
            if self.looks == 3:
                eager.workers.add(-1)
            return super().recv(size, flags)

    sock = Busy()
    assert EagerSocket(sock).recv(1) is None
    assert sock.looks == 4


def test_one_at_a_time():
    """Also where nobody tells what works, as in a client."""
    other = Socket(comes_at=1)

    class Nested(Socket):
        def recv(self, size: int, flags: int) -> bytes:
            assert EagerSocket(other).recv(1) is None
            return super().recv(size, flags)

    assert EagerSocket(Nested(comes_at=2)).recv(1) == b"x"
    assert other.looks == 0
    assert EagerSocket(other).recv(1) == b"x"


def test_not_on_a_single_processor(monkeypatch):
    monkeypatch.setattr(eager, "can_look", False)
    sock = Socket(comes_at=1)
    assert EagerSocket(sock).recv(1) is None
    assert sock.looks == 0
