"""Tell a length of ten thousand digits."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.BackendUntrusted
MESSAGE = "Content-Length"


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        wire.send(b"HTTP/1.1 200 X\r\nContent-Length: " + b"9" * 10_000 + b"\r\n\r\n{}")
