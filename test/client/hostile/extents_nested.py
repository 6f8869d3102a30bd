"""List an extent that is nested a hundred thousand times."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def extents(self, wire, context, offset):
        wire.answer(200, b'[{"start": ' + b"[" * 100_000)
