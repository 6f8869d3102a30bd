"""Accept, and say nothing."""

from __future__ import annotations

from fakes.liar import Honest, stall

from ovirt_imageio import client

EXPECTED = client.BackendTimeout
MESSAGE = "in time"
READ_TIMEOUT = 0.2


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        stall(wire)
