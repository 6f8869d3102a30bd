"""Ask for options that nobody knows, and for known ones with what makes no sense."""

from __future__ import annotations

import socket

from fakes.nbdclient import negotiate, option

ERR_UNSUP = 0x80000001
ERR_INVALID = 0x80000003
ERR_TOO_BIG = 0x80000009


def script(sock: socket.socket) -> None:
    negotiate(sock)
    for number in (0, 4, 99, 2**32 - 1):
        assert option(sock, number, b"what?")[-1] == ERR_UNSUP
    for number, payload in ((3, b"x"), (6, bytes(3)), (7, b"\xff" * 10), (8, b"x"), (10, b"\0\0\0\1\xff")):
        assert option(sock, number, payload)[-1] == ERR_INVALID
    assert option(sock, 3, bytes(20_000))[-1] == ERR_TOO_BIG
    assert option(sock, 8)[-1] == 1
    option(sock, 7, bytes(6))
