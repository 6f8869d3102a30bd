"""List extents that end where no disk does."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def listed(self):
        return [{"start": 0, "length": 2**64, "zero": False}]
