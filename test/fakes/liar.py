"""A server of one image that tells the truth, for scripts that let it lie in one thing.

class Lie(Honest):
    def extents(self, wire, context, offset):
        wire.answer(200, b"[]")

with ScriptedOrigin(*[Lie().serve] * 10) as origin: ...
"""

from __future__ import annotations

import json
import re
import socket
from typing import NoReturn

from fakes.origin import FEATURES, Wire

__all__ = ["DATA", "Honest", "leave", "say_no_more", "send_for_ever", "stall"]

# Data, zeroes, data: a download is two requests, as the gap between them is too long to be copied along.
PART = 16 * 1024
GAP = 256 * 1024
DATA = bytes(range(256)) * (PART // 256) + bytes(GAP) + bytes(range(255, -1, -1)) * (PART // 256)


class Honest:
    """Answers what is true. What a script overrides is called with the connection, and what was asked for."""

    data = DATA
    features = FEATURES

    def serve(self, wire: Wire) -> None:
        """Answer the requests of one connection."""
        self.greet(wire)
        while head := wire.read_head():
            method, target = head.split(" ")[:2]
            if method == "OPTIONS":
                self.options(wire)
            elif "/extents" in target:
                found = re.search(r"offset=(\d+)", target)
                self.extents(wire, "dirty" if "dirty" in target else "zero", int(found[1]) if found else 0)
            elif "/checksum" in target:
                self.checksum(wire, int(re.search(r"block_size=(\d+)", target)[1]))
            elif method == "GET":
                found = re.search(r"range: bytes=(\d+)-(\d+)", head)
                first, last = (int(found[1]), int(found[2])) if found else (0, len(self.data) - 1)
                self.read(wire, first, last)
            else:
                self.change(wire, method, int(re.search(r"content-length: (\d+)", head)[1]))

    def greet(self, wire: Wire) -> None:
        """Say nothing before a client asks."""

    def options(self, wire: Wire) -> None:
        """Tell what the server can do."""
        wire.answer(200, json.dumps(self.abilities()).encode())

    def abilities(self) -> dict[str, object]:
        """Return the answer to OPTIONS."""
        return {
            "features": list(self.features),
            "max_readers": 2,
            "max_writers": 2,
            "size": len(self.data),
            "transfer_id": "t",
        }

    def extents(self, wire: Wire, context: str, offset: int) -> None:
        """List the extents, from the beginning."""
        wire.answer(200, json.dumps(self.listed()).encode())

    def listed(self) -> list[dict[str, object]]:
        """Return the extents."""
        return [
            {"start": 0, "length": PART, "zero": False, "hole": False},
            {"start": PART, "length": GAP, "zero": True, "hole": True},
            {"start": PART + GAP, "length": PART, "zero": False, "hole": False},
        ]

    def read(self, wire: Wire, first: int, last: int) -> None:
        """Send a range."""
        self.begin(wire, first, last)
        wire.send(self.data[first : last + 1])

    def begin(self, wire: Wire, first: int, last: int) -> None:
        """Send the head of the answer to a read."""
        where = f"Content-Range: bytes {first}-{last}/{len(self.data)}"
        wire.send(f"HTTP/1.1 206 X\r\n{where}\r\nContent-Length: {last - first + 1}\r\n\r\n".encode())

    def checksum(self, wire: Wire, block_size: int) -> None:
        """Tell a checksum, though not that of the data."""
        wire.answer(200, json.dumps({"checksum": "ab" * 32, "block_size": block_size, "algorithm": "blake2b"}).encode())

    def change(self, wire: Wire, method: str, length: int) -> None:
        """Take a body, and forget it."""
        wire.read(length)
        wire.answer(200)


def leave(wire: Wire) -> NoReturn:
    """Leave with a reset."""
    wire.reset()
    raise ConnectionAbortedError


def say_no_more(wire: Wire) -> NoReturn:
    """End the connection so that what was sent arrives, and wait for the client to leave."""
    wire.socket.shutdown(socket.SHUT_WR)
    while wire.read(64 * 1024):
        pass
    raise ConnectionAbortedError


def stall(wire: Wire) -> NoReturn:
    """Do nothing more."""
    wire.stall()
    raise ConnectionAbortedError


def send_for_ever(wire: Wire, head: bytes, piece: bytes) -> NoReturn:
    """Send an answer that never ends, until the client leaves, or the test ends."""
    if not head.startswith(b"HTTP/") and not piece.startswith(b"HTTP/"):
        head = b"HTTP/1.1 200 X\r\nContent-Length: 999999999999999\r\n\r\n" + head
    wire.send(head)
    while not wire.wait_for_end(0):
        wire.send(piece)
    leave(wire)
