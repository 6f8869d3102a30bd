"""Ask for the export of somebody else, then for that of a name without end."""

from __future__ import annotations

import socket
import struct

from fakes.nbdclient import negotiate, option

FAULT = "an export that does not exist"

ERR_UNKNOWN = 0x80000006
ERR_INVALID = 0x80000003


def script(sock: socket.socket) -> None:
    negotiate(sock)
    for kind in (6, 7):
        for name, error in (("other", ERR_UNKNOWN), ("x" * 5000, ERR_INVALID), ("\0", ERR_UNKNOWN)):
            payload = struct.pack(">I", len(name)) + name.encode() + bytes(2)
            assert option(sock, kind, payload)[-1] == error
    # The old way, in which nothing can be refused but by closing.
    sock.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 5) + b"other")
