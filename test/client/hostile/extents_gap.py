"""List extents with a gap between them."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def listed(self):
        return [super().listed()[0], super().listed()[2]]
