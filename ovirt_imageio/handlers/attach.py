"""GET /images/TICKET with `Upgrade: nbd`: use the disk by NBD instead of request by request."""

from __future__ import annotations

import logging

from ovirt_imageio.auth.store import Store
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.ops.attach import Attach, make_offer

__all__ = ["PROTOCOL", "attach"]

log = logging.getLogger("images")

PROTOCOL = "nbd"


def attach(store: Store, request: Request, response: Response, ticket_id: str) -> None:
    """Switch to NBD, and serve the disk until the client leaves."""
    caller = request.caller
    with store.use(ticket_id, "read", request.connection) as disk:
        is_writable = disk.ticket.can("write")
        # As the URL calls it, which is all that the client knows: a signed ticket has another id in the store.
        names = ("", request.path.partition("/images/")[2])
        offer = make_offer(disk.backend, disk.size, names, is_writable=is_writable)
        log.info("[%s] ATTACH transfer=%s writable=%s", caller, disk.transfer_id, is_writable)
        operation = Attach(disk.backend, response.upgrade(PROTOCOL), offer)
        try:
            disk.run(operation)
        finally:
            log.info("[%s] DETACH transfer=%s: %s", caller, disk.transfer_id, operation)
