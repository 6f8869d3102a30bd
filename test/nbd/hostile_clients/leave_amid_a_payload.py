"""Leave when half of what a request writes was sent."""

from __future__ import annotations

import socket

from fakes.nbdclient import handshake, request

FAULT = "left amid a request"


def script(sock: socket.socket) -> None:
    handshake(sock)
    sock.sendall(request(1, 1, 0, 1024, bytes(512)))
    sock.shutdown(socket.SHUT_WR)
