"""Send the client elsewhere for the data."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "unexpected status 302"


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        wire.answer(302, b"", "Location: http://127.0.0.1:9/stolen\r\n")
