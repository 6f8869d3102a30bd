"""/health: may clients be sent here? For load balancers and probes; needs no ticket."""

from __future__ import annotations

from collections.abc import Callable

from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response

__all__ = ["Health"]


class Health:
    """Tells whether the service is serving.

    is_stopping: tells whether it lets what runs finish, and accepts nothing new.

    Threads: any number at once.
    """

    def __init__(self, is_stopping: Callable[[], bool]) -> None:
        self._is_stopping = is_stopping

    def get(self, request: Request, response: Response) -> None:
        """Answer 200 while serving, 503 while stopping."""
        is_stopping = self._is_stopping()
        response.send_json({"status": "stopping" if is_stopping else "serving"}, 503 if is_stopping else 200)
