"""Say Continue for ever."""

from __future__ import annotations

from fakes.liar import Honest, send_for_ever

from ovirt_imageio import client

EXPECTED = client.StorageError
READ_TIMEOUT = 0.5
MESSAGE = "in time|interim"


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        send_for_ever(wire, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
