"""Send a range in chunks that never end."""

from __future__ import annotations

from fakes.liar import Honest, send_for_ever

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "another range"


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        head = f"HTTP/1.1 206 X\r\nContent-Range: bytes {first}-{last}/*\r\nTransfer-Encoding: chunked\r\n\r\n"
        send_for_ever(wire, head.encode(), b"10000\r\n" + bytes(65536) + b"\r\n")
