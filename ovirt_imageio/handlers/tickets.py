"""/tickets: add, look at, change and remove tickets. Only the control service has it.

Parse, call the store, answer: whatever takes more than that belongs below.
"""

from __future__ import annotations

import logging
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.handlers import parse
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.sessions.signed import SignedTickets

__all__ = ["TicketList", "Tickets"]

log = logging.getLogger("tickets")

# A wait for changes ends by then: each one holds a connection and its thread.
LONGEST_WAIT = 300


class Tickets:
    """/tickets/ID

    Threads: any number at once; all state is in the store.
    """

    def __init__(self, store: Store, remove_timeout: float, signed: Optional[SignedTickets] = None) -> None:
        self._store = store
        self._remove_timeout = remove_timeout
        self._signed = signed

    def get(self, request: Request, response: Response, ticket_id: str) -> None:
        """Tell the state; with ?wait=SECONDS as soon as it differs from that of ?since=VERSION."""
        check(ticket_id)
        seconds = min(parse.natural(request, "wait", default=0), LONGEST_WAIT)
        since: Optional[int] = parse.natural(request, "since", default=None)
        # A service that stops does not wait for clients that only watch.
        info = self._store.wait(self._stored(ticket_id), seconds, since, lambda: request.connection.is_stopping)
        log.debug("GET transfer=%s", info["transfer_id"])
        response.send_json(info)

    def put(self, request: Request, response: Response, ticket_id: str) -> None:
        """Add the ticket in the body."""
        check(ticket_id)
        self._store.add(parse.json_object(request), ticket_id)
        response.send()

    def patch(self, request: Request, response: Response, ticket_id: str) -> None:
        """Change what the body names."""
        check(ticket_id)
        self._store.extend(self._stored(ticket_id), parse.json_object(request))
        response.send()

    def delete(self, request: Request, response: Response, ticket_id: str) -> None:
        """Remove the ticket; without an id, all of them. A signed one is refused from then on."""
        if self._signed is not None:
            # First: a client that asks again must not bring it back. The token of an id that is not known may come yet.
            revoked = self._signed.revoke(ticket_id)
            if not revoked and ticket_id and not self._has(ticket_id):
                revoked = self._signed.deny(ticket_id)
            self._remove(revoked[0] if ticket_id and revoked else ticket_id)
        else:
            self._remove(ticket_id)
        response.send(204)

    def _remove(self, ticket_id: str) -> None:
        if ticket_id:
            self._store.remove(ticket_id, self._remove_timeout)
        else:
            self._store.clear(self._remove_timeout)

    def _has(self, ticket_id: str) -> bool:
        try:
            self._store.info(ticket_id)
        except errors.NotFound:
            return False
        return True

    def _stored(self, ticket_id: str) -> str:
        """Return the id in the store of the ticket that the path names: a signed one has another one there."""
        return (self._signed and self._signed.ticket_of(ticket_id)) or ticket_id


class TicketList:
    """/tickets

    Threads: any number at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, request: Request, response: Response) -> None:
        """Tell the state of all tickets, without their ids, or of `limit` of them after the first `offset`.

        With ?match=TEXT, and their ids, of those that it means.
        """
        text = request.query.get("match")
        if text == "":
            raise errors.InvalidValue("match", text, "the beginning of an id or transfer id")
        offset = parse.natural(request, "offset", default=0)
        limit: Optional[int] = parse.natural(request, "limit", default=None)
        response.send_json(self._store.list(offset, limit) if text is None else self._store.find(text))


def check(ticket_id: str) -> None:
    """Raise errors.InvalidValue for an empty id."""
    if not ticket_id:
        raise errors.InvalidValue("ticket id", ticket_id, "an id in the path: /tickets/ID")
