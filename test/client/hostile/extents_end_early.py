"""Leave out the last extent: its data would be missing."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def listed(self):
        return super().listed()[:-1]
