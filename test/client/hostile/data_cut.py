"""Leave in the middle of each range."""

from __future__ import annotations

from fakes.liar import Honest, leave

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "lost"


class Lie(Honest):
    """See the module."""

    def read(self, wire, first, last):
        self.begin(wire, first, last)
        wire.send(self.data[first : (first + last) // 2])
        leave(wire)
