"""Send a header byte by byte, each before the time is over."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.BackendTimeout
MESSAGE = "in time"
READ_TIMEOUT = 0.4


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        wire.send(b"HTTP/1.1 200 X\r\nX: ")
        while not wire.wait_for_end(0.05):
            wire.send(b"x")
