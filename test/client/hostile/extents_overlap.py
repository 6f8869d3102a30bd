"""List two extents that overlap."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def listed(self):
        listed = super().listed()
        listed[1]["start"] -= 512
        return listed
