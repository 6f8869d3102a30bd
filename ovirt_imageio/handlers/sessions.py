"""/sessions: show a signed token, get a session; and what lets the images be used with either.

    POST   /sessions       Authorization: TOKEN                     a new session: its id in the header Session-Id
    POST   /sessions       Session-Id: ID, Authorization: TOKEN     renew it
    POST   /sessions       Session-Id: ID                           check it
    DELETE /sessions/ID                                             end it; to know the id is enough

A request for an image carries `Session-Id: ID`, the query `session_id=ID`, which a browser can put into a link, or the
token itself in `Authorization`:

    routes = [
        ("/images/(.*)", Guarded(Images(store), [door(sessions)])),
        ("/sessions/?", Opening(sessions)),
        ("/sessions/(.+)", Closing(sessions)),
    ]
    Application(routes, cors=POLICY)
"""

from __future__ import annotations

from ovirt_imageio.handlers.doors import POLICY, Door
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.sessions.sessions import Sessions

__all__ = ["Closing", "Opening", "door"]


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


def door(sessions: Sessions) -> Door:
    """Return the door for those that show a session or a token."""

    def resolve(request: Request, ticket_id: str) -> str:
        session_id = request.headers.get("session-id") or request.query.get("session_id")
        return sessions.resolve(ticket_id, session_id, request.headers.get("authorization"))

    return resolve
