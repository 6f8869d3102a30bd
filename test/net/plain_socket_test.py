"""A plain socket waits as long as it may, in both directions, and tells the kernel only what has changed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from fakes.sockets import ScriptedSocket, timeout
from fakes.waiting import DEADLINE

from ovirt_imageio.net.plain_socket import SMALL, PlainSocket
from ovirt_imageio.net.timeouts import get_timeout, unsent


@contextlib.contextmanager
def pair(seconds=DEADLINE):
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE)
    with ours, theirs:
        yield PlainSocket(ours, seconds), theirs


def buffer(size):
    return memoryview(bytearray(size))


def test_both_directions():
    with pair() as (plain, peer):
        assert plain.send(b"hello") == 5
        assert plain.send_ahead(b" wor") == 4
        assert plain.send_parts([b"ld", b"!"]) == 3
        assert peer.recv(100) == b"hello world!"
        peer.sendall(b"abcdefgh")
        assert plain.recv(1) == b"a"
        assert plain.recv(1, is_eager=False) == b"b"
        assert plain.eager.recv(1) == b"c"
        assert plain.recv_until(time.monotonic() + DEADLINE, 1) == b"d"
        view = buffer(2)
        assert (plain.recv_into(view), bytes(view)) == (2, b"ef")
        assert (plain.fill(view), bytes(view)) == (2, b"gh")
        assert plain.pending() == 0
        peer.close()
        assert plain.recv(1) == b""
        assert plain.fill(view) == 0


def test_fill_waits_for_all():
    with pair() as (plain, peer):
        thread = threading.Thread(target=lambda: [peer.send(bytes([number])) for number in range(200)])
        thread.start()
        view = buffer(200)
        assert plain.fill(view) == 200
        assert bytes(view) == bytes(range(200))
        thread.join()


def test_fill_returns_what_came_in_time():
    with pair(0.05) as (plain, peer):
        peer.send(b"abc")
        assert plain.fill(buffer(10)) == 3
        with pytest.raises(BlockingIOError):
            plain.fill(buffer(7))


def test_time_runs_out():
    with pair() as (plain, _):
        plain.timeout = 0.01
        for receive in (lambda: plain.recv(1), lambda: plain.recv_into(buffer(1)), lambda: plain.fill(buffer(1))):
            with pytest.raises(BlockingIOError):
                receive()


def test_deadline():
    with pair() as (plain, peer):
        with pytest.raises(BlockingIOError):
            plain.recv_until(time.monotonic() + 0.01, 1)
        with pytest.raises(TimeoutError):
            plain.recv_until(time.monotonic() - 1, 1)
        # Nothing but a deadline ends a wait that may last for ever.
        plain.timeout = None
        with pytest.raises(BlockingIOError):
            plain.recv_until(time.monotonic() + 0.01, 1)
        # The time-out is what it was.
        plain.timeout = DEADLINE
        peer.send(b"x")
        assert plain.recv(1) == b"x"
        assert get_timeout(plain.sock) == DEADLINE


def test_others_find_the_time_out():
    with pair() as (plain, _):
        plain.timeout = 0.25
        assert get_timeout(plain.prepare()) == pytest.approx(0.25, abs=0.01)


def test_the_kernel_is_told_once():
    told = []

    class Counting(ScriptedSocket):
        def setsockopt(self, level, name, value):
            told.append(name)

    plain = PlainSocket(Counting([b"x"] * 10), 1)
    told.clear()
    plain.recv(1)
    plain.timeout = 2
    plain.recv(1)
    plain.recv_into(buffer(1))
    assert told == [socket.SO_RCVTIMEO]
    plain.send(b"x")
    plain.send(b"x")
    assert told == [socket.SO_RCVTIMEO, socket.SO_SNDTIMEO]


def test_without_waiting():
    with pair() as (plain, peer):
        plain.flags = socket.MSG_DONTWAIT
        for receive in (lambda: plain.recv(1), lambda: plain.recv_into(buffer(1))):
            with pytest.raises(BlockingIOError):
                receive()
        with pytest.raises(BlockingIOError):
            while True:
                plain.send(bytes(SMALL + 1))
        with pytest.raises(BlockingIOError):
            while True:
                plain.send(b"x")
        plain.flags = 0
        plain.timeout = 0.01
        # It waits again.
        with pytest.raises(BlockingIOError):
            plain.send(b"x")
        peer.sendall(b"x")
        plain.flags = socket.MSG_DONTWAIT
        assert plain.recv(1) == b"x"


def test_a_slow_peer_is_not_a_dead_one():
    """The kernel sees room when a third of its buffer is free: a slow peer needs many time-outs for that."""
    turns = list(range(5))
    with pair() as (plain, peer):

        class Reluctant:
            """Has no room, and each time the peer reads a little meanwhile, five times."""

            def fileno(self):
                return sock.fileno()

            def sendmsg(self, parts):
                return self.send(b"".join(parts))

            def send(self, data, flags=0):
                if turns:
                    turns.pop()
                    before = unsent(sock)
                    while unsent(sock) >= before:
                        peer.recv(16 * 1024)
                raise timeout

        sock = plain.sock
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(4096))
        plain.sock = Reluctant()
        with pytest.raises(BlockingIOError):
            plain.send(bytes(SMALL + 1))
        # It was waited for as long as it read.
        assert not turns
        turns[:] = range(3)
        with pytest.raises(BlockingIOError):
            plain.send_parts([bytes(SMALL), b"x"])
        assert not turns


def test_end():
    with pair() as (plain, peer):
        plain.end()
        assert peer.recv(1) == b""
        peer.send(b"x")
        assert plain.recv(1) == b"x"
