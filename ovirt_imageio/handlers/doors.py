"""Doors before the images: a request names one ticket, and shows something for which it may use another one.

A resource of images sees only the ticket in the store that a request may use:

    Guarded(Images(store), [signed.door(tickets), sessions.door(sessions)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ovirt_imageio.handlers import parse
from ovirt_imageio.httpd import cors
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response

__all__ = ["POLICY", "Door", "Guarded"]

# Takes the id that a request names, returns the id of the ticket in the store; or raises errors.AuthorizationError.
Door = Callable[[Request, str], str]

Verb = Callable[..., None]

# Explicit lists: "*" covers neither Authorization in what a page may send (Fetch standard, 3.2.3), nor does a page see
# Session-Id unless it is exposed.
POLICY = cors.Policy(
    request_headers=(
        "Authorization",
        "Cache-Control",
        "Content-Length",
        "Content-Range",
        "Content-Type",
        "If-Range",
        "Pragma",
        "Range",
        "Session-Id",
    ),
    exposed=(*cors.EXPOSED, "Session-Id"),
    max_age=300,
)


class Guarded:
    """A resource of images, with all its verbs, behind doors that are passed one after the other.

    Threads: any number at once.
    """

    cors = POLICY

    def __init__(self, resource: object, doors: Sequence[Door]) -> None:
        self._resource = resource
        self._doors = doors

    def __getattr__(self, name: str) -> Verb:
        """Return a verb of the resource, for the ticket that may be used."""
        verb = getattr(self._resource, name)

        def guarded(request: Request, response: Response, ticket_id: str, *groups: str) -> None:
            verb(request, response, self._resolve(request, ticket_id), *groups)

        return guarded

    def _resolve(self, request: Request, ticket_id: str) -> str:
        if ticket_id in ("", "*") or parse.is_preflight(request):
            # A browser shows no credentials before it knows that it may; the resource answers such a question itself.
            return ticket_id
        for door in self._doors:
            ticket_id = door(request, ticket_id)
        return ticket_id
