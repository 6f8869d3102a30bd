"""/metrics: what goes on in the process, for Prometheus. Only the control service has it."""

from __future__ import annotations

from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.measure.metrics import CONTENT_TYPE, Registry

__all__ = ["MetricsPage"]


class MetricsPage:
    """/metrics

    Threads: any number at once.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def get(self, request: Request, response: Response) -> None:
        """Tell everything."""
        response.send(200, self._registry.render().encode(), CONTENT_TYPE)
