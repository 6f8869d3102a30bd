"""Signed tickets: what a request for /images/JTI shows.

    Authorization: Bearer TOKEN
    ?ticket=TOKEN                   for a link, and for programs that know URLs alone

A request without either is one for an ordinary ticket. No log has the query of a request.
"""

from __future__ import annotations

from typing import Optional

from ovirt_imageio.handlers.doors import Door
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.sessions.signed import SignedTickets

__all__ = ["door"]

SCHEME = "bearer "


def door(tickets: SignedTickets) -> Door:
    """Return the door for those that show a signed ticket."""

    def resolve(request: Request, ticket_id: str) -> str:
        token = shown(request)
        return ticket_id if token is None else tickets.resolve(ticket_id, token)

    return resolve


def shown(request: Request) -> Optional[str]:
    """Return the token that a request shows, None if there is none."""
    authorization = request.headers.get("authorization", "")
    if authorization[: len(SCHEME)].lower() == SCHEME:
        return authorization[len(SCHEME) :].strip()
    return request.query.get("ticket")
