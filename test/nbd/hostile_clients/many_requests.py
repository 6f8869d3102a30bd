"""Send 10,000 requests without reading a reply; then read them all."""

from __future__ import annotations

import socket
import threading

from fakes.nbdclient import DISK, chunk, handshake, request
from fakes.waiting import DEADLINE

COUNT = 10_000


def script(sock: socket.socket) -> None:
    handshake(sock)
    message = b"".join(request(0, cookie, 0, 4096) for cookie in range(COUNT))
    sender = threading.Thread(target=sock.sendall, args=(message,))
    sender.start()
    for cookie in range(COUNT):
        assert chunk(sock) == (1, 1, cookie, bytes(8) + DISK[:4096])
    sender.join(DEADLINE)
