"""Leave when the extents are asked for, each time."""

from __future__ import annotations

from fakes.liar import Honest, leave

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "lost|reached"


class Lie(Honest):
    """See the module."""

    def extents(self, wire, context, offset):
        leave(wire)
