"""Speak another protocol behind the handshake."""

from __future__ import annotations

import socket

from fakes.nbdclient import handshake

FAULT = "begins with 0x47455420"


def script(sock: socket.socket) -> None:
    handshake(sock)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n")
