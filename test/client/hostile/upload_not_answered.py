"""Take an upload, and leave without an answer, each time."""

from __future__ import annotations

from fakes.liar import Honest, leave

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "lost|reached"
COMMAND = "upload"


class Lie(Honest):
    """See the module."""

    def change(self, wire, method, length):
        wire.read(length)
        leave(wire)
