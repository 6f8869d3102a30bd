"""The relay moves every byte, in order, both ways, and not before its time."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest
from bench.relay import Distance, relayed

# Larger than the window below, and than the buffers of sockets.
SIZE = 8 * 1024**2

DEADLINE = 60


@pytest.fixture
def echo():
    """The port of a server that sends back what each client sent, once that has ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, client.makefile("rb") as incoming:
                        client.sendall(incoming.read())

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def ask(port, data):
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as client, client.makefile("rb") as incoming:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return incoming.read()


def test_all_bytes_pass(echo):
    data = os.urandom(SIZE)
    with relayed(echo, Distance(0.002, window=1024**2)) as far:
        assert ask(far, data) == data
        # It goes on after a connection has ended.
        assert ask(far, b"") == b""


def test_there_and_back_takes_time(echo):
    with relayed(echo, Distance(0.1)) as far:
        began = time.monotonic()
        assert ask(far, b"data") == b"data"
        # A handshake, and the question with its answer.
        assert time.monotonic() - began >= 0.2


def test_a_window_bounds_what_is_under_way(echo):
    with relayed(echo, Distance(0.05, window=64 * 1024)) as far:
        began = time.monotonic()
        ask(far, bytes(256 * 1024))
        # Four windows each way, the last of which needs no acknowledgement, and the handshake.
        assert time.monotonic() - began >= 0.05 * 8


def test_bandwidth_is_shared(echo):
    with relayed(echo, Distance(0.002, bandwidth=1024**2)) as far:
        began = time.monotonic()
        threads = [threading.Thread(target=ask, args=(far, bytes(128 * 1024))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began >= 0.25


def test_a_server_that_is_not_there(echo):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with relayed(port, Distance(0.002)) as far:
        with contextlib.suppress(ConnectionError):
            assert ask(far, b"") == b""
        with contextlib.suppress(ConnectionError):
            assert ask(far, b"") == b""
