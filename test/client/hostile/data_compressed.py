"""Send a range compressed, in as many bytes as it has."""

from __future__ import annotations

import gzip

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "encoded"


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        body = gzip.compress(self.data[first : last + 1]).ljust(last - first + 1)
        wire.answer(206, body, f"Content-Encoding: gzip\r\nContent-Range: bytes {first}-{last}/{len(self.data)}\r\n")
