"""Ask for TLS, which the connection has already, or was not to have."""

from __future__ import annotations

import socket

from fakes.nbdclient import negotiate, option

ERR_POLICY = 0x80000002


def script(sock: socket.socket) -> None:
    negotiate(sock)
    assert option(sock, 5)[-1] == ERR_POLICY
    assert option(sock, 8)[-1] == 1
    option(sock, 7, bytes(6))
