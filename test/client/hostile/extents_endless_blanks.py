"""Begin a list, and send white space for ever."""

from __future__ import annotations

from fakes.liar import Honest, send_for_ever

from ovirt_imageio import client

EXPECTED = client.Error
MESSAGE = "white space"


class Lie(Honest):
    """See the module."""

    def extents(self, wire, context, offset):
        send_for_ever(wire, b"[", b" " * 65536)
