"""/sessions: show a signed token, get a session; and what lets the images be used with either.

    POST   /sessions       Authorization: TOKEN                     a new session: its id in the header Session-Id
    POST   /sessions       Session-Id: ID, Authorization: TOKEN     renew it
    POST   /sessions       Session-Id: ID                           check it
    DELETE /sessions/ID                                             end it; to know the id is enough

A request for an image carries `Session-Id: ID`, the query `session_id=ID`, which a browser can put into a link, or the
token itself in `Authorization`. `Guarded` wraps a resource of images, so that it sees only which ticket may be used:

    routes = [
        ("/images/(.*)", Guarded(Images(store), sessions)),
        ("/sessions/?", Opening(sessions)),
        ("/sessions/(.+)", Closing(sessions)),
    ]
    Application(routes, cors=POLICY)
"""

from __future__ import annotations

from typing import Callable

from ovirt_imageio.handlers import parse
from ovirt_imageio.httpd import cors
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.sessions.sessions import Sessions

__all__ = ["POLICY", "Closing", "Guarded", "Opening"]

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

Verb = Callable[..., None]


class Opening:
    """/sessions: begins, renews and checks sessions.

    Threads: any number at once; all state is in the sessions.
    """

    cors = POLICY

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def post(self, request: Request, response: Response) -> None:
        """Begin, renew or check a session."""
        opened = self._sessions.open(request.headers.get("authorization"), request.headers.get("session-id"))
        response.headers["session-id"] = opened
        response.headers["cache-control"] = "no-store"
        response.send()


class Closing:
    """/sessions/ID: ends sessions.

    Threads: any number at once; all state is in the sessions.
    """

    cors = POLICY

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def delete(self, request: Request, response: Response, session_id: str) -> None:
        """End a session."""
        self._sessions.close(session_id)
        response.send(204)


class Guarded:
    """A resource of images, with all its verbs, for tickets of the control service and for those of sessions."""

    cors = POLICY

    def __init__(self, resource: object, sessions: Sessions) -> None:
        self._resource = resource
        self._sessions = sessions

    def __getattr__(self, name: str) -> Verb:
        """Return a verb of the resource, for the ticket that a session stands for."""
        verb = getattr(self._resource, name)

        def guarded(request: Request, response: Response, ticket_id: str, *groups: str) -> None:
            verb(request, response, self._resolve(request, ticket_id), *groups)

        return guarded

    def _resolve(self, request: Request, ticket_id: str) -> str:
        if ticket_id in ("", "*") or parse.is_preflight(request):
            # A browser shows no credentials before it knows that it may; the resource answers such a question itself.
            return ticket_id
        session_id = request.headers.get("session-id") or request.query.get("session_id")
        return self._sessions.resolve(ticket_id, session_id, request.headers.get("authorization"))
