"""/images/TICKET/extents: what the disk holds, streamed as one JSON array while it is found."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.geometry.extent import Extent
from ovirt_imageio.handlers import parse
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.ops import operations
from ovirt_imageio.relay import Sink

__all__ = ["Extents", "ExtentsWriter"]

log = logging.getLogger("extents")

# Written by hand: an encoder that looks at each object takes five times as long, and a disk may have a million.
TEMPLATE = {
    "zero": '{{"start": {}, "length": {}, "zero": {}, "hole": {}}}',
    "dirty": '{{"start": {}, "length": {}, "dirty": {}, "zero": {}}}',
}
JSON: Mapping[bool, str] = {False: "false", True: "true"}


class Extents:
    """Lists extents: of the whole disk, or, beyond what old clients know, a page of them.

    Threads: any number at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, request: Request, response: Response, ticket_id: str) -> None:
        """Send the extents from `offset` (0) on, for `length` bytes (to the end), `limit` of them (all)."""
        parse.ticket_id(ticket_id)
        with self._store.use(ticket_id, "read", request.connection) as disk:
            context = parse.choice(request, "context", {"zero": "zero", "dirty": "dirty"}, default="zero")
            offset = parse.natural(request, "offset", default=0)
            length = parse.natural(request, "length", default=None)
            limit = parse.natural(request, "limit", default=None)
            if context == "dirty" and not disk.ticket.dirty:
                raise errors.UnsupportedContext(context, 'the ticket was added without "dirty": true')
            available = disk.size - offset
            if available < 0:
                raise errors.RangeNotSatisfiable(offset, length, disk.size)
            length = available if length is None else min(length, available)
            log.info("[%s] EXTENTS transfer=%s context=%s", request.caller, disk.transfer_id, context)
            writer = ExtentsWriter(response, TEMPLATE[context])
            disk.run(operations.Extents(disk.backend, writer.write, context, offset, length, limit))
            writer.finish()


class ExtentsWriter:
    """Turns batches of extents into a JSON array; the answer starts with the first batch."""

    def __init__(self, response: Response, template: str) -> None:
        self._response = response
        self._format = template.format
        self._sink: Optional[Sink] = None
        self._separator = ""

    def write(self, batch: list[Extent]) -> None:
        """Send a batch; one that is empty only starts the answer."""
        if self._sink is None:
            self._sink = self._response.start(content_type="application/json")
            self._send("[")
        if batch:
            texts = [self._format(start, length, JSON[first], JSON[second]) for start, length, first, second in batch]
            self._send(self._separator + ", ".join(texts))
            self._separator = ", "

    def finish(self) -> None:
        """End the array."""
        self._send("]\n")

    def _send(self, text: str) -> None:
        assert self._sink is not None
        self._sink.write(memoryview(text.encode("ascii")))
