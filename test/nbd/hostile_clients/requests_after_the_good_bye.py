"""Say good-bye, and write."""

from __future__ import annotations

import socket

from fakes.nbdclient import handshake, request

# It ends, and that is no fault.
FAULT = ""


def script(sock: socket.socket) -> None:
    handshake(sock)
    sock.sendall(request(2, 1, 0, 0) + request(1, 2, 0, 512, b"z" * 512))
