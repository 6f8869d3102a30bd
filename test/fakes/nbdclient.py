"""An NBD client made of bytes, which can send whatever it wants."""

from __future__ import annotations

import socket
import struct


def receive(sock: socket.socket, size: int) -> bytes:
    """Receive exactly so many bytes."""
    found = bytearray()
    while len(found) < size:
        part = sock.recv(size - len(found))
        if not part:
            raise EOFError(f"{len(found)} of {size} bytes came")
        found += part
    return bytes(found)


def request(command: int, cookie: int, offset: int, length: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Return a request as the protocol document draws it."""
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length) + payload


def handshake(sock: socket.socket, old_style: bool = False) -> None:
    """Negotiate structured replies, or nothing at all."""
    assert receive(sock, 18) == b"NBDMAGICIHAVEOPT\x00\x03"
    sock.sendall(struct.pack(">I", 3))
    if old_style:
        sock.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 0))
        receive(sock, 10)
        return
    sock.sendall(b"IHAVEOPT" + struct.pack(">II", 8, 0) + b"IHAVEOPT" + struct.pack(">IIIH", 7, 6, 0, 0))
    while True:
        option, kind, length = struct.unpack(">8xIII", receive(sock, 20))
        receive(sock, length)
        if (option, kind) == (7, 1):
            return


def chunk(sock: socket.socket) -> tuple[int, int, int, bytes]:
    """Return flags, type, cookie and payload of the next chunk."""
    magic, flags, kind, cookie, length = struct.unpack(">IHHQI", receive(sock, 20))
    assert magic == 0x668E33EF
    return flags, kind, cookie, receive(sock, length)


def fails(sock: socket.socket, cookie: int) -> int:
    """Return the error with which a request is answered."""
    flags, kind, found, payload = chunk(sock)
    assert (flags, kind, found) == (1, 0x8001, cookie)
    return int(struct.unpack_from(">I", payload)[0])
