"""Announce an option of 4 GiB."""

from __future__ import annotations

import socket
import struct

from fakes.nbdclient import negotiate

FAULT = "has 4294967295 bytes"


def script(sock: socket.socket) -> None:
    negotiate(sock)
    sock.sendall(b"IHAVEOPT" + struct.pack(">II", 3, 2**32 - 1) + bytes(1000))
