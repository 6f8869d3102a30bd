"""The kernel's time-outs on a real socket."""

from __future__ import annotations

import errno
import socket

import pytest

from ovirt_imageio.net.timeouts import get_timeout, has_left, is_ready, is_timeout, set_timeout, unsent


@pytest.fixture
def sock():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


@pytest.mark.parametrize("seconds", [0.25, 1, 90.5])
def test_what_is_set_can_be_read(sock, seconds):
    sock.settimeout(1)
    set_timeout(sock, seconds)
    # The kernel counts in ticks of some milliseconds.
    assert get_timeout(sock) == pytest.approx(seconds, abs=0.01)
    assert sock.gettimeout() is None


def test_never_for_ever(sock):
    set_timeout(sock, 0)
    assert get_timeout(sock) > 0


def test_receiving_and_sending_end(sock):
    set_timeout(sock, 0.01)
    with pytest.raises(BlockingIOError) as receiving:
        sock.recv(1)
    with pytest.raises(BlockingIOError) as sending:
        while True:
            sock.send(bytes(100_000))
    assert is_timeout(receiving.value)
    assert is_timeout(sending.value)


def test_what_is_no_timeout():
    assert is_timeout(TimeoutError())
    assert is_timeout(socket.timeout())
    assert not is_timeout(ConnectionResetError(errno.ECONNRESET, "reset"))


def test_unsent():
    ours, theirs = socket.socketpair()
    with theirs:
        assert unsent(ours) == 0
        ours.send(b"x")
        before = unsent(ours)
        assert before > 0
        theirs.recv(1)
        assert unsent(ours) < before
        ours.close()
        assert unsent(ours) == 0


def test_is_ready():
    ours, theirs = socket.socketpair()
    with ours:
        assert not is_ready(ours, 0)
        theirs.send(b"x")
        assert is_ready(ours, 0)
        ours.recv(1)
        theirs.close()
        assert is_ready(ours, 1000)


def test_has_left():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not has_left(ours)
        theirs.sendall(b"more")
        assert not has_left(ours)
        theirs.shutdown(socket.SHUT_WR)
        # Though something is still to be received.
        assert has_left(ours)
        assert not has_left(theirs)
        theirs.close()
        assert has_left(ours)
    assert has_left(ours)
