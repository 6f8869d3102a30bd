"""Tell a size that no file can have."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "Cannot create the image"


class Lie(Honest):
    """See the module."""

    def abilities(self):
        return {**super().abilities(), "size": 2**63 - 1}

    def listed(self):
        return [{"start": 0, "length": 2**63 - 1, "zero": True, "hole": True}]
