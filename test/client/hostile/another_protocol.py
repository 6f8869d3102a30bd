"""Speak another protocol."""

from __future__ import annotations

from fakes.liar import Honest

from ovirt_imageio import client

EXPECTED = client.BackendUntrusted
MESSAGE = "no HTTP|not HTTP"


class Lie(Honest):
    """See the module."""

    def greet(self, wire):
        wire.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
