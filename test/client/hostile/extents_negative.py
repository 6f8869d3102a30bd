"""List an extent that ends before it begins."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def listed(self):
        listed = super().listed()
        listed[1]["length"] = -512
        return listed
