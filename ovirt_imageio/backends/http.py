"""An image of another daemon as a backend: the proxy has its disks from hosts like this.

What such a daemon can do, and how it is asked, is in origin/; here is what may be asked.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import ssl
from collections.abc import Iterator
from typing import Optional
from urllib.parse import urlsplit

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend, Options, Terms
from ovirt_imageio.backends.nbdconnection import translated
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.geometry.extent import Extent
from ovirt_imageio.nbd import gate
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.connect import speak
from ovirt_imageio.nbd.errors import ConnectionDead
from ovirt_imageio.nbd.export import Watch
from ovirt_imageio.nbd.handshake import Agreement
from ovirt_imageio.nbd.inbox import Channel
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.wire import ALLOCATION_DEPTH, BASE_ALLOCATION, DIRTY_BITMAP
from ovirt_imageio.net import tls
from ovirt_imageio.origin.image import Description, Image
from ovirt_imageio.origin.server import Approach
from ovirt_imageio.origin.upload import Zeroes
from ovirt_imageio.origin.url import check_url
from ovirt_imageio.relay import Progress, Sink, Source

__all__ = ["HttpBackend", "check_url", "look", "open_backend"]

log = logging.getLogger("backends.http")


def look(url: str, options: Options) -> Description:
    """Ask the origin about the image at url, as a client that begins a transfer would."""
    with contextlib.closing(open_image(url, Terms(options))) as image:
        return image.look()


def open_backend(url: str, terms: Terms) -> HttpBackend:
    """Open the image at url; whether zeroed ranges are deallocated is for the origin to decide."""
    return HttpBackend(open_image(url, terms), writable=terms.writable, dirty=terms.dirty)


def open_image(url: str, terms: Terms) -> Image:
    """Open the image at url."""
    approach = Approach(
        context=trust(terms.options) if urlsplit(url).scheme == "https" else None,
        connect_timeout=terms.options.http_connect_timeout,
        read_timeout=terms.options.http_read_timeout,
    )
    return Image(url, approach, line=terms.line, traceparent=terms.traceparent)


def trust(options: Options) -> ssl.SSLContext:
    """Return the context that trusts the authorities in ca_file. An unusable file is not the client's fault."""
    try:
        return tls.kept_client_context(options.ca_file or "", section=options.ca_section, kernel=options.kernel_tls)
    except errors.ConfigError as e:
        log.error("Cannot verify the image server: %s", e)
        raise errors.BackendUntrusted(
            "open", "the image server cannot be verified: the log of this server tells why"
        ) from e


# Origins do not tell how the bitmap is called.
CHANGES = f"{DIRTY_BITMAP}changes"


class HttpBackend(Backend):
    """An image of an origin, which the backend closes; `dirty` tells whether dirty extents may be asked for.

    Threads: one at a time, but for `interrupt`.
    """

    name = "http"
    # What the origin knows of lost writes, it knows of its connection: that must last.
    can_recover = True
    # The origin knows, and refuses.
    can_grow = True
    # Whether the server behind the origin can is not known.
    can_extend = False
    reports_sent = True

    def __init__(self, image: Image, *, writable: bool = True, dirty: bool = False) -> None:
        self._image = image
        self._writable = writable
        self._dirty = dirty
        self._is_closed = False
        self.writes = UnflushedWrites()
        self.max_readers = image.abilities.max_readers
        self.max_writers = image.abilities.max_writers
        self.block_size = image.abilities.block_size
        # In the order of qemu, and so under its numbers.
        names = [BASE_ALLOCATION, ALLOCATION_DEPTH, *([CHANGES] if dirty and image.abilities.has_dirty else [])]
        self.contexts = dict(enumerate(names))

    def size(self) -> int:
        """Return the size that the origin told; it grows with what is written here."""
        self._check()
        return self._image.size()

    def readinto(self, offset: int, view: memoryview) -> int:
        """Read with one GET."""
        self._check()
        return self._image.readinto(offset, view)

    def send_to(self, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send with one GET for the whole range."""
        self._check()
        self._image.send_to(sink, offset, length, progress)

    def write(self, offset: int, view: memoryview) -> None:
        """Write with one PUT."""
        self._check_writable("write")
        self._image.write(offset, view)

    def receive_from(self, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write with one PUT for the whole range."""
        self._check_writable("write")
        self._image.receive_from(source, offset, length, progress)

    def receive_all(self, source: Source, offset: int, limit: int, progress: Progress) -> int:
        """Write until the source ends, with one PUT if the origin takes a body of unknown length."""
        self._check_writable("write")
        return self._image.receive_all(source, offset, limit, progress)

    def zero(self, offset: int, length: int) -> None:
        """Zero with PATCH, if the origin can."""
        self._check_writable("zero")
        self._image.zero(offset, length)

    def zero_allocated(self, offset: int, length: int) -> None:
        """Zero; a sparse image gets zeroes to write, as it cannot be asked otherwise."""
        if length and self._image.abilities.is_sparse:
            self.receive_from(Zeroes(), offset, length, lambda count: None)
        else:
            self.zero(offset, length)

    def flush(self) -> None:
        """Flush with PATCH, if the origin can."""
        self._check()
        self._image.flush()

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield the extents that the origin tells, while it tells them."""
        self._check()
        if context == "dirty" and not self._dirty:
            raise errors.UnsupportedContext(context, 'the ticket was added without "dirty": true')
        return self._image.extents(context, offset, length)

    def checksum(self, algorithm: str, block_size: int) -> Optional[str]:
        """Let the origin compute it; None if it cannot."""
        self._check()
        return self._image.checksum(algorithm, block_size)

    def attach(self, channel: Channel, offer: Offer, watch: Watch) -> None:
        """Let the client talk to the origin by NBD, if the origin can."""
        self._check()
        with contextlib.ExitStack() as stack:
            try:
                gate.attach(channel, self, offer, watch, functools.partial(self._speak_like, stack, offer))
            except ConnectionDead as e:
                raise translated("serve", e) from e

    def _speak_like(self, stack: contextlib.ExitStack, offer: Offer, agreement: Agreement) -> Optional[Client]:
        """Return a connection on which the origin speaks NBD as was agreed; None if it cannot."""
        if "nbd" not in self._image.abilities.features:
            return None
        nbd = speak(stack.enter_context(self._image.attached()), like=agreement)
        if gate.speaks_like(nbd.export, agreement) and gate.can_serve(nbd.export, offer):
            return nbd
        log.debug("The image server speaks NBD in another way, translating: %s", nbd.export)
        nbd.close()
        return None

    def trace(self, traceparent: Optional[str]) -> None:
        """Tell the origin with each request."""
        self._image.trace(traceparent)

    def interrupt(self) -> None:
        """Make whatever blocks fail. Threads: any."""
        self._image.interrupt()

    def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        self._image.close()

    def _check(self) -> None:
        if self._is_closed:
            raise errors.ClosedBackend(self.name)

    def _check_writable(self, operation: str) -> None:
        self._check()
        if not self._writable:
            raise errors.StorageError(operation, "the image was opened read only")
