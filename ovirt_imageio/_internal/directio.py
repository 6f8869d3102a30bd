"""The public module `ovirt_imageio.directio`, under the name that deployed vdsm versions import."""

from __future__ import annotations

from ovirt_imageio.directio import BUFFERSIZE, Receive, Send, Zero

__all__ = ["BUFFERSIZE", "Receive", "Send", "Zero"]
