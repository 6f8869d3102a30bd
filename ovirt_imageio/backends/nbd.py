"""A disk behind an NBD server: what every oVirt disk is, as qemu-nbd understands the format of its image.

Knows URLs and the NBD client; knows nothing of requests, tickets and configuration.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import logging
from collections.abc import Iterator
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend, Terms
from ovirt_imageio.backends.nbdconnection import NBDConnection, RequestScope, translated
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.geometry import blocks
from ovirt_imageio.geometry.extent import Extent
from ovirt_imageio.nbd import address, gate, status
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.connect import CONNECT_TIMEOUT, REPLY_TIMEOUT
from ovirt_imageio.nbd.errors import ConnectionDead
from ovirt_imageio.nbd.export import Watch
from ovirt_imageio.nbd.handshake import Agreement, Export
from ovirt_imageio.nbd.inbox import Channel
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.streaming import Streamer
from ovirt_imageio.nbd.wire import ALLOCATION_DEPTH, BASE_ALLOCATION, Mode
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.relay import Progress, Sink, Source

__all__ = ["NBDBackend", "check_url", "open_backend"]

log = logging.getLogger(__name__)


def check_url(url: str) -> None:
    """Raise errors.InvalidValue if url names no NBD export. Nothing is resolved or opened."""
    address.parse(url)


def open_backend(url: str, terms: Terms) -> NBDBackend:
    """Connect to the export at url; a thread that cuts the line interrupts that."""
    return NBDBackend(
        url,
        writable=terms.writable,
        sparse=terms.sparse,
        dirty=terms.dirty,
        max_connections=terms.options.max_connections,
        connect_timeout=terms.options.nbd_connect_timeout,
        reply_timeout=terms.options.nbd_reply_timeout,
        ca_file=terms.options.ca_file,
        line=terms.line,
    )


class NBDBackend(Backend):
    """One export of an NBD server, over one connection.

    A request that the server refuses leaves the connection as it is. A connection that breaks is closed, and the next
    request makes another. What was written before, and not flushed, may then be lost: so flushing fails.

    Threads: one at a time, but for `interrupt`, which any thread may call.
    """

    name = "nbd"
    can_recover = True

    def __init__(
        self,
        url: str,
        *,
        writable: bool = False,
        sparse: bool = False,
        dirty: bool = False,
        max_connections: int = 8,
        connect_timeout: float = CONNECT_TIMEOUT,
        reply_timeout: float = REPLY_TIMEOUT,
        ca_file: Optional[str] = None,
        line: Optional[Lifeline] = None,
    ) -> None:
        self._writable = writable
        self._sparse = sparse
        self._dirty = dirty
        self._is_closed = False
        self.writes = UnflushedWrites()
        self._connection = NBDConnection(
            address.parse(url),
            line or Lifeline(),
            dirty=dirty,
            ca_file=ca_file,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
        )
        self._streamer = Streamer()
        with self._request("open") as nbd:
            export = nbd.export
        self.block_size = export.minimum_block
        known = {BASE_ALLOCATION, ALLOCATION_DEPTH, *(export.bitmaps if len(export.bitmaps) == 1 else ())}
        self.contexts = {number: name for number, name in export.contexts.items() if name in known}
        self.can_extend = export.mode is Mode.EXTENDED
        self.max_readers = max_connections
        self.max_writers = max_connections if export.can_multi_conn else 1

    # --- Requests ----------------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Return the size of the export."""
        client = self._connection.client
        if self._is_closed or client is None:
            raise errors.ClosedBackend(self.name)
        # It is that of the last connection: asking for a new one would not make it truer.
        return client.export.size

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill view with the bytes at offset."""
        with self._request("read") as nbd:
            count = max(0, min(len(view), nbd.export.size - offset))
            head, body = aligned(nbd.export, offset, count)
            if (head, body) == (0, count):
                nbd.read(offset, view[:count])
            else:
                whole = memoryview(bytearray(body))
                nbd.read(offset - head, whole)
                view[:count] = whole[head : head + count]
            return count

    def write(self, offset: int, view: memoryview) -> None:
        """Write all of view at offset."""
        with self._request("write") as nbd:
            self._check_change(nbd, "write", offset, len(view))
            head, body = aligned(nbd.export, offset, len(view))
            if (head, body) == (0, len(view)):
                nbd.write(offset, view)
            else:
                # Only servers that insist on their blocks come here; qemu does this by itself.
                whole = memoryview(bytearray(body))
                nbd.read(offset - head, whole)
                whole[head : head + len(view)] = view
                nbd.write(offset - head, whole)
            self.writes.note_write()

    def zero(self, offset: int, length: int) -> None:
        """Make `length` bytes at offset read as zeroes; their space is given back if the ticket says sparse."""
        self._zero(offset, length, punch_hole=self._sparse)

    def zero_allocated(self, offset: int, length: int) -> None:
        """Make `length` bytes at offset read as zeroes, and keep their space."""
        self._zero(offset, length, punch_hole=False)

    def _zero(self, offset: int, length: int, *, punch_hole: bool) -> None:
        block = self.block_size
        start, end = blocks.round_up(offset, block), blocks.round_down(offset + length, block)
        if start >= end:
            start = end = offset + length
        for odd, size in ((offset, start - offset), (end, offset + length - end)):
            if size:
                self.write(odd, memoryview(bytes(size)))
        if start < end:
            with self._request("zero") as nbd:
                self._check_change(nbd, "zero", start, end - start)
                nbd.zero(start, end - start, punch_hole=punch_hole)
                self.writes.note_write()

    def flush(self) -> None:
        """Make everything written so far survive a power failure."""
        with self._request("flush") as nbd:
            self.writes.check()
            nbd.flush()
            self.writes.note_flush()

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield the extents of a range; see Backend.extents. The server is asked while they are taken."""
        if context not in ("zero", "dirty"):
            raise errors.UnsupportedContext(context)
        with self._request("list the extents") as nbd:
            if length is None:
                length = nbd.export.size - offset
            assert 0 <= offset <= offset + length <= nbd.export.size
            if context == "zero":
                found = status.zero_extents(nbd, offset, length)
            else:
                found = status.dirty_extents(nbd, offset, length, self._bitmap(nbd.export))
        return self._listed(found)

    def _listed(self, found: Iterator[Extent]) -> Iterator[Extent]:
        with self._request("list the extents"):
            yield from found

    def _bitmap(self, export: Export) -> str:
        """Return the context of the one bitmap that tells what is dirty."""
        if not self._dirty:
            raise errors.UnsupportedContext("dirty", "the ticket does not ask for them")
        if not export.bitmaps:
            raise errors.UnsupportedContext("dirty", "the NBD server exports no dirty bitmap")
        if len(export.bitmaps) > 1:
            names = ", ".join(export.bitmaps)
            raise errors.UnsupportedContext("dirty", f"the NBD server exports several dirty bitmaps: {names}")
        return export.bitmaps[0]

    # --- NBD, for a client that speaks it itself ---------------------------------------------------------------------

    def attach(self, channel: Channel, offer: Offer, watch: Watch) -> None:
        """Let the client talk to the NBD server itself, where the server speaks as was agreed with the client."""
        offer = dataclasses.replace(offer, can_punch=self._sparse)
        connect = functools.partial(self._connect_like, offer)
        try:
            gate.attach(channel, self, offer, watch, connect)
        except ConnectionDead as e:
            self.writes.note_break()
            raise translated("serve", e) from e
        finally:
            self._connection.forget_closed()

    def _connect_like(self, offer: Offer, agreement: Agreement) -> Optional[Client]:
        """Return a connection on which the server speaks as was agreed; None if it cannot.

        It takes the place of ours, as servers limit how many they take; a request of ours opens another one.
        """
        with self._request("open") as old:
            if not gate.can_serve(old.export, offer):
                return None
            if self._writable:
                if self.writes.is_lost:
                    # The client must be told by its next flush, which has to come to us for that.
                    return None
                # What was written over it must not count as lost with it.
                old.flush()
                self.writes.note_flush()
            nbd = self._connection.replace(agreement)
        if gate.speaks_like(nbd.export, agreement):
            return nbd
        log.debug("The NBD server speaks in another way, translating: %s", nbd.export)
        nbd.close()
        self._connection.forget_closed()
        return None

    def lend(self, agreement: Agreement) -> Client:
        """Return the connection for requests of the caller's own, made anew so that the server speaks as was agreed.

        It is closed, and interrupted, with the backend.
        """
        with self._request("open"):
            return self._connection.replace(agreement)

    # --- Streaming ---------------------------------------------------------------------------------------------------

    def send_to(self, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send a range to the sink, with several requests under way; in the kernel if the sink is a plain socket."""
        if self.block_size > 1:
            return super().send_to(sink, offset, length, progress)
        with self._request("read") as nbd:
            available = max(0, min(length, nbd.export.size - offset))
            self._streamer.send(nbd, sink, offset, available, progress)
            if available < length:
                raise errors.PartialContent(length, available)

    def receive_from(self, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write a range from the source, with several requests under way."""
        if self.block_size > 1:
            return super().receive_from(source, offset, length, progress)
        with self._request("write") as nbd:
            self._check_change(nbd, "write", offset, length)
            try:
                self._streamer.receive(nbd, source, offset, length, progress)
            except errors.PartialContent:
                # What came was written, and that may be all that there was.
                self.writes.note_write()
                raise
            self.writes.note_write()

    # --- The connection ----------------------------------------------------------------------------------------------

    def _request(self, operation: str) -> RequestScope:
        """Return what gives a connection in a with block, and turns what goes wrong with it into errors of ours."""
        if self._is_closed:
            raise errors.ClosedBackend(self.name)
        return self._connection.request(operation, self.writes)

    def _check_change(self, nbd: Client, operation: str, offset: int, length: int) -> None:
        """Raise unless this connection may be used to change a range of the disk."""
        if not self._writable:
            raise errors.StorageError(operation, "the disk was opened for reading only", errno.EROFS)
        if not 0 <= offset <= offset + length <= nbd.export.size:
            raise errors.RangeNotSatisfiable(offset, length, nbd.export.size)

    def interrupt(self) -> None:
        """Make whatever waits for the server fail, now and later. Threads: any."""
        self._connection.interrupt()

    def close(self) -> None:
        """Say good-bye to the server; harmless when repeated."""
        if not self._is_closed:
            self._connection.close(self.writes)
        self._is_closed = True
        self._streamer.close()


def aligned(export: Export, offset: int, length: int) -> tuple[int, int]:
    """Return how far before offset its block begins, and the length of all the blocks that hold the range.

    The last block of an export ends with it.
    """
    block = export.minimum_block
    head = offset % block
    end = min(blocks.round_up(offset + length, block), export.size)
    return head, end - offset + head if length else 0
