"""What both kinds of streams do, and what only TLS needs."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from fakes.sockets import timeout
from fakes.waiting import DEADLINE, wait_until
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.secure import SecureStream
from ovirt_imageio.httpd.stream import Stream, Timeout
from ovirt_imageio.net import tls
from ovirt_imageio.net.timeouts import unsent


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
    stream = SecureStream(accepted, DEADLINE)
    client = []

    def shake():
        client.append(context.wrap_socket(raw, server_hostname="localhost"))

    thread = threading.Thread(target=shake)
    thread.start()
    assert stream.handshake(tls.ServerContext(made.cert_file, made.key_file)(), DEADLINE)
    thread.join()
    try:
        yield stream, client[0]
    finally:
        stream.close()
        client[0].close()


BOTH = pytest.mark.parametrize("make", [pair, secure_pair], ids=["plain", "tls"])


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


def test_slow_client_is_not_a_dead_one():
    # The kernel sees room when a third of its buffer is free: a slow client needs many time-outs for that.
    with secure_pair() as (stream, client):
        stream.timeout = 0.01
        turns = list(range(5))

        class Reluctant:
            """Has no room any more, once its buffer is full; meanwhile the client reads, five times."""

            fileno = stream.socket.fileno
            is_full = False

            def send(self, data):
                if not self.is_full:
                    try:
                        return sock.send(data)
                    except BlockingIOError:
                        self.is_full = True
                if turns:
                    turns.pop()
                    before = unsent(self)
                    while unsent(self) >= before:
                        client.recv(16 * 1024)
                raise timeout

            def close(self):
                sock.close()

        sock, stream._sock = stream.socket, Reluctant()
        with pytest.raises(ClientGone, match="took nothing"):
            while True:
                stream.send(bytes(1 << 20))
        # It was waited for as long as it read.
        assert not turns


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


def handshake(client_does, timeout=DEADLINE):
    made = certificates.certificate()
    context = tls.ServerContext(made.cert_file, made.key_file)()
    ours, theirs = socket.socketpair()
    stream = SecureStream(ours, DEADLINE)
    with theirs:
        client_does(theirs)
        try:
            return stream.handshake(context, timeout)
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


def leave(client):
    client.close()


def test_client_leaves_without_a_word():
    # Somebody looks whether the port is open, every few seconds.
    assert handshake(leave) is False


def test_client_leaves_in_the_handshake():
    def hesitate(client):
        client.sendall(b"\x16\x03\x01")
        client.close()

    with pytest.raises(ClientGone):
        handshake(hesitate)


def test_handshake_aborted():
    with pytest.raises(errors.OperationCanceled):
        made = certificates.certificate()
        ours, theirs = socket.socketpair()
        with theirs:
            stream = SecureStream(ours, DEADLINE)
            theirs.sendall(b"\x16\x03\x01")
            stream.abort()
            try:
                stream.handshake(tls.ServerContext(made.cert_file, made.key_file)(), DEADLINE)
            finally:
                stream.close()


def test_in_the_clear_before_the_handshake():
    ours, theirs = socket.socketpair()
    with theirs:
        stream = SecureStream(ours, DEADLINE)
        theirs.sendall(b"helloworld")
        assert stream.readinto(memoryview(bytearray(5))) == 5
        assert stream.receive() == b"world"
        stream.timeout = 0.02
        with pytest.raises(Timeout):
            stream.receive()
        stream.send(b"go away")
        assert theirs.recv(100) == b"go away"
        assert not stream.is_tls
        stream.close()


def test_receive_times_out():
    with secure_pair() as (stream, client):
        stream.timeout = 0.02
        with pytest.raises(Timeout):
            stream.receive()
        # It was only late.
        client.sendall(b"hello")
        stream.timeout = DEADLINE
        assert stream.receive() == b"hello"


def test_more_than_one_record_at_once():
    # What OpenSSL has decrypted already is not on the socket: nobody may wait for it there.
    with secure_pair() as (stream, client):
        client.sendall(b"x" * 16384)
        view = memoryview(bytearray(1000))
        received = 0
        while received < 16384:
            received += stream.readinto(view)
        assert received == 16384


def test_has_more():
    with secure_pair() as (stream, client):
        assert not stream.has_more()
        # Two records; neither waits for the other to be acknowledged.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"one")
        client.sendall(b"two")
        assert stream.receive() == b"one"
        wait_until(stream.has_more)
        assert stream.receive() == b"two"
        assert not stream.has_more()


def test_goodbye():
    with secure_pair() as (stream, client):
        client.suppress_ragged_eofs = False
        stream.say_goodbye()
        assert client.recv(10) == b""
