"""Answer twice: the second answer must not be taken for that to the next request."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "another range"


class Lie(Honest):
    """See the module."""

    def abilities(self):
        return {**super().abilities(), "max_readers": 1}

    def read(self, wire, first, last):
        for _ in range(2):
            super().read(wire, first, last)
