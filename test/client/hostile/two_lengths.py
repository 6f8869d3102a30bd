"""Tell two lengths of one body."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.BackendUntrusted
MESSAGE = "two values"


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        wire.send(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")
