"""/images/TICKET/checksum: the checksum of the disk, and which algorithms there are."""

from __future__ import annotations

import logging
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.handlers import parse
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.ops import checksum

__all__ = ["Algorithms", "Checksum"]

log = logging.getLogger("checksum")

# A block that is a multiple of this is read without read-modify-write from every disk.
ALIGNMENT = 4096


class Checksum:
    """Computes checksums.

    Threads: any number at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, request: Request, response: Response, ticket_id: str) -> None:
        """Answer with the checksum of the disk as far as the ticket permits, or of its first `length` bytes."""
        parse.ticket_id(ticket_id)
        algorithm = parse.choice(
            request, "algorithm", {name: name for name in checksum.algorithms()}, checksum.DEFAULT_ALGORITHM
        )
        block_size = check_block_size(parse.natural(request, "block_size", default=checksum.BLOCK_SIZE))
        length: Optional[int] = parse.natural(request, "length", default=None)
        with self._store.use(ticket_id, "read", request.connection) as disk:
            if length is not None and length > disk.size:
                raise errors.RangeNotSatisfiable(0, length, disk.size)
            log.info(
                "[%s] CHECKSUM transfer=%s algorithm=%s block_size=%d",
                request.caller,
                disk.transfer_id,
                algorithm,
                block_size,
            )
            operation = checksum.Checksum(disk.backend, algorithm, block_size, disk.size if length is None else length)
            disk.run(operation)
        response.send_json({"algorithm": algorithm, "block_size": block_size, "checksum": operation.result})


class Algorithms:
    """Lists the algorithms; needs no ticket."""

    def get(self, request: Request, response: Response, ticket_id: str) -> None:
        """Answer with the names of the algorithms."""
        response.send_json({"algorithms": checksum.algorithms()})


def check_block_size(size: int) -> int:
    """Return size if blocks may have it."""
    if not checksum.MIN_BLOCK_SIZE <= size <= checksum.MAX_BLOCK_SIZE or size % ALIGNMENT:
        raise errors.InvalidValue(
            "block_size",
            size,
            f"a multiple of {ALIGNMENT} from {checksum.MIN_BLOCK_SIZE} to {checksum.MAX_BLOCK_SIZE}",
        )
    return size
