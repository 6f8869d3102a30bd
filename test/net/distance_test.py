"""What the kernel tells of the way to a peer."""

from __future__ import annotations

import socket

from ovirt_imageio.net.distance import round_trip


def test_a_connection_on_this_host():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        # The kernel does it all by itself, however busy the machine is.
        assert 0 < round_trip(sock) < 1


def test_a_unix_socket():
    first, second = socket.socketpair()
    with first, second:
        assert round_trip(first) == 0


def test_no_connection():
    with socket.socket() as sock:
        assert round_trip(sock) == 0
