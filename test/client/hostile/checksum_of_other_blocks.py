"""Tell the checksum of blocks of another size."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "no checksum|not a checksum"
COMMAND = "verify"


class Lie(Honest):
    """See the module."""

    def checksum(self, wire, block_size):
        super().checksum(wire, block_size + 1)
