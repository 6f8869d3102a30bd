"""What a browser lets a page of another origin do with us (the CORS protocol of the Fetch standard).

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from ovirt_imageio.httpd.head import Headers

__all__ = ["Policy"]

# What a page may read beside the few names that every page may: enough to follow ranges and names of files.
EXPOSED = (
    "Accept-Ranges",
    "Allow",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "ETag",
    "Retry-After",
    "Server-Timing",
)

ORIGIN = "origin"
ASKS_HEADERS = "access-control-request-headers"
ASKS_METHOD = "access-control-request-method"

# What only browsers send.
ASKING = frozenset([ORIGIN, ASKS_HEADERS, ASKS_METHOD])


@dataclass(frozen=True)
class Policy:
    """Which origins may use a resource, and which request headers they may send; "*" means any.

    Nothing here rests on cookies: an open policy gives a page no more than curl has, so it is the default.
    """

    origins: Sequence[str] = ("*",)
    request_headers: Sequence[str] = ("*",)
    exposed: Sequence[str] = EXPOSED
    # Seconds that a browser may remember the answer to a preflight; most remember for less.
    max_age: int = 86400

    def headers(self, request: Headers, verbs: Sequence[str]) -> dict[str, str]:
        """Return the response headers for a request to a resource that has the verbs; none if no browser sent it."""
        if ASKING.isdisjoint(request):
            return {}
        answer = {}
        if ORIGIN in request:
            allowed = self._allowed_origin(request[ORIGIN])
            if allowed is not None:
                answer["access-control-allow-origin"] = allowed
            if "*" not in self.origins:
                # A cache must not give one origin's answer to another one.
                answer["vary"] = "Origin"
        if ASKS_HEADERS in request:
            answer["access-control-allow-headers"] = ",".join(self.request_headers)
        if ASKS_METHOD in request:
            answer["access-control-allow-methods"] = ",".join(verbs)
        else:
            answer["access-control-expose-headers"] = ", ".join(self.exposed)
        answer["access-control-max-age"] = str(self.max_age)
        return answer

    def _allowed_origin(self, origin: str) -> Optional[str]:
        if "*" in self.origins:
            return "*"
        return origin if origin in self.origins else None
