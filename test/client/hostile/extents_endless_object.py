"""Begin an extent and never end it: an object that fills the memory."""

from __future__ import annotations

from fakes.liar import Honest, send_for_ever

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def extents(self, wire, context, offset):
        send_for_ever(wire, b'[{"start": 0, "comment": "', b"x" * 65536)
