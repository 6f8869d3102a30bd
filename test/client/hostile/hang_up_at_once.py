"""Leave when the first request comes."""

from __future__ import annotations

from fakes.liar import Honest, leave

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "lost|reached"


class Lie(Honest):
    """See the module."""

    def options(self, wire):
        leave(wire)
