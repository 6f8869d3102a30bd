"""Send an upload elsewhere."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "unexpected status 307"
COMMAND = "upload"


class Lie(Honest):
    """See the module."""

    def change(self, wire, method, length):
        wire.read(length)
        wire.answer(307, b"", "Location: http://127.0.0.1:9/stolen\r\n")
