"""/info: is a daemon there, and which version? Needs no ticket."""

from __future__ import annotations

from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.version import __version__

__all__ = ["Info"]


class Info:
    """Tells the version."""

    def get(self, request: Request, response: Response) -> None:
        """Answer with the version."""
        response.send_json({"version": __version__})
