"""List an extent whose length has ten thousand digits."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def extents(self, wire, context, offset):
        wire.answer(200, b'[{"start": 0, "length": %s, "zero": true}]' % (b"9" * 10_000))
