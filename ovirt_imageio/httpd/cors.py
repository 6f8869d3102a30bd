"""What a browser lets a page of another origin do with us (the CORS protocol of the Fetch standard).

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
)


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

    def headers(self, request: Headers, verbs: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the response headers for a request to a resource that has the verbs; none for what is no browser."""
        origin = request.get("origin")
        asks_headers = "access-control-request-headers" in request
        asks_method = "access-control-request-method" in request
        if origin is None and not asks_headers and not asks_method:
            return
        if origin is not None:
            allowed = self._allowed_origin(origin)
            if allowed is not None:
                yield "access-control-allow-origin", allowed
            if "*" not in self.origins:
                # A cache must not give one origin's answer to another one.
                yield "vary", "Origin"
        if asks_headers:
            yield "access-control-allow-headers", ",".join(self.request_headers)
        if asks_method:
            yield "access-control-allow-methods", ",".join(verbs)
        else:
            yield "access-control-expose-headers", ", ".join(self.exposed)
        yield "access-control-max-age", str(self.max_age)

    def _allowed_origin(self, origin: str) -> Optional[str]:
        if "*" in self.origins:
            return "*"
        return origin if origin in self.origins else None
