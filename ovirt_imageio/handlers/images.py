"""/images/TICKET: read, write, zero and flush a disk.

Parse, authorize, run, answer: whatever takes more than that belongs below.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.geometry import byteranges
from ovirt_imageio.handlers import parse
from ovirt_imageio.handlers.attach import PROTOCOL, attach
from ovirt_imageio.handlers.representation import represent
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.ops import operations

__all__ = ["Images"]

log = logging.getLogger("images")

READ_FEATURES = ["checksum", "extents", "nbd", "qcow2"]
WRITE_FEATURES = ["checksum", "extents", "flush", "nbd", "qcow2", "zero"]
READ_METHODS = "OPTIONS,GET"
# The keys of a transfer's state that the holder of its ticket may see: seconds left, bytes per second, bytes that came
# and that went, and the number of connections.
ACTIVITY = ("remaining", "rate", "received", "sent", "connections")
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
        if request.connection.encryption != "none":
            answer["tls"] = request.connection.encryption
        can_write = True
        if ticket_id != "*" and not parse.is_preflight(request):
            with self._store.use(ticket_id, "read", request.connection) as disk:
                disk.touch()
                log.info("[%s] OPTIONS transfer=%s", request.caller, disk.transfer_id)
                can_write = disk.ticket.can("write")
                info = disk.info
                answer.update(
                    max_readers=disk.backend.max_readers,
                    max_writers=disk.backend.max_writers,
                    size=disk.size,
                    block_size=disk.backend.block_size,
                    transfer_id=disk.transfer_id,
                    sparse=disk.ticket.sparse,
                    dirty=disk.ticket.dirty,
                    **{name: info[name] for name in ACTIVITY},
                )
        answer["features"] = WRITE_FEATURES if can_write else READ_FEATURES
        response.headers["allow"] = WRITE_METHODS if can_write else READ_METHODS
        response.send_json(answer)

    def get(self, request: Request, response: Response, ticket_id: str) -> None:
        """Send the disk, or an image of its data, or a range of either; or speak NBD."""
        parse.ticket_id(ticket_id)
        if PROTOCOL in request.upgrades:
            attach(self._store, request, response, ticket_id)
            return
        byte_range = parse.byte_range(request)
        response.close = response.close or request.query.get("close") == "y"
        if_range = request.headers.get("if-range")
        caller = request.caller
        with self._store.use(ticket_id, "read", request.connection) as disk:
            content = represent(request, disk)
            if if_range is not None and if_range != content.etag:
                byte_range = None
            total = content.length
            offset, length = (0, total) if byte_range is None else byte_range.resolve(total)
            log.debug("[%s] READ size=%d offset=%d transfer=%s", caller, length, offset, disk.transfer_id)
            content.describe(response)
            if byte_range is not None:
                response.headers["content-range"] = byteranges.content_range(offset, length, total)
            sink = response.start(206 if byte_range else 200, length, content_type="application/octet-stream")
            disk.run(content.read(sink, offset, length))

    def head(self, request: Request, response: Response, ticket_id: str) -> None:
        """Tell the size of what a download gets; RFC 9110 knows no ranges here."""
        parse.ticket_id(ticket_id)
        with self._store.use(ticket_id, "read", request.connection) as disk:
            disk.touch()
            content = represent(request, disk)
            content.describe(response)
            response.start(200, content.length, content_type="application/octet-stream")

    def put(self, request: Request, response: Response, ticket_id: str) -> None:
        """Write the body at the offset that Content-Range names, or at 0."""
        parse.ticket_id(ticket_id)
        length = parse.upload_length(request)
        offset, promised = parse.upload_range(request)
        flush = parse.choice(request, "flush", {"y": True, "n": False}, default=True)
        response.close = response.close or request.query.get("close") == "y"
        caller = request.caller
        with self._store.use(ticket_id, "write", request.connection) as disk:
            limit = disk.capacity
            check_bounds(offset, length or promised or 0, limit)
            log.debug(
                "[%s] WRITE size=%s offset=%d flush=%s transfer=%s", caller, length, offset, flush, disk.transfer_id
            )
            operation: operations.Operation
            if length is None:
                most = min(limit - offset, limit if promised is None else promised)
                operation = operations.WriteAll(disk.backend, request.body, offset, most, flush)
            else:
                operation = operations.Write(disk.backend, request.body, offset, length, flush)
            disk.run(operation)
            if promised is not None and operation.done < promised:
                raise errors.PartialContent(promised, operation.done)
        response.send()

    def patch(self, request: Request, response: Response, ticket_id: str) -> None:
        """Zero a range, or flush, as the JSON body says."""
        parse.ticket_id(ticket_id)
        # The disk is not in use while a client takes its time to send what it wants.
        self._store.authorize(ticket_id, "write")
        message = parse.json_object(request)
        if parse.member(message, "op", ("zero", "flush")) == "zero":
            self._zero(request, ticket_id, message)
        else:
            self._flush(request, ticket_id)
        response.send()

    def _zero(self, request: Request, ticket_id: str, message: Mapping[str, Any]) -> None:
        offset = parse.integer(message, "offset", default=0)
        size = parse.integer(message, "size")
        flush = parse.boolean(message, "flush", default=False)
        caller = request.caller
        with self._store.use(ticket_id, "write", request.connection) as disk:
            check_bounds(offset, size, disk.capacity)
            log.debug("[%s] ZERO size=%d offset=%d flush=%s transfer=%s", caller, size, offset, flush, disk.transfer_id)
            disk.run(operations.Zero(disk.backend, offset, size, flush))

    def _flush(self, request: Request, ticket_id: str) -> None:
        with self._store.use(ticket_id, "write", request.connection) as disk:
            log.info("[%s] FLUSH transfer=%s", request.caller, disk.transfer_id)
            disk.run(operations.Flush(disk.backend))


def check_bounds(offset: int, length: int, limit: int) -> None:
    """Raise errors.RangeNotSatisfiable if the range does not end within limit."""
    if offset + length > limit:
        raise errors.RangeNotSatisfiable(offset, length, limit)
