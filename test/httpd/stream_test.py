from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from fakes.sockets import ScriptedSocket, reset, timeout
from real import certificates

from ovirt_imageio import errors, tls
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.stream import JOIN_LIMIT, Stream, Timeout

DEADLINE = 10.0


@contextlib.contextmanager
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE)
    with ours, theirs:
        yield Stream(ours, DEADLINE), theirs


@contextlib.contextmanager
def secure_pair():
    made = certificates.certificate()
    context = tls.client_context(made.ca_file)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        raw = socket.create_connection(listening.getsockname(), DEADLINE)
        accepted, _ = listening.accept()
    stream = Stream(accepted, DEADLINE)
    client = []

    def shake():
        client.append(context.wrap_socket(raw, server_hostname="localhost"))

    thread = threading.Thread(target=shake)
    thread.start()
    stream.secure(tls.ServerContext(made.cert_file, made.key_file)(), DEADLINE)
    thread.join()
    try:
        yield stream, client[0]
    finally:
        stream.close()
        client[0].close()


BOTH = pytest.mark.parametrize("make", [pair, secure_pair], ids=["plain", "tls"])


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
        view = memoryview(bytearray(16))
        assert stream.readinto(view) == 5
        assert stream.is_tls == (make is secure_pair)


@BOTH
@pytest.mark.parametrize("blocks_in", ["receive", "send"])
def test_abort_wakes(make, blocks_in):
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
            except errors.Error as error:
                failures.append(error)

        thread = threading.Thread(target=block)
        thread.start()
        assert is_running.wait(DEADLINE)
        stream.abort()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert isinstance(failures[0], errors.OperationCanceled)
        assert stream.is_aborted


@BOTH
def test_timeout_is_for_progress(make):
    # Each step is well within the time-out, all of them take several times as long.
    with make() as (stream, client):
        stream.timeout = 0.2
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
                pause.wait(0.025)
        sender.join()


@BOTH
def test_send_times_out(make):
    with make() as (stream, _):
        stream.timeout = 0.05
        with pytest.raises(ClientGone, match="took nothing"):
            while True:
                stream.send(bytes(1 << 20))


@BOTH
def test_linger_lets_the_client_read(make):
    with make() as (stream, client):
        # More than the buffers hold: the client is stuck in sending when it is refused.
        sender = threading.Thread(target=client.sendall, args=(bytes(8 << 20),))
        sender.start()
        stream.send(b"go away")
        thread = threading.Thread(target=stream.linger, args=(DEADLINE, 64 << 20))
        thread.start()
        sender.join()
        client.settimeout(DEADLINE)
        assert client.recv(100) == b"go away"
        assert client.recv(100) == b""
        client.close()
        thread.join(DEADLINE)
        assert not thread.is_alive()


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
        stream.linger(DEADLINE, 50_000)


@pytest.mark.parametrize("why", ["ended", "aborted"])
def test_linger_not_needed(why):
    with pair() as (stream, client):
        if why == "ended":
            client.close()
            assert stream.receive() == b""
        else:
            stream.abort()
        # Would wait for the client otherwise.
        stream.linger(DEADLINE, 1 << 20)


def handshake(client_does, timeout=DEADLINE):
    made = certificates.certificate()
    context = tls.ServerContext(made.cert_file, made.key_file)()
    with pair() as (stream, client):
        client_does(client)
        try:
            stream.secure(context, timeout)
        finally:
            stream.close()


def test_plain_http_on_tls():
    with pytest.raises(Refusal, match="https") as info:
        handshake(lambda client: client.sendall(b"GET / HTTP/1.1\r\n\r\n"))
    assert (info.value.status, info.value.close) == (400, True)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01"])
def test_handshake_never_ends(data):
    with pytest.raises(ClientGone, match=r"longer than 0\.05 seconds"):
        handshake(lambda client: client.sendall(data), timeout=0.05)


def test_handshake_garbage():
    with pytest.raises(ClientGone, match="handshake failed"):
        handshake(lambda client: client.sendall(b"\x16" + b"garbage" * 100))


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01"])
def test_handshake_client_leaves(data):
    def leave(client):
        client.sendall(data)
        client.close()

    with pytest.raises(ClientGone):
        handshake(leave)
