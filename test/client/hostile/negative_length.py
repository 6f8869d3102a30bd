"""Tell a length below zero."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.BackendUntrusted
MESSAGE = "Content-Length"


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        wire.send(b"HTTP/1.1 200 X\r\nContent-Length: -2\r\n\r\n{}")
