"""TLS over socket pairs: what arrives, in how many calls, and what happens when a socket cannot go on."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time

import pytest
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio.net import tls
from ovirt_imageio.net.plain_socket import PlainSocket
from ovirt_imageio.net.tls_socket import TLSSocket


class Counting:
    """A socket that counts what it did, and sends `room` bytes at most."""

    def __init__(self, sock):
        self._sock = sock
        self.sends = self.receives = 0
        self.room = 1 << 30

    def send(self, data, flags=0):
        if not self.room:
            raise BlockingIOError
        self.sends += 1
        sent = self._sock.send(data[: self.room], flags)
        self.room -= sent
        return sent

    def recv(self, size, flags=0):
        data = self._sock.recv(size, flags)
        self.receives += 1
        return data

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def shut_down(self):
        self._sock.shutdown(socket.SHUT_RDWR)


def server_on(sock, made):
    context = tls.ServerContext(made.cert_file, made.key_file)()
    return TLSSocket(PlainSocket(sock, DEADLINE), context, server_side=True)


def client_on(sock, made, name="localhost"):
    return TLSSocket(PlainSocket(sock, DEADLINE), tls.client_context(made.ca_file), server_hostname=name)


def shake(end):
    end.handshake(time.monotonic() + DEADLINE)


def send_all(end, data):
    while data:
        data = data[end.send(data) :]


@contextlib.contextmanager
def pair():
    """Two ends that trust each other: the server, the client, and the socket of the server."""
    made = certificates.certificate()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        counting = Counting(ours)
        server = server_on(counting, made)
        client = client_on(theirs, made)
        thread = threading.Thread(target=shake, args=(client,))
        thread.start()
        shake(server)
        thread.join(DEADLINE)
        counting.sends = counting.receives = 0
        yield server, client, counting


def read(end, size):
    """Return so many bytes."""
    view = memoryview(bytearray(size))
    done = 0
    while done < size:
        count = end.recv_into(view[done:])
        assert count
        done += count
    return bytes(view)


def test_many_records_leave_with_one_call():
    data = os.urandom(1 << 20)
    with pair() as (server, client, counting):
        reader = threading.Thread(target=lambda: received.append(read(client, len(data))))
        received = []
        reader.start()
        send_all(server, data)
        reader.join(DEADLINE)
        assert received == [data]
        # 64 records.
        assert counting.sends == 4


def test_many_records_arrive_with_one_call():
    data = os.urandom(48 * 1024)
    with pair() as (server, client, counting):
        send_all(client, data)
        assert read(server, len(data)) == data
        assert counting.receives == 1


def test_many_at_once():
    """More connections than there are turns, in both directions, some of which stand still in between."""
    data = os.urandom(1 << 20)
    received = []

    def exchange():
        with pair() as (server, client, _):
            for sender, reader in ((server, client), (client, server)):
                thread = threading.Thread(target=lambda reader=reader: received.append(read(reader, len(data))))
                thread.start()
                send_all(sender, data)
                thread.join(DEADLINE)

    with pair() as (idle, _, idle_socket):
        waiting = threading.Thread(target=idle.recv, args=(1 << 20,))
        waiting.start()
        threads = [threading.Thread(target=exchange) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        idle_socket.shut_down()
        waiting.join(DEADLINE)
    assert received == [data] * 16


@pytest.mark.parametrize("size", [1, 100, 16384, 16385])
def test_small_pieces(size):
    with pair() as (server, client, counting):
        send_all(client, b"x" * size)
        assert server.recv(1) == b"x"
        assert server.pending() >= size - 1
        assert read(server, size - 1) == b"x" * (size - 1)
        assert server.pending() == 0
        assert counting.receives == 1


def test_nothing_to_read_into():
    with pair() as (server, _, counting):
        assert server.recv_into(memoryview(b"")) == 0
        assert counting.receives == 0


def encrypted(end, data):
    """Return what would be sent."""
    records = []

    class Below:
        def send(self, data):
            records.append(bytes(data))
            return len(data)

    below, end._below = end._below, Below()
    send_all(end, data)
    end._below = below
    return b"".join(records)


def drip(sock, data, is_over):
    """Send data byte by byte, until the test says stop."""
    for start in range(len(data)):
        if is_over.wait(0.02):
            return
        sock.send(data[start : start + 1])


READ_SOME = pytest.mark.parametrize(
    "read_some", [lambda end: end.recv(10), lambda end: end.recv_into(memoryview(bytearray(10)))], ids=["recv", "into"]
)


@READ_SOME
def test_pieces_of_a_record_are_no_progress(read_some):
    """One byte after the other, each in time: nothing can be done with them, so one time-out is for all of them."""
    with pair() as (server, client, _):
        record = encrypted(client, bytes(16000))
        is_over = threading.Event()
        thread = threading.Thread(target=drip, args=(client._below, record, is_over))
        thread.start()
        server._below.timeout = 0.2
        try:
            with pytest.raises((TimeoutError, BlockingIOError)):
                read_some(server)
        finally:
            is_over.set()
            thread.join()


def test_a_record_that_arrives_in_pieces():
    with pair() as (server, client, _):
        record = encrypted(client, b"hello")
        client._below.send(record[:-1])
        server._below.timeout = 0.01
        with pytest.raises((BlockingIOError, TimeoutError)):
            server.recv(10)
        client._below.send(record[-1:])
        assert server.recv(10) == b"hello"


@pytest.mark.parametrize("read_some", [lambda end: end.recv(1), lambda end: end.recv_into(memoryview(bytearray(1)))])
def test_the_end(read_some):
    with pair() as (server, client, _):
        client.send(b"x")
        client.end()
        assert read_some(server) in (1, b"x")
        assert read_some(server) in (0, b"")
        # Half a connection is left.
        server.send(b"y")
        assert read_some(client) in (1, b"y")
    with pair() as (server, client, _):
        # It was cut off.
        client._below.end()
        assert read_some(server) in (0, b"")


@pytest.mark.parametrize("size", [4, 5, 100])
def test_the_end_comes_with_the_last_bytes(size):
    with pair() as (server, client, counting):
        client.send(b"last")
        client.end()
        view = memoryview(bytearray(size))
        assert server.recv_into(view) == 4
        assert server.recv_into(view) == 0
        assert server.recv(size) == b""
        # The reader waits for nothing more.
        assert counting.receives == 1


def test_what_does_not_fit_is_sent_by_the_next_call():
    data = os.urandom(100_000)
    with pair() as (server, client, counting):
        counting.room = 1000
        with pytest.raises(BlockingIOError):
            server.send(data)
        counting.room = 1 << 30
        assert server.send(data) == len(data)
        send_all(server, b"more")
        assert read(client, len(data) + 4) == data + b"more"


def test_time_runs_out_while_receiving():
    with pair() as (server, client, _):
        server._below.timeout = 0.01
        with pytest.raises(BlockingIOError):
            server.recv(10)
        server._below.timeout = DEADLINE
        client.send(b"late")
        assert server.recv(10) == b"late"


def test_a_server_that_is_not_trusted_learns_it():
    made = certificates.certificate()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = server_on(ours, made)
        client = client_on(theirs, made, "somebody.else")
        failures = []

        def refused():
            try:
                shake(server)
                server.recv(1)
            except ssl.SSLError as error:
                failures.append(error)

        thread = threading.Thread(target=refused)
        thread.start()
        with pytest.raises(ssl.SSLCertVerificationError, match="somebody"):
            shake(client)
        thread.join(DEADLINE)
        assert failures[0].reason and "ALERT" in failures[0].reason


def test_peer_leaves_in_the_handshake():
    made = certificates.certificate()
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(OSError):
            shake(client_on(ours, made))


def test_handshake_has_a_deadline():
    made = certificates.certificate()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = client_on(ours, made)
        with pytest.raises((TimeoutError, BlockingIOError)):
            client.handshake(time.monotonic() + 0.01)
        with pytest.raises(TimeoutError):
            client.handshake(time.monotonic() - 1)


def test_garbage():
    with pair() as (server, client, _):
        client._below.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            server.recv(10)
