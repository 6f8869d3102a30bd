"""What a client asks for, and what must then be true: one function for each operation.

Each takes a connection, and returns when all was answered as it should be. `Refused` tells that an answer was an error,
whatever else is raised that the connection was cut. CHANGES tells which bytes each operation may have changed, and to
what; when it returns, it has changed all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import struct
from typing import Any, Callable

from fakes.nbdclient import handshake, receive, request
from torture.house import CONTENT, SIZE, TICKET

from ovirt_imageio.nbd.wire import Command, CommandFlag

__all__ = ["CHANGES", "OPERATIONS", "Refused", "Wrong"]

URL = f"/images/{TICKET}"

BIG_OFFSET, BIG = 3 * 512, bytes(range(241)) * 5000
ODD_OFFSET, ODD = 1000, b"odd!" * 800
CHUNKED_OFFSET, CHUNKED = 4096, b"chunk" * 60000
ZERO_OFFSET, ZERO_LENGTH = 700, 150_000
NBD_OFFSET, NBD_DATA = 8192, b"nbd." * 20000


class Refused(Exception):
    """An error was answered."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status


class Wrong(AssertionError):
    """A success was answered, and that is not true."""


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **options: Any) -> bytes:
    """Return the body of a good answer."""
    connection.request(method, path, body, **options)
    response = connection.getresponse()
    found = response.read()
    if response.status >= 400:
        raise Refused(response.status, found.decode(errors="replace"))
    return found


def check(condition: bool, text: str) -> None:
    """Raise Wrong unless something is true."""
    if not condition:
        raise Wrong(text)


def get(connection: http.client.HTTPConnection) -> None:
    check(ask(connection, "GET", URL) == CONTENT, "the bytes of the disk")


def get_range(connection: http.client.HTTPConnection) -> None:
    found = ask(connection, "GET", URL, headers={"range": "bytes=1000-70000"})
    check(found == CONTENT[1000:70001], "the bytes of the range")


def put(connection: http.client.HTTPConnection, offset: int, data: bytes, query: str = "") -> None:
    headers = {"content-range": f"bytes {offset}-{offset + len(data) - 1}/*"}
    ask(connection, "PUT", URL + query, data, headers=headers)


def put_big(connection: http.client.HTTPConnection) -> None:
    put(connection, BIG_OFFSET, BIG)


def put_odd(connection: http.client.HTTPConnection) -> None:
    put(connection, ODD_OFFSET, ODD)


def put_chunked(connection: http.client.HTTPConnection) -> None:
    parts = [CHUNKED[start : start + 100_000] for start in range(0, len(CHUNKED), 100_000)]
    headers = {"content-range": f"bytes {CHUNKED_OFFSET}-{CHUNKED_OFFSET + len(CHUNKED) - 1}/*"}
    ask(connection, "PUT", URL, iter(parts), headers=headers, encode_chunked=True)


def zero(connection: http.client.HTTPConnection) -> None:
    message = {"op": "zero", "offset": ZERO_OFFSET, "size": ZERO_LENGTH, "flush": True}
    ask(connection, "PATCH", URL, json.dumps(message))


def flush(connection: http.client.HTTPConnection) -> None:
    put(connection, ODD_OFFSET, ODD, "?flush=n")
    ask(connection, "PATCH", URL, json.dumps({"op": "flush"}))


def extents(connection: http.client.HTTPConnection) -> None:
    found = json.loads(ask(connection, "GET", f"{URL}/extents"))
    check(sum(extent["length"] for extent in found) == SIZE, "extents that cover the disk")
    check(not any(extent["zero"] for extent in found), "extents that tell no lie")


def checksum(connection: http.client.HTTPConnection) -> None:
    found = json.loads(ask(connection, "GET", f"{URL}/checksum?block_size={BLOCK}"))
    check(found["checksum"] == CHECKSUM, "the checksum")


def options(connection: http.client.HTTPConnection) -> None:
    found = json.loads(ask(connection, "OPTIONS", URL))
    check(found["size"] == SIZE, "the size")


def nbd(connection: http.client.HTTPConnection) -> None:
    """Attach, then read, write and flush, zero, list, and leave."""
    if connection.sock is None:
        connection.connect()
    sock = connection.sock
    sock.sendall(f"GET {URL} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: nbd\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = sock.recv(1)
        if not part:
            raise EOFError
        head += part
    status = int(head.split(b" ")[1])
    if status != 101:
        raise Refused(status, head.decode())
    handshake(sock)
    sock.sendall(request(Command.READ, 1, 512, 200_000))
    check(nbd_data(sock, 1, 512, 200_000) == CONTENT[512 : 512 + 200_000], "the bytes that NBD reads")
    sock.sendall(request(Command.WRITE, 2, NBD_OFFSET, len(NBD_DATA), NBD_DATA, CommandFlag.FUA))
    nbd_done(sock, 2)
    zeroes = request(Command.WRITE_ZEROES, 3, NBD_OFFSET + len(NBD_DATA), 20_000)
    sock.sendall(zeroes + request(Command.READ, 4, 0, 512))
    nbd_data(sock, 4, 0, 512, also=3)
    sock.sendall(request(Command.FLUSH, 5, 0, 0))
    nbd_done(sock, 5)
    sock.sendall(request(Command.DISCONNECT, 6, 0, 0))
    with contextlib.suppress(OSError):
        while sock.recv(1000):
            pass


def nbd_done(sock: socket.socket, *cookies: int) -> None:
    """Wait until requests are done."""
    left = set(cookies)
    while left:
        flags, kind, cookie, payload = nbd_reply(sock)
        nbd_good(kind, payload)
        if flags & 1:
            left.remove(cookie)


def nbd_data(sock: socket.socket, wanted: int, start: int, length: int, also: int = 0) -> bytes:
    """Return what a request reads; another one may be answered before."""
    found = bytearray(length)
    left = {wanted, also} - {0}
    while left:
        flags, kind, cookie, payload = nbd_reply(sock)
        nbd_good(kind, payload)
        if cookie == wanted and kind == 1:
            (offset,) = struct.unpack_from(">Q", payload)
            found[offset - start : offset - start + len(payload) - 8] = payload[8:]
        if flags & 1:
            left.remove(cookie)
    return bytes(found)


def nbd_reply(sock: socket.socket) -> tuple[int, int, int, bytes]:
    """Return flags, type, cookie and payload of a reply; servers send both kinds."""
    (magic,) = struct.unpack(">I", receive(sock, 4))
    if magic == 0x67446698:
        error, cookie = struct.unpack(">IQ", receive(sock, 12))
        return 1, 0x8001 if error else 0, cookie, struct.pack(">I", error)
    check(magic == 0x668E33EF, "a reply of NBD")
    flags, kind, cookie, length = struct.unpack(">HHQI", receive(sock, 16))
    return flags, kind, cookie, receive(sock, length)


def nbd_good(kind: int, payload: bytes) -> None:
    """Raise Refused for a chunk that tells of an error."""
    if kind & 0x8000:
        raise Refused(500, f"NBD error {struct.unpack_from('>I', payload)[0]}")


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


# A digest of the digests of the blocks.
BLOCK = 1024**2
CHECKSUM = digest(b"".join(digest(CONTENT[start : start + BLOCK]) for start in range(0, SIZE, BLOCK))).hex()

OPERATIONS: dict[str, Callable[[http.client.HTTPConnection], None]] = {
    "get": get,
    "get-range": get_range,
    "put": put_big,
    "put-odd": put_odd,
    "put-chunked": put_chunked,
    "zero": zero,
    "flush": flush,
    "extents": extents,
    "checksum": checksum,
    "options": options,
    "nbd": nbd,
}

CHANGES: dict[str, list[tuple[int, bytes]]] = {
    "put": [(BIG_OFFSET, BIG)],
    "put-odd": [(ODD_OFFSET, ODD)],
    "put-chunked": [(CHUNKED_OFFSET, CHUNKED)],
    "zero": [(ZERO_OFFSET, bytes(ZERO_LENGTH))],
    "flush": [(ODD_OFFSET, ODD)],
    "nbd": [(NBD_OFFSET, NBD_DATA), (NBD_OFFSET + len(NBD_DATA), bytes(20_000))],
}
