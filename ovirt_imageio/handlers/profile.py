"""/profile/: start and stop the profiler. Only the control service has it."""

from __future__ import annotations

from typing import Protocol

from ovirt_imageio import errors
from ovirt_imageio.handlers import parse
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response

__all__ = ["Profile", "Profiler"]

CLOCKS = {"cpu": "cpu", "wall": "wall"}


class Profiler(Protocol):
    """What measures. Every method raises errors.NotFound if it is not installed."""

    def is_running(self) -> bool:
        """Return True between start and stop."""

    def start(self, clock: str) -> None:
        """Start; raises errors.InvalidValue if it runs already."""

    def stop(self) -> None:
        """Stop, and write what was found; raises errors.InvalidValue if it does not run."""


class Profile:
    """/profile/

    Threads: any number at once.
    """

    def __init__(self, profiler: Profiler) -> None:
        self._profiler = profiler

    def get(self, request: Request, response: Response) -> None:
        """Tell whether it runs."""
        response.send_json({"running": self._profiler.is_running()})

    def post(self, request: Request, response: Response) -> None:
        """Start with ?run=y, and perhaps &clock=wall; stop with ?run=n."""
        # Without the profiler every call is a 404, whatever it asks for.
        self._profiler.is_running()
        if "run" not in request.query:
            raise errors.InvalidValue("run", None, "y or n")
        run = parse.choice(request, "run", {"y": True, "n": False}, default=False)
        clock = parse.choice(request, "clock", CLOCKS, default="cpu")
        if run:
            self._profiler.start(clock)
        else:
            self._profiler.stop()
        response.send()
