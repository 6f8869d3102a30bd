"""Send a range whose end only the end of the connection tells."""

from __future__ import annotations

from fakes.liar import Honest, say_no_more

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "another range"


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        wire.send(f"HTTP/1.1 206 X\r\nContent-Range: bytes {first}-{last}/{len(self.data)}\r\n\r\n".encode())
        wire.send(self.data[first : last + 1])
        say_no_more(wire)
