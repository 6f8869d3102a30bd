"""Send a header that never ends."""

from __future__ import annotations

from fakes.liar import Honest, send_for_ever

from ovirt_imageio import client

EXPECTED = client.BackendUntrusted
MESSAGE = "more than 65536 bytes"


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        send_for_ever(wire, b"HTTP/1.1 200 X\r\nX: ", b"x" * 65536)
