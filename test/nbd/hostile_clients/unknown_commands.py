"""Send commands and flags that nobody knows, and some that were not offered."""

from __future__ import annotations

import socket

from fakes.nbdclient import fails, handshake, request


def script(sock: socket.socket) -> None:
    handshake(sock)
    for command in (4, 5, 8, 99, 65535):
        sock.sendall(request(command, 7, 0, 512))
        assert fails(sock, 7) == 22
    for flags in (0xFF00, 1 << 4, 1 << 5):
        sock.sendall(request(0, 8, 0, 512, flags=flags))
        assert fails(sock, 8) == 22
        sock.sendall(request(1, 9, 0, 512, bytes(512), flags=flags))
        assert fails(sock, 9) == 22
