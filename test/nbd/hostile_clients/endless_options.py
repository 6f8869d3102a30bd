"""Ask for options without end."""

from __future__ import annotations

import contextlib
import socket

from fakes.nbdclient import negotiate, option

FAULT = "does not stop negotiating"


def script(sock: socket.socket) -> None:
    negotiate(sock)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            option(sock, 3)
