"""Answer with a page for people instead of a list."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.StorageError
MESSAGE = "malformed list"


class Lie(Honest):
    """See the module."""

    def extents(self, wire, context, offset):
        wire.answer(200, b"<html>Sign in</html>", "Content-Type: text/html\r\n")
