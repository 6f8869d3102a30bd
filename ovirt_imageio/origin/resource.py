"""The resource of an image on another daemon: each request that it knows, and what the answer to it must be.

    open        OPTIONS: what the origin can do; every origin can GET and PUT
    same host   the origin's Unix socket, when it told one and both ends of the connection are this host
    read        GET with a range
    write       PUT with a range, without flush where the origin can flush on request
    zero        PATCH
    flush       PATCH, or nothing: what cannot flush on request flushes every PUT
    list        GET of the extents
    checksum    GET: the data stays where it is

An origin that refuses is quoted, status and words; but for ticket ids, which are taken out.

Knows requests and answers; knows nothing of what the bytes are for, of backends, and of rights.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional
from urllib.parse import quote, urlsplit

from ovirt_imageio import errors
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.net.stream import Stream
from ovirt_imageio.origin import abilities, answers
from ovirt_imageio.origin.reply import Reply
from ovirt_imageio.origin.server import Approach, Origin
from ovirt_imageio.origin.upload import Upload
from ovirt_imageio.origin.url import bracketed, check_url

__all__ = ["ImageResource"]

log = logging.getLogger("origin")


class ImageResource:
    """What a transfer URL names; see Image for the arguments.

    Threads: one at a time, but for `interrupt`.
    """

    def __init__(self, url: str, approach: Approach, line: Lifeline) -> None:
        check_url(url)
        url = bracketed(url)
        # What must not appear in an error.
        self._ticket_id = urlsplit(url).path.rpartition("/")[2]
        # What the origin told.
        self.abilities = abilities.Abilities()
        # Seconds there and back, as ask() found it.
        self.round_trip = 0.0
        self.origin = Origin(url, approach, line)

    # --- Opening -----------------------------------------------------------------------------------------------------

    def negotiate(self) -> None:
        """Ask for what the origin can, and for the best way to it."""
        found = self.ask()
        if found.unix_socket is not None and self.origin.is_same_host:
            found = self._try_unix_socket(found.unix_socket) or found
        self.abilities = found

    def connect(self, known: abilities.Abilities) -> None:
        """Connect to an origin that told what it can over another connection."""
        self.origin.ready("open")
        self.abilities = known

    def ask(self) -> abilities.Abilities:
        """Return what the origin tells about the image now."""
        self.origin.ready("open")
        began = time.monotonic()
        with self.origin.request("open", "OPTIONS") as reply:
            # A relay may be on the way, which only TLS passes; but a busy origin is not a far one.
            self.round_trip = max(self.origin.line, min(self.origin.handshake, time.monotonic() - began))
            if reply.status in (204, 405):
                return abilities.Abilities()
            self.check_reply(reply, "open", 200)
            return abilities.parse(answers.read_object(reply), reply.headers.get("allow", ""))

    def _try_unix_socket(self, path: str) -> Optional[abilities.Abilities]:
        """Go on through the origin's Unix socket, if the same image is there."""
        self.origin.use_unix_socket(path)
        try:
            return self.ask()
        except (errors.StorageError, ValueError) as e:
            log.warning("Cannot use the Unix socket of the image server, going on over TCP: %s", e)
            self.origin.use_unix_socket(None)
            return None

    @property
    def put_suffix(self) -> str:
        """What follows the path of a PUT: flushed it is only where it could not be later."""
        return "?flush=n" if "flush" in self.abilities.features else ""

    # --- Requests ----------------------------------------------------------------------------------------------------

    def get(self, offset: int, length: int) -> Reply:
        """Return the reply that holds a range."""
        last = offset + length - 1
        with contextlib.ExitStack() as stack:
            headers = {"range": f"bytes={offset}-{last}"}
            reply = stack.enter_context(self.origin.request("read", "GET", headers=headers))
            self.check_range(reply, offset, length)
            stack.pop_all()
            return reply

    def find_length(self) -> int:
        """Return the size of the image as the head of a download tells it; what is not read costs the connection."""
        with self.origin.request("read the size", "GET") as reply:
            self.check_reply(reply, "read the size", 200)
            if reply.length is None:
                raise errors.StorageError("read the size", "the image server does not tell the size of the image")
            return reply.length

    def put(self, offset: int, view: memoryview) -> None:
        """Write a range with a body that is sent again if the origin had dropped the connection before."""
        where = content_range(offset, len(view))
        with self.origin.request("write", "PUT", self.put_suffix, where, view) as reply:
            self.check_reply(reply, "write", 200, 204)

    def upload(self, offset: int, length: Optional[int]) -> Upload:
        """Begin to write a range piece by piece, which cannot be repeated; None if its length is not known yet."""
        where = {"content-range": f"bytes {offset}-*/*"} if length is None else content_range(offset, length)
        return self.origin.upload("write", self.put_suffix, where, length)

    def zero(self, offset: int, length: int) -> None:
        """Zero a range; only where the origin can."""
        # Without a flush of its own the origin could never be asked to later.
        flush = "flush" not in self.abilities.features
        self._patch("zero", {"op": "zero", "offset": offset, "size": length, "flush": flush})

    def flush(self) -> None:
        """Flush, where the origin can on request."""
        if "flush" in self.abilities.features:
            self._patch("flush", {"op": "flush"})

    def _patch(self, operation: str, message: Mapping[str, Any]) -> None:
        body = json.dumps(message).encode("ascii")
        kind = {"content-type": "application/json"}
        with self.origin.request(operation, "PATCH", headers=kind, body=body) as reply:
            self.check_reply(reply, operation, 200, 204)

    def list(self, context: str, offset: int = 0, length: Optional[int] = None) -> Reply:
        """Return the reply that holds the extents of a range; of the whole image from an origin that knows no ranges.

        Raises errors.UnsupportedContext.
        """
        suffix = f"/extents?context={context}"
        if offset or length is not None:
            suffix += f"&offset={offset}" + (f"&length={length}" if length is not None else "")
        with contextlib.ExitStack() as stack:
            reply = stack.enter_context(self.origin.request("list extents", "GET", suffix))
            if reply.status == 404:
                when = " unless the transfer is that of an incremental backup" if context == "dirty" else ""
                raise errors.UnsupportedContext(context, f"the image server does not report them{when}")
            self.check_reply(reply, "list extents", 200)
            stack.pop_all()
            return reply

    def checksum(self, algorithm: str, block_size: int) -> Optional[str]:
        """Let the origin compute it; None if it cannot. It may take as long as it likes: `interrupt` ends it."""
        if "checksum" not in self.abilities.features:
            return None
        suffix = f"/checksum?algorithm={quote(algorithm)}&block_size={block_size}"
        with self.origin.request("compute the checksum", "GET", suffix, is_patient=True) as reply:
            if reply.status in (400, 404):
                return None  # It does not know this algorithm.
            self.check_reply(reply, "compute the checksum", 200)
            return answers.read_checksum(reply, block_size)

    @contextlib.contextmanager
    def attached(self) -> Iterator[Stream]:
        """Let the caller speak NBD with the origin, over a connection that is closed after the block."""
        upgrade = {"connection": "upgrade", "upgrade": "nbd"}
        with self.origin.request("attach the disk", "GET", headers=upgrade) as reply:
            self.check_reply(reply, "attach the disk", 101)
            yield reply.lend()

    # --- Answers -----------------------------------------------------------------------------------------------------

    def check_reply(self, reply: Reply, operation: str, *expected: int) -> None:
        """Raise errors.OriginError with the origin's words, unless its status is an expected one."""
        if reply.status not in expected:
            raise answers.read_refusal(reply, operation, self._ticket_id)

    def check_range(self, reply: Reply, offset: int, length: int) -> None:
        """Raise unless the reply holds the range that was asked for."""
        self.check_reply(reply, "read", *((200, 206) if offset == 0 else (206,)))
        encoding = reply.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            # That was not asked for, and as bytes of a disk it would be garbage.
            raise errors.StorageError(
                "read", f"the image server sends the data encoded, with {errors.quoted(encoding)}"
            )
        if not answers.holds_range(reply, offset, length):
            raise errors.StorageError("read", "the image server sends another range than it was asked for")


def content_range(offset: int, length: int) -> dict[str, str]:
    """Return the header that tells where a body belongs."""
    return {"content-range": f"bytes {offset}-{offset + length - 1}/*"}
