"""Send the whole image instead of a range."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "another range|unexpected status 200"


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        wire.answer(200, self.data)
