"""One disk, one interface: what every backend offers, and the plain loops that serve where it has nothing faster.

A backend knows nothing of requests, tickets and configuration. Offsets and lengths were checked by the caller: here
they are only asserted.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Optional, Protocol

from ovirt_imageio import errors
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.geometry.extent import Extent, ZeroExtent
from ovirt_imageio.nbd import export
from ovirt_imageio.nbd.export import Watch
from ovirt_imageio.nbd.inbox import Channel
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.wire import ALLOCATION_DEPTH, BASE_ALLOCATION
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.relay import Progress, Sink, Source, fill
from ovirt_imageio.relay.buffers import SLOT

__all__ = ["Backend", "HeldImage", "Images", "Options", "Terms", "fill"]


class HeldImage(Protocol):
    """An image that an NBD server of ours serves, at least until close()."""

    @property
    def url(self) -> str:
        """Where the server is."""

    def close(self, has_failed: bool = False) -> None:
        """Let the server end, unless another client needs it; harmless when repeated.

        has_failed: a request failed, so that a new server may do better.
        """


class Images(Protocol):
    """Starts a server for an image when it is needed, and ends it."""

    def open(self, url: str, *, writable: bool, line: Lifeline) -> HeldImage:
        """Return a server of the image; cutting the line ends the wait for it. Raises errors.Error."""


@dataclass(frozen=True)
class Options:
    """What the administrator decides about backends."""

    # How many connections one transfer may use; backends that can serve several advertise it.
    max_connections: int = 8
    # Seconds to wait for a connection, and for each answer, of an NBD server and of the origin of a proxy.
    nbd_connect_timeout: float = 10
    nbd_reply_timeout: float = 60
    http_connect_timeout: float = 10
    http_read_timeout: float = 60
    # The certificates that an origin, or an NBD server over TLS, is verified with; None trusts what the system trusts.
    ca_file: Optional[str] = None
    # The section of the configuration that names it, for errors.
    ca_section: str = "tls"
    # What serves the images of image: URLs; None if they may not be used.
    images: Optional[Images] = None
    # The kernel may encrypt what goes to origins, where it can.
    kernel_tls: bool = False


@dataclass(frozen=True)
class Terms:
    """On which terms a disk is opened: what its ticket says, what the administrator decided, and for which request."""

    options: Options
    writable: bool = False
    # Zeroing may give space back.
    sparse: bool = False
    # Dirty extents may be asked for.
    dirty: bool = False
    # Another thread may cut it, so that what waits for a server fails.
    line: Lifeline = field(default_factory=Lifeline)
    # The traceparent of the request for which the disk is opened: for a host that is asked.
    traceparent: Optional[str] = None


class Backend(abc.ABC):
    """A disk that was opened for one connection.

    Threads: one at a time, but for `interrupt`, which any thread may call.
    """

    name: ClassVar[str]

    # Requests that are multiples of this, at multiples of this, need no read-modify-write. Others work too.
    block_size: int = 1
    # How many connections may usefully read and safely write at once.
    max_readers: int = 1
    max_writers: int = 1
    # Does a write beyond the end make the disk larger?
    can_grow: bool = False
    # Does it connect again by itself what broke? If not, it is opened again after an error of the storage.
    can_recover: ClassVar[bool] = False
    # What was written and not flushed, if the way to the disk can break; a transfer hands it on to the next backend.
    writes: UnflushedWrites
    # Does a write report bytes that were sent, before it is known whether they were stored? At the end it takes back
    # those that were not, with a negative count.
    reports_sent: ClassVar[bool] = False
    # What NBD can be asked about extents, as numbers and names of meta contexts: base:allocation, the one that tells
    # holes, and the dirty bitmap if there is one. An NBD server has its own numbers, all others have those of qemu.
    contexts: Mapping[int, str] = MappingProxyType({0: BASE_ALLOCATION, 1: ALLOCATION_DEPTH})
    # May a client of NBD use extended headers? Not where that would keep replies of a server from passing as they are.
    can_extend: bool = True
    # The longest zero() that still leaves progress and cancel responsive.
    zero_step: int = 128 * 1024 * 1024

    @abc.abstractmethod
    def size(self) -> int:
        """Return the current size in bytes."""

    @abc.abstractmethod
    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill view with the bytes at offset; return how many: less than len(view) only where the disk ends."""

    @abc.abstractmethod
    def write(self, offset: int, view: memoryview) -> None:
        """Write all of view at offset."""

    @abc.abstractmethod
    def zero(self, offset: int, length: int) -> None:
        """Make `length` bytes at offset read as zeroes."""

    def zero_allocated(self, offset: int, length: int) -> None:
        """Make `length` bytes at offset read as zeroes, and keep their space; for backends that may give it back."""
        self.zero(offset, length)

    @abc.abstractmethod
    def flush(self) -> None:
        """Make everything written so far survive a power failure."""

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield the extents of a range, by default of the whole disk: in order, without gaps, neighbours merged.

        `context` is "zero" or "dirty". Raises errors.UnsupportedContext here, not when the first extent is asked for:
        an answer may have to start before that one is known.
        """
        if context != "zero":
            raise errors.UnsupportedContext(context)
        if length is None:
            length = self.size() - offset
        return iter([ZeroExtent(offset, length, False, False)] if length else [])

    def checksum(self, algorithm: str, block_size: int) -> Optional[str]:
        """Return the checksum of the disk if whatever stores it can compute it, else None."""
        return None

    def send_to(self, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send `length` bytes at offset to the sink. Raises errors.PartialContent if the disk ends before."""
        buffer = memoryview(bytearray(min(length, SLOT)))
        done = 0
        while done < length:
            view = buffer[: length - done]
            count = self.readinto(offset + done, view)
            if count == 0:
                raise errors.PartialContent(length, done)
            sink.write(view[:count])
            done += count
            progress(count)

    def receive_from(self, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write `length` bytes from the source at offset.

        Raises errors.PartialContent if the source ends before; what came until then is written.
        """
        buffer = memoryview(bytearray(min(length, SLOT)))
        done = 0
        while done < length:
            view = buffer[: length - done]
            count = fill(source, view)
            if count:
                self.write(offset + done, view[:count])
                done += count
                progress(count)
            if count < len(view):
                raise errors.PartialContent(length, done)

    def receive_all(self, source: Source, offset: int, limit: int, progress: Progress) -> int:
        """Write what the source has until it ends, but no more than `limit` bytes, at offset; return how many."""
        try:
            self.receive_from(source, offset, limit, progress)
        except errors.PartialContent as e:
            return e.available
        return limit

    def attach(self, channel: Channel, offer: Offer, watch: Watch) -> None:
        """Serve the disk by NBD until the client at the other end of the channel leaves."""
        export.serve(channel, self, offer, watch)

    def interrupt(self) -> None:  # noqa: B027  (a capability: most have nothing that blocks for long)
        """Make whatever blocks in this backend fail soon, where that is possible. Threads: any."""

    def trace(self, traceparent: Optional[str]) -> None:  # noqa: B027  (a capability: most ask no other host)
        """Tell other hosts, from now on, of which work of others they do a part: the value of that header."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything; harmless when repeated. Every other call then raises errors.ClosedBackend."""
