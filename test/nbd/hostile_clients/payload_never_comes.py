"""Begin to write, and stand still."""

from __future__ import annotations

import socket

from fakes.nbdclient import handshake, request

FAULT = "late by 0.2 seconds"
TIMEOUT = 0.2


def script(sock: socket.socket) -> None:
    handshake(sock)
    sock.sendall(request(1, 1, 0, 1024, bytes(512)))
