"""Send requests that are refused, more than all buffers hold, and read no answer; then read them all."""

from __future__ import annotations

import socket
import threading

from fakes.nbdclient import fails, handshake, request
from fakes.waiting import DEADLINE

COUNT = 20_000


def script(sock: socket.socket) -> None:
    handshake(sock)
    message = b"".join(request(0, cookie, 2**40, 512) for cookie in range(COUNT))
    sender = threading.Thread(target=sock.sendall, args=(message,))
    sender.start()
    for cookie in range(COUNT):
        assert fails(sock, cookie) == 22
    sender.join(DEADLINE)
