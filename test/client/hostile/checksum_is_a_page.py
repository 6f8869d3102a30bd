"""Answer with a page instead of a checksum."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "no checksum|not a checksum"
COMMAND = "verify"


class Lie(Honest):
    """See the module."""

    def checksum(self, wire, block_size):
        wire.answer(200, b"<html></html>")
