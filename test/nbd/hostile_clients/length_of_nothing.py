"""Read, write and zero nothing."""

from __future__ import annotations

import socket

from fakes.nbdclient import fails, handshake, request


def script(sock: socket.socket) -> None:
    handshake(sock)
    for command in (0, 1, 6, 7):
        sock.sendall(request(command, command, 0, 0))
        assert fails(sock, command) == 22
