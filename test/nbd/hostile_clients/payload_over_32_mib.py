"""Write more than 32 MiB at once."""

from __future__ import annotations

import socket

from fakes.nbdclient import handshake, request

FAULT = "sends 33554433 bytes with one request"


def script(sock: socket.socket) -> None:
    handshake(sock)
    sock.sendall(request(1, 1, 0, 32 * 1024**2 + 1))
