"""List extents without length for ever."""

from __future__ import annotations

from fakes.liar import Honest, send_for_ever

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def extents(self, wire, context, offset):
        send_for_ever(wire, b"[", b'{"start": 0, "length": 0, "zero": true},' * 100)
