"""An eager socket looks for what comes soon, but not in vain, and not at the cost of other threads."""

from __future__ import annotations

import functools
import socket
import threading

import pytest

from ovirt_imageio.net import eager as shared
from ovirt_imageio.net.eager import EagerSocket, Processors


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


@pytest.fixture
def processors():
    """Two processors, and no thread at work."""
    return Processors(2)


@pytest.fixture
def eager(processors):
    """Make an EagerSocket that never has to give up."""
    return functools.partial(EagerSocket, processors=processors, seconds=60)


@pytest.fixture
def hasty(processors):
    """Make an EagerSocket that gives up after one look."""
    return functools.partial(EagerSocket, processors=processors, seconds=0)


def test_what_is_here(eager):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"abc")
        assert eager(ours).recv(10) == b"abc"


def test_what_comes_soon(eager):
    sock = Socket(comes_at=5)
    assert eager(sock).recv(2) == b"xx"
    assert sock.looks == 5


def test_end_of_the_stream(eager):
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        assert eager(ours).recv(10) == b""


def test_errors_are_told(eager):
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(BrokenPipeError):
        ours.send(b"x")
    with pytest.raises(OSError):
        eager(ours).recv(10)


def test_nothing_comes(hasty):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert hasty(ours).recv(10) is None


def test_looks_less_often_when_that_is_in_vain(hasty):
    sock = Socket()
    waiting = hasty(sock)
    looked = []
    for number in range(200):
        before = sock.looks
        assert waiting.recv(1) is None
        if sock.looks > before:
            looked.append(number)
    assert looked == [0, 2, 6, 14, 30, 62, 126, 190]


def test_a_success_makes_it_eager_again(hasty):
    sock = Socket(comes_at=2)
    waiting = hasty(sock)
    assert [waiting.recv(1) for _ in range(3)] == [None, None, b"x"]
    assert waiting.recv(1) is None
    assert sock.looks == 3


def test_not_while_another_thread_works(eager, processors):
    thread = threading.Thread(target=processors.begin_work)
    thread.start()
    thread.join()
    sock = Socket(comes_at=1)
    assert eager(sock).recv(1) is None
    processors.begin_work()
    assert eager(sock).recv(1) is None
    assert sock.looks == 0


def test_our_own_work_does_not_count(eager, processors):
    processors.begin_work()
    assert eager(Socket(comes_at=1)).recv(1) == b"x"
    processors.end_work()
    processors.end_work()
    assert eager(Socket(comes_at=1)).recv(1) == b"x"


def test_stops_when_another_thread_begins_to_work(eager, processors):
    class Busy(Socket):
        def recv(self, size: int, flags: int) -> bytes:
            if self.looks == 3:
                processors.workers.add(-1)
            return super().recv(size, flags)

    sock = Busy()
    assert eager(sock).recv(1) is None
    assert sock.looks == 4


def test_one_at_a_time(eager):
    """Also where nothing tells which threads work, as in a client."""
    other = Socket(comes_at=1)

    class Nested(Socket):
        def recv(self, size: int, flags: int) -> bytes:
            assert eager(other).recv(1) is None
            return super().recv(size, flags)

    assert eager(Nested(comes_at=2)).recv(1) == b"x"
    assert other.looks == 0
    assert eager(other).recv(1) == b"x"


def test_not_on_a_single_processor():
    sock = Socket(comes_at=1)
    assert EagerSocket(sock, Processors(1)).recv(1) is None
    assert sock.looks == 0


def test_not_on_a_processor_that_others_share():
    is_shared = True
    processors = Processors(2, lambda: is_shared)
    sock = Socket(comes_at=1)
    waiting = EagerSocket(sock, processors)
    assert waiting.recv(1) is None
    assert sock.looks == 0
    is_shared = False
    assert waiting.recv(1) == b"x"


def test_the_threads_of_this_process():
    """Those that begin to work here are seen by the sockets that are made without processors of their own."""
    sock = Socket(comes_at=1)
    thread = threading.Thread(target=shared.begin_work)
    thread.start()
    thread.join()
    try:
        assert EagerSocket(sock).recv(1) is None
        assert sock.looks == 0
    finally:
        shared.SHARED.workers.discard(thread.ident)
