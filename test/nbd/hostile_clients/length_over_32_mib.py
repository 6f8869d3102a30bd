"""Read more than 32 MiB at once."""

from __future__ import annotations

import socket

from fakes.nbdclient import fails, handshake, request


def script(sock: socket.socket) -> None:
    handshake(sock)
    for length in (32 * 1024**2 + 1, 2**32 - 1):
        sock.sendall(request(0, 1, 0, length))
        assert fails(sock, 1) == 22
