"""Read and write around the end of the disk, and where 64 bits end."""

from __future__ import annotations

import socket

from fakes.nbdclient import SIZE, fails, handshake, request

EINVAL = 22
ENOSPC = 28


def script(sock: socket.socket) -> None:
    handshake(sock)
    for offset, length in ((SIZE - 1, 2), (SIZE, 1), (2**63, 512), (2**64 - 1, 1), (2**64 - 512, 512)):
        sock.sendall(request(0, 1, offset, length))
        assert fails(sock, 1) == EINVAL
        sock.sendall(request(1, 2, offset, length, b"x" * length))
        assert fails(sock, 2) == ENOSPC
        sock.sendall(request(6, 3, offset, length))
        assert fails(sock, 3) == ENOSPC
        sock.sendall(request(7, 4, offset, length))
        assert fails(sock, 4) == EINVAL
