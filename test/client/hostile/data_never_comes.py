"""Send the head of a range, and nothing more."""

from __future__ import annotations

from fakes.liar import Honest, stall

from ovirt_imageio import client

EXPECTED = client.BackendTimeout
MESSAGE = "in time"
READ_TIMEOUT = 0.2


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        self.begin(wire, first, last)
        stall(wire)
