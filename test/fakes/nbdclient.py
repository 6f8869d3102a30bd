"""An NBD client made of bytes, which can send whatever it wants."""

from __future__ import annotations

import random
import socket
import struct

# What hostile clients attack.
SIZE = 1024 * 1024
DISK = random.Random(1).randbytes(SIZE)


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


def negotiate(sock: socket.socket) -> None:
    """Greet, before options."""
    assert receive(sock, 18) == b"NBDMAGICIHAVEOPT\x00\x03"
    sock.sendall(struct.pack(">I", 3))


def option(sock: socket.socket, number: int, payload: bytes = b"") -> list[int]:
    """Ask for an option; return the types of the answers: 1 for ACK, 2^31 and more for errors."""
    sock.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(payload)) + payload)
    found: list[int] = []
    while not found or not (found[-1] == 1 or found[-1] & 2**31):
        magic, answered, kind, length = struct.unpack(">QIII", receive(sock, 20))
        assert (magic, answered) == (0x3E889045565A9, number)
        receive(sock, length)
        found.append(kind)
    return found


def handshake(sock: socket.socket, old_style: bool = False) -> None:
    """Negotiate structured replies, or nothing at all."""
    negotiate(sock)
    if old_style:
        sock.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 0))
        receive(sock, 10)
        return
    assert option(sock, 8) == [1]
    assert option(sock, 7, bytes(6))[-1] == 1


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
