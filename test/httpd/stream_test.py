from __future__ import annotations

import contextlib
import socket

import pytest
from fakes.sockets import ScriptedSocket, reset, timeout
from fakes.waiting import DEADLINE

from ovirt_imageio.httpd.refusal import ClientGone
from ovirt_imageio.httpd.stream import JOIN_LIMIT, Stream, Timeout


@contextlib.contextmanager
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE)
    with ours, theirs:
        yield Stream(ours, DEADLINE), theirs


def test_receive_takes_what_is_ahead_first():
    stream = Stream(ScriptedSocket([b"second"]), 1)
    stream.ahead = b"first"
    assert [stream.receive() for _ in range(3)] == [b"first", b"second", b""]
    assert stream.is_ended


def test_readinto_takes_what_is_ahead_first():
    stream = Stream(ScriptedSocket([b"cdef"]), 1)
    stream.ahead = b"ab"
    view = memoryview(bytearray(3))
    assert stream.readinto(view[:1]) == 1
    assert stream.readinto(view[1:]) == 1
    assert bytes(view) == b"ab\0"
    assert stream.readinto(view) == 3
    assert bytes(view) == b"cde"
    assert stream.readinto(view[:0]) == 0
    assert not stream.is_ended
    assert stream.readinto(view) == 1
    assert stream.readinto(view) == 0
    assert stream.is_ended


@pytest.mark.parametrize("cuts", [[b"one\r\ntwo\r\nrest"], [b"o", b"ne\r", b"\nt", b"wo\r\nre", b"st"]])
def test_readline(cuts):
    stream = Stream(ScriptedSocket(cuts), 1)
    assert stream.readline(10) == b"one"
    assert stream.readline(10) == b"two"
    assert stream.receive()[:2] == b"re"


def test_readline_limit():
    assert len(Stream(ScriptedSocket([b"a" * 20]), 1).readline(10)) > 10


def test_readline_end():
    stream = Stream(ScriptedSocket([b"a", b"b"]), 1)
    assert stream.readline(10) == b"ab"
    assert stream.is_ended


@pytest.mark.parametrize("read", [lambda s: s.receive(), lambda s: s.readinto(memoryview(bytearray(1)))])
def test_read_failures(read):
    with pytest.raises(Timeout):
        read(Stream(ScriptedSocket([timeout]), 1))
    stream = Stream(ScriptedSocket([reset()]), 1)
    with pytest.raises(ClientGone, match="reset by peer"):
        read(stream)
    assert stream.is_ended


def test_send_in_steps():
    sock = ScriptedSocket(capacity=4)
    Stream(sock, 1).send(b"0123456789")
    assert sock.writes == [b"0123", b"4567", b"89"]


def test_small_parts_leave_in_one_write():
    sock = ScriptedSocket()
    Stream(sock, 1).send_parts([b"head", memoryview(b"body"), b"tail"])
    assert sock.writes == [b"headbodytail"]


@pytest.mark.parametrize("capacity", [1 << 30, 1 << 16, 3, 1])
def test_large_parts(capacity):
    size = JOIN_LIMIT if capacity > 3 else JOIN_LIMIT // 8
    body = bytes(range(256)) * (size // 256)
    sock = ScriptedSocket(capacity=capacity)
    Stream(sock, 1).send_parts([b"head", memoryview(body), b"tail"])
    assert sock.sent == b"head" + body + b"tail"


@pytest.mark.parametrize("send", [lambda s: s.send(b"a"), lambda s: s.send_ahead(b"a")])
def test_send_failures(send):
    sock = ScriptedSocket()
    sock.failure = timeout
    with pytest.raises(ClientGone, match="took nothing for 7 seconds"):
        send(Stream(sock, 7))
    sock.failure = reset()
    with pytest.raises(ClientGone, match="reset"):
        send(Stream(sock, 7))


def test_send_ahead_sends_all():
    sock = ScriptedSocket(capacity=2)
    Stream(sock, 1).send_ahead(b"abcde")
    assert sock.sent == b"abcde"


def test_has_more():
    with pair() as (stream, client):
        assert not stream.has_more()
        client.sendall(b"x")
        assert stream.has_more()
        stream.ahead = b"x"
        assert stream.has_more()
    with pair() as (stream, client):
        client.close()
        assert not stream.has_more()


def test_linger_is_bounded_in_time():
    with pair() as (stream, client):
        stream.linger(0.02, 1 << 20)
        assert client.recv(1) == b""


def test_linger_is_bounded_in_bytes():
    with pair() as (stream, client):
        client.sendall(bytes(100_000))
        # Longer than any test may take.
        stream.linger(1000, 50_000)


@pytest.mark.parametrize("why", ["ended", "aborted"])
def test_linger_not_needed(why):
    with pair() as (stream, client):
        if why == "ended":
            client.close()
            assert stream.receive() == b""
        else:
            stream.abort()
        # Would wait for the client otherwise.
        stream.linger(1000, 1 << 20)
