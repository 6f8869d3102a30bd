"""/images/TICKET: read, write, zero and flush a disk.

Parse, authorize, run, answer: whatever takes more than that belongs below.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.auth.transfer import Transfer
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.geometry import byteranges
from ovirt_imageio.handlers import parse
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.ops import operations

__all__ = ["Images"]

log = logging.getLogger("images")

READ_FEATURES = ["checksum", "extents"]
WRITE_FEATURES = ["checksum", "extents", "flush", "zero"]
READ_METHODS = "OPTIONS,GET"
WRITE_METHODS = "OPTIONS,GET,PUT,PATCH"


class Images:
    """Serves the disks of a store of tickets.

    Threads: any number at once; all state is in the store.
    """

    def __init__(self, store: Store, unix_socket: Optional[str] = None) -> None:
        self._store = store
        self._unix_socket = unix_socket

    def options(self, request: Request, response: Response, ticket_id: str) -> None:
        """Tell what can be done: with this ticket, or, for "*", at all."""
        parse.ticket_id(ticket_id)
        answer: dict[str, Any] = {}
        if self._unix_socket is not None:
            answer["unix_socket"] = self._unix_socket
        can_write = True
        if ticket_id != "*" and not parse.is_preflight(request):
            transfer = self._store.authorize(ticket_id, "read")
            backend = transfer.backend(request.connection)
            can_write = transfer.ticket.can("write")
            transfer.touch()
            log.info("[%s] OPTIONS transfer=%s", request.connection.client, transfer.id)
            answer.update(
                max_readers=backend.max_readers,
                max_writers=backend.max_writers,
                size=available(transfer, backend),
                block_size=backend.block_size,
                transfer_id=transfer.id,
                sparse=transfer.ticket.sparse,
                dirty=transfer.ticket.dirty,
            )
        answer["features"] = WRITE_FEATURES if can_write else READ_FEATURES
        response.headers["allow"] = WRITE_METHODS if can_write else READ_METHODS
        response.send_json(answer)

    def get(self, request: Request, response: Response, ticket_id: str) -> None:
        """Send the disk, or a range of it."""
        parse.ticket_id(ticket_id)
        byte_range = parse.byte_range(request)
        response.close = response.close or request.query.get("close") == "y"
        transfer = self._store.authorize(ticket_id, "read")
        if_range = request.headers.get("if-range")
        if if_range is not None and if_range != etag(transfer):
            byte_range = None
        backend = transfer.backend(request.connection)
        total = available(transfer, backend)
        offset, length = (0, total) if byte_range is None else byte_range.resolve(total)
        log.debug("[%s] READ size=%d offset=%d transfer=%s", request.connection.client, length, offset, transfer.id)
        describe(response, transfer)
        if byte_range is not None:
            response.headers["content-range"] = byteranges.content_range(offset, length, total)
        sink = response.start(206 if byte_range else 200, length, content_type="application/octet-stream")
        transfer.run(operations.Read(backend, sink, offset, length), request.connection)

    def head(self, request: Request, response: Response, ticket_id: str) -> None:
        """Tell the size of the disk; RFC 9110 knows no ranges here."""
        parse.ticket_id(ticket_id)
        transfer = self._store.authorize(ticket_id, "read")
        backend = transfer.backend(request.connection)
        transfer.touch()
        describe(response, transfer)
        response.start(200, available(transfer, backend), content_type="application/octet-stream")

    def put(self, request: Request, response: Response, ticket_id: str) -> None:
        """Write the body at the offset that Content-Range names, or at 0."""
        parse.ticket_id(ticket_id)
        length = parse.upload_length(request)
        offset = parse.upload_offset(request)
        flush = parse.choice(request, "flush", {"y": True, "n": False}, default=True)
        response.close = response.close or request.query.get("close") == "y"
        transfer = self._store.authorize(ticket_id, "write")
        backend = transfer.backend(request.connection)
        limit = writable(transfer, backend)
        check_bounds(offset, length or 0, limit)
        log.debug(
            "[%s] WRITE size=%s offset=%d flush=%s transfer=%s",
            request.connection.client,
            length,
            offset,
            flush,
            transfer.id,
        )
        operation: operations.Operation
        if length is None:
            operation = operations.WriteAll(backend, request.body, offset, limit - offset, flush)
        else:
            operation = operations.Write(backend, request.body, offset, length, flush)
        transfer.run(operation, request.connection)
        response.send()

    def patch(self, request: Request, response: Response, ticket_id: str) -> None:
        """Zero a range, or flush, as the JSON body says."""
        parse.ticket_id(ticket_id)
        transfer = self._store.authorize(ticket_id, "write")
        message = parse.json_object(request)
        operation = parse.member(message, "op", ("zero", "flush"))
        if operation == "zero":
            self._zero(request, transfer, message)
        else:
            self._flush(request, transfer)
        response.send()

    def _zero(self, request: Request, transfer: Transfer, message: Mapping[str, Any]) -> None:
        offset = parse.integer(message, "offset", default=0)
        size = parse.integer(message, "size")
        flush = parse.boolean(message, "flush", default=False)
        backend = transfer.backend(request.connection)
        check_bounds(offset, size, writable(transfer, backend))
        log.debug(
            "[%s] ZERO size=%d offset=%d flush=%s transfer=%s",
            request.connection.client,
            size,
            offset,
            flush,
            transfer.id,
        )
        transfer.run(operations.Zero(backend, offset, size, flush), request.connection)

    def _flush(self, request: Request, transfer: Transfer) -> None:
        log.info("[%s] FLUSH transfer=%s", request.connection.client, transfer.id)
        transfer.run(operations.Flush(transfer.backend(request.connection)), request.connection)


def available(transfer: Transfer, backend: Backend) -> int:
    """Return how many bytes can be read: the ticket may allow less than there is, or more."""
    return min(transfer.ticket.size, backend.size())


def writable(transfer: Transfer, backend: Backend) -> int:
    """Return how many bytes can be written: some disks grow up to what the ticket allows."""
    return transfer.ticket.size if backend.can_grow else available(transfer, backend)


def check_bounds(offset: int, length: int, limit: int) -> None:
    """Raise errors.RangeNotSatisfiable if the range does not end within limit."""
    if offset + length > limit:
        raise errors.RangeNotSatisfiable(offset, length, limit)


def describe(response: Response, transfer: Transfer) -> None:
    """Tell a downloader what it gets: a file with a name, of which it may ask for ranges."""
    response.headers["accept-ranges"] = "bytes"
    response.headers["etag"] = etag(transfer)
    response.headers["content-disposition"] = byteranges.content_disposition(transfer.ticket.filename)


def etag(transfer: Transfer) -> str:
    """Return a strong validator: the same while nothing is written through this ticket."""
    return f'"{transfer.content_tag}"'
