"""Send more than the range."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "another range"


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        wire.answer(206, self.data[first : last + 1] + b"more", f"Content-Range: bytes {first}-{last}/*\r\n")
