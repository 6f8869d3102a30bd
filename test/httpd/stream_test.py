"""What a client's connection has beside its stream: what failures are called, the TLS handshake, and a polite end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from fakes.sockets import ScriptedSocket, reset, timeout
from fakes.tlspair import tls_pair
from fakes.waiting import DEADLINE, wait_until
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.stream import Timeout, handshake, has_more, linger, open_stream, say_goodbye
from ovirt_imageio.net import tls


@contextlib.contextmanager
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE)
    with ours, theirs:
        yield open_stream(ours, DEADLINE), theirs


def secure_pair():
    def shake_hands(stream, context):
        assert handshake(stream, context, DEADLINE)

    return tls_pair(lambda sock: open_stream(sock, DEADLINE), shake_hands)


BOTH = pytest.mark.parametrize("make", [pair, secure_pair], ids=["plain", "tls"])


def test_failures():
    with pytest.raises(Timeout):
        open_stream(ScriptedSocket([timeout]), 1).receive()
    with pytest.raises(ClientGone, match="reset by peer"):
        open_stream(ScriptedSocket([reset()]), 1).receive()
    sock = ScriptedSocket()
    sock.failure = timeout
    with pytest.raises(ClientGone, match="took nothing for 7 seconds"):
        open_stream(sock, 7).send(b"x")
    with pair() as (stream, _):
        stream.interrupt()
        with pytest.raises(errors.OperationCanceled):
            stream.receive()


def test_has_more():
    with pair() as (stream, client):
        assert not has_more(stream)
        client.sendall(b"x")
        assert has_more(stream)
        stream.ahead = b"x"
        assert has_more(stream)
    with pair() as (stream, client):
        client.close()
        assert not has_more(stream)


def test_has_more_over_tls():
    with secure_pair() as (stream, client):
        assert not has_more(stream)
        # Two records; neither waits for the other to be acknowledged.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"one")
        client.sendall(b"two")
        assert stream.receive() == b"one"
        wait_until(lambda: has_more(stream))
        assert stream.receive() == b"two"
        assert not has_more(stream)


def test_linger_is_bounded_in_time():
    with pair() as (stream, client):
        linger(stream, 0.02, 1 << 20)
        assert client.recv(1) == b""


def test_linger_is_bounded_in_bytes():
    with pair() as (stream, client):
        client.sendall(bytes(100_000))
        # Longer than any test may take.
        linger(stream, 1000, 50_000)


@pytest.mark.parametrize("why", ["ended", "interrupted"])
def test_linger_not_needed(why):
    with pair() as (stream, client):
        if why == "ended":
            client.close()
            assert stream.receive() == b""
        else:
            stream.interrupt()
        # Would wait for the client otherwise.
        linger(stream, 1000, 1 << 20)


@BOTH
def test_linger_lets_the_client_read(make):
    with make() as (stream, client):
        # More than the buffers hold: the client is stuck in sending when it is refused.
        sender = threading.Thread(target=client.sendall, args=(bytes(8 << 20),))
        sender.start()
        stream.send(b"go away")
        thread = threading.Thread(target=linger, args=(stream, DEADLINE, 64 << 20))
        thread.start()
        sender.join()
        client.settimeout(DEADLINE)
        assert client.recv(100) == b"go away"
        assert client.recv(100) == b""
        client.close()
        thread.join(DEADLINE)
        assert not thread.is_alive()


@BOTH
def test_goodbye(make):
    with make() as (stream, client):
        if stream.is_tls:
            client.suppress_ragged_eofs = False
        say_goodbye(stream)
        assert client.recv(10) == b""


def shake(client_does, timeout=DEADLINE):
    made = certificates.certificate()
    context = tls.ServerContext(made.cert_file, made.key_file)()
    ours, theirs = socket.socketpair()
    stream = open_stream(ours, DEADLINE)
    with theirs, contextlib.closing(stream):
        client_does(theirs)
        return handshake(stream, context, timeout)


def test_plain_http_on_tls():
    with pytest.raises(Refusal, match="https") as info:
        shake(lambda client: client.sendall(b"GET / HTTP/1.1\r\n\r\n"))
    assert (info.value.status, info.value.close) == (400, True)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01"])
def test_handshake_never_ends(data):
    with pytest.raises(ClientGone, match=r"longer than 0\.05 seconds"):
        shake(lambda client: client.sendall(data), timeout=0.05)


def test_handshake_that_drips():
    """A byte now and then does not make it longer."""
    is_over = threading.Event()
    threads = []

    def drip(client):
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        until = time.monotonic() + DEADLINE

        def run():
            with contextlib.suppress(OSError):
                while not is_over.wait(0.02) and time.monotonic() < until:
                    client.send(b"\x03")

        threads.append(threading.Thread(target=run))
        threads[0].start()

    try:
        with pytest.raises(ClientGone, match=r"longer than 0\.2 seconds"):
            shake(drip, timeout=0.2)
    finally:
        is_over.set()
        threads[0].join()


def test_handshake_garbage():
    with pytest.raises(ClientGone, match="handshake failed"):
        shake(lambda client: client.sendall(b"\x16" + b"garbage" * 100))


def test_client_leaves_without_a_word():
    # A monitor looks whether the port is open, every few seconds.
    assert shake(lambda client: client.close()) is False


def test_client_leaves_in_the_handshake():
    def hesitate(client):
        client.sendall(b"\x16\x03\x01")
        client.close()

    with pytest.raises(ClientGone):
        shake(hesitate)


def test_handshake_interrupted():
    made = certificates.certificate()
    context = tls.ServerContext(made.cert_file, made.key_file)()
    with pair() as (stream, client):
        client.sendall(b"\x16\x03\x01")
        stream.interrupt()
        with pytest.raises(errors.OperationCanceled):
            handshake(stream, context, DEADLINE)


def test_timeout_after_the_handshake():
    with secure_pair() as (stream, _):
        stream.timeout = 0.02
        with pytest.raises(Timeout):
            stream.receive()
