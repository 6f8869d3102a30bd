"""An image on another daemon: what a client of the images API does with it.

    read        one GET for the whole range, however long
    write       one PUT for the whole range
    zero        PATCH, or a PUT of zeroes
    extents     GET, decoded while it arrives
    size        told with OPTIONS; by old origins with the extents, or with the head of a download

Knows which requests to make (resource.py makes them); knows nothing of HTTP, of backends, and of rights.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.geometry import byteranges
from ovirt_imageio.geometry.extent import Extent, ZeroExtent, clipped, merged
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.net.stream import Stream
from ovirt_imageio.origin import answers
from ovirt_imageio.origin.abilities import Abilities
from ovirt_imageio.origin.listing import read_extents
from ovirt_imageio.origin.resource import ImageResource
from ovirt_imageio.origin.server import Approach
from ovirt_imageio.origin.upload import STEP, CountedBody, Refused, Zeroes
from ovirt_imageio.relay import Progress, Sink, Source, fill

__all__ = ["Description", "Image"]

# A body up to here is kept until it was answered, so that it can be sent again.
REPEATABLE = 1024 * 1024

# Seconds for a whole list from an origin that tells the size by nothing else: it has all of it before it begins.
LIST_TIMEOUT = 300

# How many seconds old a size may be. Small requests shall not pay for asking every time.
SIZE_AGE = 1.0


@dataclass(frozen=True)
class Description:
    """What an origin tells about an image."""

    size: int
    is_writable: bool
    has_dirty: bool
    filename: Optional[str] = None


class Image:
    """The image at a transfer URL.

    Cutting `line` interrupts the opening; `traceparent` is shown from the first request on, see trace(); an origin
    whose `abilities` are known is not asked for them; `clock` tells seconds that only grow. Raises
    errors.BackendUnavailable, errors.BackendTimeout, or errors.OriginError if the origin refuses.

        image = Image("https://host:54322/images/TICKET", Approach(context=context))

    Threads: one at a time, but for `interrupt`.
    """

    def __init__(
        self,
        url: str,
        approach: Optional[Approach] = None,
        *,
        line: Optional[Lifeline] = None,
        traceparent: Optional[str] = None,
        abilities: Optional[Abilities] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        line = line or Lifeline()
        self._clock = clock
        self.resource = ImageResource(url, approach or Approach(), line)
        self.trace(traceparent)
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            # Until the caller has us, only the line can interrupt us.
            with line.waking(self.resource.origin.wake):
                if abilities is None:
                    self.resource.negotiate()
                else:
                    self.resource.connect(abilities)
            stack.pop_all()
        self._size = self.abilities.size
        self._size_told = self._clock()

    @property
    def abilities(self) -> Abilities:
        """What the origin told about the image when it was opened."""
        return self.resource.abilities

    @property
    def round_trip(self) -> float:
        """How many seconds the way to the origin and back took when the image was opened."""
        return self.resource.round_trip

    # --- Reading ------------------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Return the size that the origin told; it grows with what is written here.

        Others may write too: an origin that tells it at once is asked again after a while.
        """
        is_old = self.abilities.size is not None and self._clock() - self._size_told > SIZE_AGE
        if self._size is None or is_old:
            self._size = self._find_size()
            self._size_told = self._clock()
        return self._size

    def _find_size(self) -> int:
        if self.abilities.size is not None:
            size = self.resource.ask().size
            if size is not None:
                return size
        if "extents" in self.abilities.features:
            end = 0
            deadline = self._clock() + LIST_TIMEOUT
            for extent in read_extents(self.resource.list("zero"), "zero"):
                end = extent.start + extent.length
                if self._clock() > deadline:
                    raise errors.BackendTimeout(
                        "read the size", "the image server's list of extents does not end in time"
                    )
            if end:
                return end
        # Very old, or maybe empty.
        return self.resource.find_length()

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill view with one GET; return how many bytes there are, less than len(view) only where the image ends."""
        length = min(len(view), self.size() - offset)
        if length <= 0:
            return 0
        with self.resource.get(offset, length) as reply:
            return reply.fill(view[:length])

    def send_to(self, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send to the sink with one GET for the whole range; raises errors.PartialContent if the image ends before."""
        available = max(0, min(length, self.size() - offset))
        if available:
            buffer = memoryview(bytearray(min(available, STEP)))
            with self.resource.get(offset, available) as reply:
                while reply.length:
                    count = reply.fill(buffer)
                    sink.write(buffer[:count])
                    progress(count)
        if available < length:
            raise errors.PartialContent(length, available)

    # --- Writing ------------------------------------------------------------------------------------------------------

    def write(self, offset: int, view: memoryview) -> None:
        """Write with one PUT, which is repeated if the origin had dropped the connection before."""
        if view:
            self.resource.put(offset, view)
            self._grow(offset + len(view))

    def receive_from(self, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write with one PUT for the whole range; a short body is written like any other view.

        Raises errors.PartialContent if the source ends before; what came until then is written.
        """
        buffer = memoryview(bytearray(min(length, REPEATABLE)))
        first = buffer[: fill(source, buffer)]
        if len(first) == REPEATABLE < length:
            self._stream(source, first, offset, length, progress)
            return
        if first:
            self.write(offset, first)
            progress(len(first))
        if len(first) < length:
            raise errors.PartialContent(length, len(first))

    def receive_all(self, source: Source, offset: int, limit: int, progress: Progress) -> int:
        """Write what the source has until it ends, but no more than `limit` bytes; return how many.

        The origin has to know where the body ends, so that its answer tells what became of it: by chunks, or, if it
        takes none, by requests for a piece each.
        """
        buffer = memoryview(bytearray(min(limit, REPEATABLE)))
        done = 0
        while done < limit:
            piece = buffer[: limit - done]
            count = fill(source, piece)
            if self.abilities.takes_chunks and count == REPEATABLE < limit - done:
                return self._stream(source, piece, offset, limit, progress, is_chunked=True)
            if count:
                self.write(offset + done, piece[:count])
                progress(count)
                done += count
            if count < len(piece):
                break
        return done

    def _stream(
        self,
        source: Source,
        buffer: memoryview,
        offset: int,
        length: int,
        progress: Progress,
        is_chunked: bool = False,
    ) -> int:
        """Send what is in the buffer, and what the source has, with one PUT; return how many bytes."""
        body = CountedBody(progress)
        with body, self.resource.upload(offset, None if is_chunked else length) as upload:
            try:
                body.send(upload, source, buffer, length)
                if body.sent < length and not is_chunked:
                    raise errors.PartialContent(length, body.sent)
                upload.end()
            except Refused:
                # Also with success: it cannot be true.
                with upload.reply() as reply:
                    self.resource.check_reply(reply, "write")
            except (errors.OperationCanceled, errors.StorageError):
                raise
            except Exception:
                # What came until now shall be written, and be so before we tell.
                with contextlib.suppress(errors.Error), upload.cut() as reply:
                    body.stored = min(answers.read_stored(reply, length), body.sent)
                self._size = None
                raise
            with upload.reply() as reply:
                self.resource.check_reply(reply, "write", 200, 204)
            body.stored = body.sent
        self._grow(offset + body.sent)
        return body.sent

    def zero(self, offset: int, length: int) -> None:
        """Zero with PATCH, if the origin can."""
        if not length:
            return
        if "zero" in self.abilities.features:
            self.resource.zero(offset, length)
            self._grow(offset + length)
        else:
            self.receive_from(Zeroes(), offset, length, lambda count: None)

    def flush(self) -> None:
        """Let the origin flush; one that cannot on request has flushed every PUT."""
        self.resource.flush()

    def _grow(self, end: int) -> None:
        if self._size is not None:
            self._size = max(self._size, end)

    # --- Asking -------------------------------------------------------------------------------------------------------

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield the extents of a range that the origin tells, while it tells them; by default of the whole image.

        `context` is "zero" or "dirty". Raises errors.UnsupportedContext here, not when the first one is asked for.
        """
        if context not in ("zero", "dirty"):
            raise errors.UnsupportedContext(context)
        if "extents" in self.abilities.features:
            # To find the size of an old one takes a list of its own, so what that would say is not asked for.
            size = self._size if self.abilities.size is None else self.size()
            return self._list(context, offset, length, size)
        if context != "zero":
            raise errors.UnsupportedContext(context)
        if length is None:
            length = self.size() - offset
        return iter([ZeroExtent(offset, length, False, False)] if length else [])

    def _list(self, context: str, offset: int, length: Optional[int], size: Optional[int]) -> Iterator[Extent]:
        """Yield the extents of a range; `size` is that of the image, None if it is not known."""
        reply = self.resource.list(context, offset, length)
        end = 2**63 if size is None else size
        if length is not None:
            end = min(end, offset + length)
        extents = read_extents(reply, context, offset, None if size is None else end)
        return merged(clipped(extents, offset, end))

    def checksum(self, algorithm: str, block_size: int) -> Optional[str]:
        """Let the origin compute it; None if it cannot. It may take as long as it likes: `interrupt` ends it."""
        return self.resource.checksum(algorithm, block_size)

    def look(self) -> Description:
        """Return what the origin tells about the image."""
        size = self.size()
        return Description(
            size, self.abilities.is_writable, self.abilities.has_dirty, self._find_filename() if size else None
        )

    def _find_filename(self) -> Optional[str]:
        """Return the name that the origin gives to a download; a download of one byte tells, from the oldest on."""
        with self.resource.get(0, 1) as reply:
            return byteranges.parse_filename(reply.headers.get("content-disposition", ""))

    def attached(self) -> contextlib.AbstractContextManager[Stream]:
        """Let the caller speak NBD with the origin, over a connection that is closed after the block."""
        return self.resource.attached()

    # --- Ending -------------------------------------------------------------------------------------------------------

    def trace(self, traceparent: Optional[str]) -> None:
        """Tell the origin, from now on, of which work of others the requests are a part."""
        self.resource.origin.traceparent = traceparent

    def limit_unsent(self, limit: int) -> None:
        """Let writing wait while the kernel holds about so many bytes that may not be sent yet."""
        self.resource.origin.limit_unsent(limit)

    def interrupt(self) -> None:
        """Make whatever blocks fail. Threads: any."""
        self.resource.origin.interrupt()

    def close(self) -> None:
        """Close the connections; harmless when repeated."""
        self.resource.origin.close()
