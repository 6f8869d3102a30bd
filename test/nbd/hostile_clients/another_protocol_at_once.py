"""Speak another protocol from the first byte on."""

from __future__ import annotations

import socket

FAULT = "greets with the unknown flags"


def script(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n")
