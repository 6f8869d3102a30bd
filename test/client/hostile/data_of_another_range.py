"""Send another range than the one that was asked for, and say so."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "another range"


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        self.begin(wire, first + 512, last + 512)
        wire.send(self.data[first : last + 1])
