"""Tell the checksum of something else."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.VerificationFailed
MESSAGE = "differs"
COMMAND = "verify"


class Lie(Honest):
    """See the module."""
