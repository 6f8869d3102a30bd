"""Leave when half of a header was sent."""

from __future__ import annotations

import socket

from fakes.nbdclient import handshake, request

FAULT = "left amid a request"


def script(sock: socket.socket) -> None:
    handshake(sock)
    sock.sendall(request(0, 1, 0, 512)[:14])
    sock.shutdown(socket.SHUT_WR)
