"""Write and zero what was offered for reading only."""

from __future__ import annotations

import socket

from fakes.nbdclient import fails, handshake, request

IS_READ_ONLY = True


def script(sock: socket.socket) -> None:
    handshake(sock)
    sock.sendall(request(1, 1, 0, 4, b"evil") + request(6, 2, 0, 512) + request(3, 3, 0, 0))
    assert [fails(sock, 1), fails(sock, 2), fails(sock, 3)] == [1, 1, 22]
