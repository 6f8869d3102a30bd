"""List an extent whose length is larger than any number."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def extents(self, wire, context, offset):
        wire.answer(200, b'[{"start": 0, "length": 1e999, "zero": true}]')
