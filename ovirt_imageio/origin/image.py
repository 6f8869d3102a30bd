"""An image on another daemon: what a client of the images API does with it.

    open        OPTIONS: what the origin can do; every origin can GET and PUT
    same host   the origin's Unix socket, when it told one and both ends of the connection are this host
    read        one GET for the whole range, however long
    write       one PUT for the whole range, without flush where the origin can flush on request
    zero        PATCH, or a PUT of zeroes
    flush       PATCH, or nothing: what cannot flush on request flushes every PUT
    extents     GET, decoded while it arrives
    checksum    GET: the data stays where it is

An origin that refuses is quoted, status and words; but for ticket ids, which are taken out.

Knows requests and answers; knows nothing of backends, and of rights.
"""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional
from urllib.parse import quote, urlsplit

from ovirt_imageio import errors
from ovirt_imageio.geometry import byteranges
from ovirt_imageio.geometry.extent import Extent, ZeroExtent, clipped, merged
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.net.stream import Stream
from ovirt_imageio.origin import abilities, answers
from ovirt_imageio.origin.listing import read_extents
from ovirt_imageio.origin.reply import Reply
from ovirt_imageio.origin.server import Origin
from ovirt_imageio.origin.upload import STEP, Body, Refused, Zeroes
from ovirt_imageio.origin.url import bracketed, check_url
from ovirt_imageio.relay import Progress, Sink, Source, fill

__all__ = ["Description", "Image", "content_range"]

log = logging.getLogger("origin")

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

    `context` decides which origins are trusted; cutting `line` interrupts the opening; `clock` tells seconds that only
    grow. Raises errors.BackendUnavailable, errors.BackendTimeout, or errors.OriginError if the origin refuses.

        image = Image("https://host:54322/images/TICKET", context=context)

    Threads: one at a time, but for `interrupt`.
    """

    def __init__(
        self,
        url: str,
        *,
        context: Optional[ssl.SSLContext] = None,
        connect_timeout: float = 10,
        read_timeout: float = 60,
        tunnel: Optional[tuple[str, int]] = None,
        line: Optional[Lifeline] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_url(url)
        url = bracketed(url)
        line = line or Lifeline()
        # What must not appear in an error.
        self._ticket_id = urlsplit(url).path.rpartition("/")[2]
        # What the origin told.
        self.abilities = abilities.Abilities()
        self._size: Optional[int] = None
        self._size_told = 0.0
        self._clock = clock
        self.origin = Origin(
            url, context=context, connect_timeout=connect_timeout, read_timeout=read_timeout, tunnel=tunnel, line=line
        )
        with contextlib.ExitStack() as stack:
            stack.callback(self.origin.close)
            # Until we are built, only the line can interrupt us.
            with line.waking(self.origin.wake):
                self._negotiate()
            stack.pop_all()

    # Opening

    def _negotiate(self) -> None:
        found = self._options()
        if found.unix_socket is not None and self.origin.is_same_host:
            found = self._try_unix_socket(found.unix_socket) or found
        self.abilities = found
        self._size = found.size
        self._size_told = self._clock()

    def _options(self) -> abilities.Abilities:
        """Return what the origin tells about the image."""
        with self.origin.request("open", "OPTIONS") as reply:
            if reply.status in (204, 405):
                return abilities.Abilities()
            self.check_reply(reply, "open", 200)
            return abilities.parse(answers.read_object(reply), reply.headers.get("allow", ""))

    def _try_unix_socket(self, path: str) -> Optional[abilities.Abilities]:
        """Go on through the origin's Unix socket, if the same image is there."""
        self.origin.use_unix_socket(path)
        try:
            return self._options()
        except (errors.StorageError, ValueError) as e:
            log.warning("Cannot use the Unix socket of the origin, going on over TCP: %s", e)
            self.origin.use_unix_socket(None)
            return None

    @property
    def features(self) -> frozenset[str]:
        """What the origin can beside GET and PUT."""
        return self.abilities.features

    # Reading

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
            size = self._options().size
            if size is not None:
                return size
        if "extents" in self.features:
            end = 0
            deadline = self._clock() + LIST_TIMEOUT
            for extent in read_extents(self._ask_for_list("zero", "/extents?context=zero"), "zero"):
                end = extent.start + extent.length
                if self._clock() > deadline:
                    raise errors.BackendTimeout("read the size", "the origin's list of extents does not end in time")
            if end:
                return end
        # Very old, or maybe empty: only the head of a download tells. What is not read costs the connection.
        with self.origin.request("read the size", "GET") as reply:
            self.check_reply(reply, "read the size", 200)
            if reply.length is None:
                raise errors.StorageError("read the size", "the origin does not tell the size of the image")
            return reply.length

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill view with one GET; return how many bytes there are, less than len(view) only where the image ends."""
        length = min(len(view), self.size() - offset)
        if length <= 0:
            return 0
        with self._get(offset, length) as reply:
            return reply.fill(view[:length])

    def send_to(self, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send to the sink with one GET for the whole range; raises errors.PartialContent if the image ends before."""
        available = max(0, min(length, self.size() - offset))
        if available:
            buffer = memoryview(bytearray(min(available, STEP)))
            with self._get(offset, available) as reply:
                while reply.length:
                    count = reply.fill(buffer)
                    sink.write(buffer[:count])
                    progress(count)
        if available < length:
            raise errors.PartialContent(length, available)

    def _get(self, offset: int, length: int) -> Reply:
        """Return the reply that holds the range."""
        last = offset + length - 1
        with contextlib.ExitStack() as stack:
            headers = {"range": f"bytes={offset}-{last}"}
            reply = stack.enter_context(self.origin.request("read", "GET", headers=headers))
            self.check_range(reply, offset, length)
            stack.pop_all()
            return reply

    def check_range(self, reply: Reply, offset: int, length: int) -> None:
        """Raise unless the reply holds the range that was asked for."""
        self.check_reply(reply, "read", *((200, 206) if offset == 0 else (206,)))
        encoding = reply.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            # That was not asked for, and as bytes of a disk it would be garbage.
            raise errors.StorageError("read", f"the origin sends the data encoded, with {errors.quoted(encoding)}")
        if not answers.holds_range(reply, offset, length):
            raise errors.StorageError("read", "the origin sends another range than it was asked for")

    # Writing

    def write(self, offset: int, view: memoryview) -> None:
        """Write with one PUT, which is repeated if the origin had dropped the connection before."""
        if view:
            where = content_range(offset, len(view))
            with self.origin.request("write", "PUT", self.put_suffix, where, view) as reply:
                self.check_reply(reply, "write", 200, 204)
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
        where = {"content-range": f"bytes {offset}-*/*"} if is_chunked else content_range(offset, length)
        body = Body(progress)
        with body, self.origin.upload("write", self.put_suffix, where, None if is_chunked else length) as upload:
            try:
                body.send(upload, source, buffer, length)
                if body.sent < length and not is_chunked:
                    raise errors.PartialContent(length, body.sent)
                upload.end()
            except Refused:
                # Also with success: it cannot be true.
                with upload.reply() as reply:
                    self.check_reply(reply, "write")
            except (errors.OperationCanceled, errors.StorageError):
                raise
            except Exception:
                # What came until now shall be written, and be so before we tell.
                with contextlib.suppress(errors.Error), upload.cut() as reply:
                    body.stored = min(answers.read_stored(reply, length), body.sent)
                self._size = None
                raise
            with upload.reply() as reply:
                self.check_reply(reply, "write", 200, 204)
            body.stored = body.sent
        self._grow(offset + body.sent)
        return body.sent

    def zero(self, offset: int, length: int) -> None:
        """Zero with PATCH, if the origin can."""
        if not length:
            return
        if "zero" in self.features:
            # Without a flush of its own the origin could never be asked to later.
            flush = "flush" not in self.features
            self._patch("zero", {"op": "zero", "offset": offset, "size": length, "flush": flush})
            self._grow(offset + length)
        else:
            self.receive_from(Zeroes(), offset, length, lambda count: None)

    def flush(self) -> None:
        """Flush with PATCH, if the origin can."""
        if "flush" in self.features:
            self._patch("flush", {"op": "flush"})

    def _patch(self, operation: str, message: Mapping[str, Any]) -> None:
        body = json.dumps(message).encode("ascii")
        kind = {"content-type": "application/json"}
        with self.origin.request(operation, "PATCH", headers=kind, body=body) as reply:
            self.check_reply(reply, operation, 200, 204)

    @property
    def put_suffix(self) -> str:
        """What follows the path of a PUT: flushed it is only where it could not be later."""
        return "?flush=n" if "flush" in self.features else ""

    def _grow(self, end: int) -> None:
        if self._size is not None:
            self._size = max(self._size, end)

    # Asking

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield the extents of a range that the origin tells, while it tells them; by default of the whole image.

        `context` is "zero" or "dirty". Raises errors.UnsupportedContext here, not when the first one is asked for.
        """
        if context not in ("zero", "dirty"):
            raise errors.UnsupportedContext(context)
        if "extents" in self.features:
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
        suffix = f"/extents?context={context}"
        if offset or length is not None:
            # Old origins list everything anyway.
            suffix += f"&offset={offset}" + (f"&length={length}" if length is not None else "")
        reply = self._ask_for_list(context, suffix)
        end = 2**63 if size is None else size
        if length is not None:
            end = min(end, offset + length)
        extents = read_extents(reply, context, offset, None if size is None else end)
        return merged(clipped(extents, offset, end))

    def _ask_for_list(self, context: str, suffix: str) -> Reply:
        """Return the reply that holds extents."""
        with contextlib.ExitStack() as stack:
            reply = stack.enter_context(self.origin.request("list extents", "GET", suffix))
            if reply.status == 404:
                raise errors.UnsupportedContext(context, "the origin does not report them")
            self.check_reply(reply, "list extents", 200)
            stack.pop_all()
            return reply

    def checksum(self, algorithm: str, block_size: int) -> Optional[str]:
        """Let the origin compute it; None if it cannot. It may take as long as it likes: `interrupt` ends it."""
        if "checksum" not in self.features:
            return None
        suffix = f"/checksum?algorithm={quote(algorithm)}&block_size={block_size}"
        with self.origin.request("compute the checksum", "GET", suffix, is_patient=True) as reply:
            if reply.status in (400, 404):
                return None  # It does not know this algorithm.
            self.check_reply(reply, "compute the checksum", 200)
            return answers.read_checksum(reply, block_size)

    def look(self) -> Description:
        """Return what the origin tells about the image."""
        size = self.size()
        return Description(
            size, self.abilities.is_writable, self.abilities.has_dirty, self._find_filename() if size else None
        )

    def _find_filename(self) -> Optional[str]:
        """Return the name that the origin gives to a download; a download of one byte tells, from the oldest on."""
        with self._get(0, 1) as reply:
            return byteranges.parse_filename(reply.headers.get("content-disposition", ""))

    @contextlib.contextmanager
    def attached(self) -> Iterator[Stream]:
        """Let the caller speak NBD with the origin, over a connection that is closed after the block."""
        upgrade = {"connection": "upgrade", "upgrade": "nbd"}
        with self.origin.request("attach the disk", "GET", headers=upgrade) as reply:
            self.check_reply(reply, "attach the disk", 101)
            yield reply.lend()

    # Ending

    def interrupt(self) -> None:
        """Make whatever blocks fail. Threads: any."""
        self.origin.interrupt()

    def close(self) -> None:
        """Close the connections; harmless when repeated."""
        self.origin.close()

    def check_reply(self, reply: Reply, operation: str, *expected: int) -> None:
        """Raise errors.OriginError with the origin's words, unless its status is an expected one."""
        if reply.status not in expected:
            raise answers.read_refusal(reply, operation, self._ticket_id)


def content_range(offset: int, length: int) -> dict[str, str]:
    """Return the header that tells where a body belongs."""
    return {"content-range": f"bytes {offset}-{offset + length - 1}/*"}
