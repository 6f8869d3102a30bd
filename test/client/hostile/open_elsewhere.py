"""Send the client elsewhere at once."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "unexpected status 307"


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        wire.answer(307, b"", "Location: http://127.0.0.1:9/stolen\r\n")
