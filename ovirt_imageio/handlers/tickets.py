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

__all__ = ["TicketList", "Tickets"]

log = logging.getLogger("tickets")

# A wait for changes ends by then: each one holds a connection and its thread.
LONGEST_WAIT = 300


class Tickets:
    """/tickets/ID

    Threads: any number at once; all state is in the store.
    """

    def __init__(self, store: Store, remove_timeout: float) -> None:
        self._store = store
        self._remove_timeout = remove_timeout

    def get(self, request: Request, response: Response, ticket_id: str) -> None:
        """Tell the state; with ?wait=SECONDS as soon as it differs from that of ?since=VERSION."""
        check(ticket_id)
        seconds = min(parse.natural(request, "wait", default=0), LONGEST_WAIT)
        since: Optional[int] = parse.natural(request, "since", default=None)
        # A service that stops does not wait for clients that only watch.
        info = self._store.wait(ticket_id, seconds, since, lambda: request.connection.is_stopping)
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
        self._store.extend(ticket_id, parse.json_object(request))
        response.send()

    def delete(self, request: Request, response: Response, ticket_id: str) -> None:
        """Remove the ticket; without an id, all of them."""
        if ticket_id:
            self._store.remove(ticket_id, self._remove_timeout)
        else:
            self._store.clear(self._remove_timeout)
        response.send(204)


class TicketList:
    """/tickets

    Threads: any number at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, request: Request, response: Response) -> None:
        """Tell the state of all tickets, without their ids; with ?match=TEXT, and their ids, of those that it means."""
        text = request.query.get("match")
        if text == "":
            raise errors.InvalidValue("match", text, "the beginning of an id or transfer id")
        response.send_json(self._store.list() if text is None else self._store.find(text))


def check(ticket_id: str) -> None:
    """Raise errors.InvalidValue for an empty id."""
    if not ticket_id:
        raise errors.InvalidValue("ticket id", ticket_id, "an id in the path: /tickets/ID")
