"""A stream, plain and with TLS: what it receives ahead, how it ends, and that every failure has its owner's name."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest
from fakes.sockets import ScriptedSocket, reset, timeout
from fakes.tlspair import tls_pair
from fakes.waiting import DEADLINE, wait_until
from real import certificates

from ovirt_imageio.net import tls
from ovirt_imageio.net.stream import JOIN_LIMIT, Stream, describe
from ovirt_imageio.net.timeouts import get_timeout


class Failure(Exception):
    """What the owner makes of a failure: its name, and what the stream told of it."""


class Failures:
    def late(self, is_sending, seconds):
        return Failure("late", is_sending, seconds)

    def broken(self, is_sending, reason):
        return Failure("broken", is_sending, reason)

    def interrupted(self):
        return Failure("interrupted")


def scripted(pieces=(), seconds=7, **options):
    sock = ScriptedSocket(pieces, **options)
    return Stream(sock, seconds, Failures()), sock


@contextlib.contextmanager
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE)
    with ours, theirs:
        yield Stream(ours, DEADLINE, Failures()), theirs


def secure_pair():
    def shake(stream, context):
        stream.start_tls(context, time.monotonic() + DEADLINE, server_side=True)

    return tls_pair(lambda sock: Stream(sock, DEADLINE, Failures()), shake)


BOTH = pytest.mark.parametrize("make", [pair, secure_pair], ids=["plain", "tls"])


def buffer(size):
    return memoryview(bytearray(size))


def fails(action):
    """Return what the failure is called."""
    with pytest.raises(Failure) as info:
        action()
    return info.value.args


def test_receive_takes_what_is_ahead_first():
    stream, _ = scripted([b"second"])
    stream.ahead = b"first"
    assert [stream.receive() for _ in range(3)] == [b"first", b"second", b""]
    assert stream.is_ended


def test_readinto_takes_what_is_ahead_first():
    stream, _ = scripted([b"cdef"])
    stream.ahead = b"ab"
    view = buffer(3)
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
    assert stream.received == 4


@pytest.mark.parametrize("ahead", [b"", b"abc", b"abcdefgh", b"abcdefghij"])
def test_fill(ahead):
    rest = b"abcdefghijkl"[len(ahead) :]
    stream, _ = scripted([rest[:1], rest[1:]])
    stream.ahead = ahead
    view = buffer(8)
    assert stream.fill(view) == 8
    assert bytes(view) == b"abcdefgh"
    assert stream.fill(view) == 4
    assert bytes(view[:4]) == b"ijkl"
    assert stream.fill(view) == 0


@pytest.mark.parametrize("cuts", [[b"one\r\ntwo\r\nrest"], [b"o", b"ne\r", b"\nt", b"wo\r\nre", b"st"]])
def test_read_until(cuts):
    stream, _ = scripted(cuts)
    assert stream.read_until(b"\r\n", 10) == b"one"
    assert stream.read_until(b"\r\n", 10) == b"two"
    assert stream.receive()[:2] == b"re"


def test_read_until_limit():
    stream, _ = scripted([b"a" * 20])
    assert len(stream.read_until(b"\r\n", 10)) > 10


@pytest.mark.parametrize("pieces", [[], [b"a", b"b"], [b"a\r"]])
def test_read_until_the_end(pieces):
    stream, _ = scripted(pieces)
    assert stream.read_until(b"\r\n", 10) is None
    assert stream.is_ended


RECEIVES = pytest.mark.parametrize(
    "receive",
    [
        lambda stream: stream.receive(),
        lambda stream: stream.readinto(buffer(1)),
        lambda stream: stream.fill(buffer(1)),
        lambda stream: stream.read_until(b"x", 10),
    ],
    ids=["receive", "readinto", "fill", "read_until"],
)


@RECEIVES
def test_receive_failures(receive):
    stream, _ = scripted([timeout])
    assert fails(lambda: receive(stream)) == ("late", False, 7)
    # It may only be late.
    assert not stream.is_ended
    stream, _ = scripted([reset()])
    assert fails(lambda: receive(stream)) == ("broken", False, "Connection reset by peer")
    assert stream.is_ended


SENDS = pytest.mark.parametrize(
    "send",
    [
        lambda stream: stream.send(b"a"),
        lambda stream: stream.send_parts([b"a", b"b"]),
        lambda stream: stream.send_parts([b"a", bytes(JOIN_LIMIT)]),
        lambda stream: stream.send_ahead(b"a"),
    ],
    ids=["send", "small parts", "large parts", "ahead"],
)


@SENDS
def test_send_failures(send):
    stream, sock = scripted()
    sock.failure = timeout
    assert fails(lambda: send(stream)) == ("late", True, 7)
    assert stream.is_ended
    stream, sock = scripted()
    sock.failure = reset()
    assert fails(lambda: send(stream)) == ("broken", True, "Connection reset by peer")
    assert stream.is_ended


def test_send_in_steps():
    stream, sock = scripted(capacity=4)
    stream.send(b"0123456789")
    assert sock.writes == [b"0123", b"4567", b"89"]


def test_small_parts_leave_in_one_write():
    stream, sock = scripted()
    stream.send_parts([b"head", memoryview(b"body"), b"tail"])
    assert sock.writes == [b"headbodytail"]


@pytest.mark.parametrize("capacity", [1 << 30, 1 << 16, 3, 1])
def test_large_parts(capacity):
    size = JOIN_LIMIT if capacity > 3 else JOIN_LIMIT // 8
    body = bytes(range(256)) * (size // 256)
    stream, sock = scripted(capacity=capacity)
    stream.send_parts([b"head", memoryview(body), b"tail"])
    assert sock.sent == b"head" + body + b"tail"


def test_send_ahead_sends_all():
    stream, sock = scripted(capacity=2)
    stream.send_ahead(b"abcde")
    assert sock.sent == b"abcde"


@BOTH
def test_both_directions(make):
    data = bytes(range(256)) * 4096
    with make() as (stream, client):
        sender = threading.Thread(target=stream.send_parts, args=([b"head", memoryview(data)],))
        sender.start()
        received = b""
        while len(received) < 4 + len(data):
            received += client.recv(65536)
        sender.join()
        assert received == b"head" + data
        client.sendall(b"hello")
        view = buffer(16)
        assert stream.readinto(view) == 5
        assert stream.is_tls == (make is secure_pair)
        assert (stream.socket is None) == stream.is_tls


@BOTH
def test_fill_from_a_peer_that_sends_in_pieces(make):
    data = bytes(range(256)) * 4096
    with make() as (stream, client):

        def send():
            for start in range(0, len(data), 10_000):
                client.sendall(data[start : start + 10_000])

        sender = threading.Thread(target=send)
        sender.start()
        view = buffer(len(data))
        assert stream.fill(view) == len(data)
        assert view == data
        sender.join()
        assert stream.received == len(data)


@BOTH
@pytest.mark.parametrize("blocks_in", ["receive", "send"])
def test_interrupt_wakes(make, blocks_in):
    with make() as (stream, _):
        is_running = threading.Event()
        failures = []

        def block():
            try:
                is_running.set()
                if blocks_in == "receive":
                    stream.receive()
                else:
                    while True:
                        stream.send(bytes(1 << 20))
            except Failure as error:
                failures.append(error.args)

        thread = threading.Thread(target=block)
        thread.start()
        assert is_running.wait(DEADLINE)
        stream.interrupt()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert failures == [("interrupted",)]
        assert stream.is_interrupted
        # Later, too.
        assert fails(stream.receive) == fails(lambda: stream.send(b"x")) == ("interrupted",)


def test_interrupt_and_close_are_harmless_later():
    with pair() as (stream, _):
        stream.close()
        stream.close()
        stream.interrupt()
        assert fails(stream.receive) == ("interrupted",)


@pytest.mark.slow
@BOTH
def test_timeout_is_for_progress(make):
    # All steps take longer than the time-out; each is so far within it that a busy machine does not miss it.
    with make() as (stream, client):
        stream.timeout = 1.5
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        size = 4 << 20
        sender = threading.Thread(target=stream.send, args=(bytes(size),))
        sender.start()
        received = slept = 0
        pause = threading.Event()
        while received < size:
            received += len(client.recv(256 * 1024))
            if received > slept:
                slept += 256 * 1024
                pause.wait(0.1)
        sender.join()


@BOTH
def test_time_outs(make):
    with make() as (stream, client):
        stream.timeout = 0.02
        assert fails(stream.receive) == ("late", False, 0.02)
        # It was only late.
        client.sendall(b"hello")
        stream.timeout = DEADLINE
        assert stream.receive() == b"hello"
        stream.timeout = 0.05

        def send():
            while True:
                stream.send(bytes(1 << 20))

        assert fails(send) == ("late", True, 0.05)


def test_others_find_the_time_out_in_the_plain_socket():
    with pair() as (stream, _):
        stream.timeout = 2.5
        assert get_timeout(stream.socket) == stream.timeout == 2.5


@BOTH
def test_has_input(make):
    with make() as (stream, client):
        assert not stream.has_input()
        client.sendall(b"one")
        wait_until(stream.has_input)
        assert stream.ahead == b"one"
        assert stream.has_input()
        assert stream.receive() == b"one"
        assert not stream.has_input()
        client.close()
        wait_until(stream.has_input)
        assert stream.receive() == b""


@BOTH
def test_is_ready(make):
    with make() as (stream, client):
        assert not stream.is_ready()
        client.sendall(b"two")
        wait_until(stream.is_ready)
        view = buffer(1)
        stream.readinto(view)
        assert stream.is_ready()
        stream.readinto(buffer(2))
        assert not stream.is_ready()
        stream.ahead = b"x"
        assert stream.is_ready()


def test_look():
    with pair() as (stream, client):
        assert not stream.look(10)
        client.sendall(b"hello")
        # After a look in vain the next one is left out.
        assert not stream.look(10)
        assert stream.look(3)
        assert stream.ahead == b"hel"
        assert stream.receive() + stream.receive() == b"hello"


def test_look_at_the_end():
    with pair() as (stream, client):
        client.close()
        assert stream.look(10)
        assert stream.is_ended
        assert stream.receive() == b""


@BOTH
def test_send_some(make):
    size = 64 << 20
    data = memoryview(bytes(size))
    with make() as (stream, client):
        sent = 0
        while count := stream.send_some(data[sent : sent + 100_000]):
            sent += count
        assert sent < size
        received = 0
        while sent < size:
            received += len(client.recv(100_000))
            sent += stream.send_some(data[sent : sent + 100_000])
        while received < size:
            received += len(client.recv(100_000))
        assert received == size
        client.close()

        def send():
            while True:
                stream.send_some(b"x")

        assert fails(send)[:2] == ("broken", True)


@BOTH
def test_end(make):
    with make() as (stream, client):
        if stream.is_tls:
            client.suppress_ragged_eofs = False
        stream.end()
        assert client.recv(1) == b""


def test_end_too_late():
    with pair() as (stream, _):
        stream.close()
        assert fails(stream.end)[:2] == ("broken", True)


def test_activity():
    with pair() as (stream, client):
        before = stream.activity()
        stream.send(b"hello")
        # It was not taken.
        assert stream.activity() <= before
        client.recv(10)
        assert stream.activity() > before
        before = stream.activity()
        client.send(b"hello")
        stream.receive()
        assert stream.activity() == before + 5
        stream.note_moved(10)
        assert stream.activity() == before + 15


def test_more_than_one_record_at_once():
    # What OpenSSL has decrypted already is not on the socket: no thread may wait for it there.
    with secure_pair() as (stream, client):
        client.sendall(b"x" * 16384)
        view = buffer(1000)
        received = 0
        while received < 16384:
            received += stream.readinto(view)
        assert received == 16384


def test_in_the_clear_before_the_handshake():
    with pair() as (stream, client):
        client.sendall(b"helloworld")
        assert stream.readinto(buffer(5)) == 5
        assert stream.receive() == b"world"
        stream.send(b"go away")
        assert client.recv(100) == b"go away"


def test_handshake_raises_what_happened():
    made = certificates.certificate()
    with pair() as (stream, client):
        client.sendall(b"garbage" * 100)
        context = tls.ServerContext(made.cert_file, made.key_file)()
        with pytest.raises(ssl.SSLError) as info:
            stream.start_tls(context, time.monotonic() + DEADLINE, server_side=True)
        assert not stream.is_tls
        assert "[" not in describe(info.value)


def test_describe():
    assert describe(reset()) == "Connection reset by peer"
    assert describe(OSError("text")) == "text"
    assert describe(OSError()) == "the connection was closed"
