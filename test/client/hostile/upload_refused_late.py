"""Refuse an upload when all of it came."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.ServerError
MESSAGE = "The disk is broken"
COMMAND = "upload"


class Lie(Honest):
    """See the module."""

    def change(self, wire, method, length):
        wire.read(length)
        wire.answer(500, b"The disk is broken")
