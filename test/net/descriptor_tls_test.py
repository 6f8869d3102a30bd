"""TLS by OpenSSL on the socket itself: it is what is left when the kernel does not take the keys."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time

import pytest
from fakes.waiting import DEADLINE, wait_until
from real import certificates

from ovirt_imageio.net import tls
from ovirt_imageio.net.descriptor_tls import DescriptorTLS
from ovirt_imageio.net.plain_socket import PlainSocket
from ovirt_imageio.net.timeouts import is_timeout


def server_on(sock, seconds=DEADLINE):
    made = certificates.certificate()
    context = tls.ServerContext(made.cert_file, made.key_file)()
    return DescriptorTLS(PlainSocket(sock, seconds), context, server_side=True)


@contextlib.contextmanager
def tcp():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname(), DEADLINE)
        ours, _ = listening.accept()
    with ours, theirs:
        yield ours, theirs


@contextlib.contextmanager
def pair():
    """Our end, a server, and the client as Python has it."""
    with tcp() as (ours, theirs):
        context = tls.client_context(certificates.certificate().ca_file)
        clients = []
        thread = threading.Thread(
            target=lambda: clients.append(context.wrap_socket(theirs, server_hostname="localhost"))
        )
        thread.start()
        server = server_on(ours)
        server.handshake(time.monotonic() + DEADLINE)
        thread.join(DEADLINE)
        (client,) = clients
        with client, contextlib.closing(server):
            yield server, client


def view(size):
    return memoryview(bytearray(size))


def test_both_ways():
    with pair() as (server, client):
        assert server.encryption == "openssl"
        assert "GCM" in server.cipher or "CHACHA20" in server.cipher
        client.sendall(b"hello")
        assert server.recv(3) == b"hel"
        assert server.pending() == 2
        into = view(10)
        assert server.recv_into(into) == 2
        assert server.send(b"world") == 5
        assert server.send_parts([b"", b"!"]) == 1
        assert server.send_ahead(b"?") == 1
        assert b"".join(client.recv(1) for _ in range(7)) == b"world!?"
        assert server.recv_into(view(0)) == 0


def test_large():
    data = os.urandom(3 * 1024**2 + 1)
    with pair() as (server, client):
        received = bytearray()

        def read():
            while len(received) < len(data):
                received.extend(client.recv(1024**2))
            client.sendall(data)

        thread = threading.Thread(target=read)
        thread.start()
        left = memoryview(data)
        while left:
            left = left[server.send(left) :]
        back = bytearray()
        into = view(1024**2)
        while len(back) < len(data):
            back += into[: server.recv_into(into)]
        thread.join(DEADLINE)
        assert received == data
        assert back == data


@pytest.mark.parametrize("receive", [lambda end: end.recv(10), lambda end: end.recv_into(view(10))])
def test_silent_peer(receive):
    with pair() as (server, client):
        server.below.timeout = 0.01
        with pytest.raises(OSError) as info:
            receive(server)
        assert is_timeout(info.value)
        # It was only late.
        server.below.timeout = DEADLINE
        client.sendall(b"x")
        assert receive(server) in (b"x", 1)


@pytest.mark.parametrize("receive", [lambda end: end.recv(10), lambda end: end.recv_into(view(10))])
def test_without_waiting(receive):
    with pair() as (server, client):
        server.below.flags = socket.MSG_DONTWAIT
        with pytest.raises(BlockingIOError):
            receive(server)
        client.sendall(b"x")
        found = []

        def came():
            with contextlib.suppress(BlockingIOError):
                found.append(receive(server))
            return bool(found)

        wait_until(came)
        assert found in ([b"x"], [1])
        # The socket waits again when it should.
        assert server.below.sock.getblocking()


def test_peer_that_takes_nothing():
    with pair() as (server, client):
        server.below.timeout = 0.01
        data = memoryview(os.urandom(64 * 1024**2))
        sent = 0
        with pytest.raises(OSError) as info:
            while True:
                sent += server.send(data[sent:])
        assert is_timeout(info.value)
        # What was begun goes on with the same bytes.
        received = bytearray()
        server.below.timeout = DEADLINE
        thread = threading.Thread(target=lambda: received.extend(read_all(client)))
        thread.start()
        for _ in range(3):
            sent += server.send(data[sent:])
        server.end()
        server.below.sock.shutdown(socket.SHUT_WR)
        thread.join(DEADLINE)
        assert received == data[:sent]


def read_all(client):
    data = bytearray()
    while True:
        piece = client.recv(1024**2)
        if not piece:
            return data
        data += piece


@pytest.mark.parametrize("receive", [lambda end: end.recv(10), lambda end: end.recv_into(view(10))])
@pytest.mark.parametrize("is_polite", [True, False])
def test_end(receive, is_polite):
    with pair() as (server, client):
        if is_polite:
            thread = threading.Thread(target=lambda: server_end(client))
            thread.start()
        else:
            client.shutdown(socket.SHUT_RDWR)
        try:
            assert not receive(server)
        except ConnectionError:
            # OpenSSL may also tell that what it wrote last, after the handshake, did not arrive.
            assert not is_polite
        else:
            assert not receive(server)
        server.end()
        if is_polite:
            thread.join(DEADLINE)


def server_end(client):
    with contextlib.suppress(OSError):
        client.unwrap()


def test_handshake_in_time():
    with tcp() as (ours, _), contextlib.closing(server_on(ours)) as server:
        with pytest.raises(OSError) as info:
            server.handshake(time.monotonic() + 0.01)
        assert is_timeout(info.value)
        with pytest.raises(TimeoutError):
            server.handshake(time.monotonic() - 1)


def test_garbage_instead_of_a_handshake():
    with tcp() as (ours, theirs), contextlib.closing(server_on(ours)) as server:
        theirs.sendall(b"garbage" * 100)
        with pytest.raises(ssl.SSLError):
            server.handshake(time.monotonic() + DEADLINE)


def test_drop():
    with pair() as (server, client):
        client.sendall(b"x")
        # As it is on the wire: a record is longer than its data.
        assert server.drop(view(1000)) > 1
