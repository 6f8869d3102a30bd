"""Send each header in two parts, cut at each byte."""

from __future__ import annotations

import socket

from fakes.nbdclient import DISK, chunk, handshake, request


def script(sock: socket.socket) -> None:
    handshake(sock)
    for cut in range(1, 28):
        message = request(0, cut, cut, 512)
        sock.sendall(message[:cut])
        sock.sendall(message[cut:])
        assert chunk(sock) == (1, 1, cut, cut.to_bytes(8, "big") + DISK[cut : cut + 512])
