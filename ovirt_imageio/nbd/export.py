"""An NBD server for one client, over anything that reads and writes like a disk.

    client ──> inbox ──> request ──> disk            small payloads lie in the inbox, long ones stream to the disk
    client <── outbox <── reply <─── disk            replies to small requests leave together

Requests are done in the order in which they come, and a client that has many under way gets their answers in large
steps. What breaks a rule is answered with the error of NBD, what breaks the protocol ends the connection. A client
holds no more memory than one inbox, one outbox and what the disk needs for one request, whatever it sends.

Knows channels, disks and the protocol; knows nothing of HTTP and tickets: a watch is told of each request.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Optional, Protocol

from ovirt_imageio import errors
from ovirt_imageio.geometry.extent import Extent, ZeroExtent
from ovirt_imageio.nbd import offer, requests, wire
from ovirt_imageio.nbd.errors import ClientFault
from ovirt_imageio.nbd.handshake import Agreement, Receive, Send
from ovirt_imageio.nbd.inbox import SMALL, Channel, Inbox, Payload
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.outbox import Answer, Outbox
from ovirt_imageio.nbd.requests import Request
from ovirt_imageio.nbd.wire import Command, CommandFlag, Mode
from ovirt_imageio.relay import Progress, Sink, Source

__all__ = ["ExportedDisk", "Watch", "answer", "negotiate", "serve"]

# The most extents that one answer lists; a client asks again for the rest.
MAX_EXTENTS = 4096


class ExportedDisk(Protocol):
    """What is exported: backends are such disks."""

    zero_step: int

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill view with the bytes at offset; return how many there are."""

    def write(self, offset: int, view: memoryview) -> None:
        """Write all of view at offset."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeroes."""

    def zero_allocated(self, offset: int, length: int) -> None:
        """Make a range read as zeroes, and keep its space."""

    def flush(self) -> None:
        """Make what was written survive a power failure."""

    def extents(self, context: str, offset: int, length: int) -> Iterator[Extent]:
        """Yield the "zero" or "dirty" extents of a range."""

    def send_to(self, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send a range to the sink."""

    def receive_from(self, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write a range from the source."""


class Watch(Protocol):
    """Is told what is done for the client; what a method raises ends the connection."""

    def begin(self, command: Command, offset: int, length: int) -> None:
        """A request begins."""

    def moved(self, count: int) -> None:
        """`count` more bytes of the current request are done."""

    def end(self, error: Optional[BaseException]) -> None:
        """The current request is done, or failed."""

    def passed(self, command: int, offset: int, length: int) -> None:
        """A request that was passed on is done."""

    def under_way(self, has_changes: bool) -> None:
        """Requests that were passed on are under way; tells whether one of them changes the disk."""


def serve(channel: Channel, disk: ExportedDisk, what: Offer, watch: Watch) -> None:
    """Serve a disk until the client leaves.

    Raises nbd.errors.ClientFault when the client breaks the protocol or leaves amid a request, and what channel and
    watch raise.
    """
    inbox = Inbox(channel)
    agreement = negotiate(inbox, channel, what)
    if agreement is not None:
        answer(inbox, channel, disk, what, agreement, watch)


def answer(inbox: Inbox, channel: Channel, disk: ExportedDisk, what: Offer, agreement: Agreement, watch: Watch) -> None:
    """Serve a disk to a client that has negotiated."""
    Transmission(inbox, Outbox(channel, agreement.mode), disk, what, agreement, watch).run()


def negotiate(inbox: Inbox, channel: Channel, what: Offer) -> Optional[Agreement]:
    """Negotiate with a client; return None if it leaves without a disk."""
    steps = offer.welcome(what)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Send):
                channel.send_parts([step.data])
                step = steps.send(b"")
            else:
                assert isinstance(step, Receive)
                step = steps.send(inbox.take(step.size))
    except StopIteration as end:
        agreement: Optional[Agreement] = end.value
        return agreement


class Transmission:
    """The transmission phase of one client."""

    def __init__(
        self,
        inbox: Inbox,
        replies: Outbox,
        disk: ExportedDisk,
        what: Offer,
        agreement: Agreement,
        watch: Watch,
    ) -> None:
        self._inbox = inbox
        self._disk = disk
        self._mode = agreement.mode
        self._rules = requests.Rules(what, agreement)
        self._contexts = [(number, CONTEXTS.get(name, DIRTY)) for number, name in agreement.contexts.items()]
        self._watch = watch
        self._replies = replies

    def run(self) -> None:
        """Answer requests until the client leaves."""
        while True:
            request = self._inbox.find(self._mode)
            if request is None:
                # The client may be waiting for us.
                self._replies.send()
                if not self._inbox.wait():
                    return
                continue
            code = self._rules.judge(request)
            if code:
                self._inbox.skip(request.payload)
                self._replies.fail(request, code)
            elif request.command == Command.DISCONNECT:
                self._replies.send()
                return
            else:
                self._do(request)
            if self._replies.is_full:
                self._replies.send()

    def _do(self, request: Request) -> None:
        """Do a request that may be done, and answer it."""
        command = Command(request.command)
        self._watch.begin(command, request.offset, request.length)
        try:
            self._perform(command, request)
            if request.flags & CommandFlag.FUA and command in (Command.WRITE, Command.WRITE_ZEROES):
                self._disk.flush()
        except (errors.StorageError, errors.PartialContent, errors.UnsupportedContext) as error:
            self._watch.end(error)
            self._replies.fail(request, code_of(error), str(error))
            return
        except BaseException as error:
            self._watch.end(error)
            raise
        self._watch.end(None)
        if command == Command.READ and request.length <= SMALL:
            self._replies.data(request)
        elif command not in (Command.READ, Command.BLOCK_STATUS):
            self._replies.done(request)

    def _perform(self, command: Command, request: Request) -> None:
        if command == Command.READ:
            self._read(request)
        elif command == Command.WRITE:
            self._write(request)
        elif command == Command.WRITE_ZEROES:
            self._zero(request)
        elif command == Command.FLUSH:
            self._disk.flush()
        else:
            self._tell_status(request)

    def _read(self, request: Request) -> None:
        if request.length <= SMALL:
            count = self._disk.readinto(request.offset, self._replies.room_for_data(request))
            if count < request.length:
                raise errors.PartialContent(request.length, count)
            self._watch.moved(count)
            return
        self._replies.send()
        answer = Answer(self._replies, request, self._mode is Mode.SIMPLE)
        try:
            self._disk.send_to(answer, request.offset, request.length, self._watch.moved)
        except errors.Error as error:
            if self._mode is Mode.SIMPLE and answer.sent:
                # The client counts on all of it.
                raise ClientFault(f"a reply was begun and cannot be ended: {error}") from error
            raise

    def _write(self, request: Request) -> None:
        if not self._inbox.holds(request.length):
            # The client may wait for earlier answers before it sends all of this.
            self._replies.send()
        if request.length <= SMALL:
            self._disk.write(request.offset, self._inbox.gather(request.length))
            self._watch.moved(request.length)
            return
        payload = Payload(self._inbox, request.payload)
        try:
            self._disk.receive_from(payload, request.offset, request.length, self._watch.moved)
        except errors.StorageError:
            self._inbox.skip(payload.left)
            raise

    def _zero(self, request: Request) -> None:
        zero = self._disk.zero_allocated if request.flags & CommandFlag.NO_HOLE else self._disk.zero
        done = 0
        while done < request.length:
            step = min(self._disk.zero_step, request.length - done)
            zero(request.offset + done, step)
            self._watch.moved(step)
            done += step

    def _tell_status(self, request: Request) -> None:
        """Tell the extents of each context; those of all are found first, as an error must be the only answer."""
        limit = 1 if request.flags & CommandFlag.REQ_ONE else MAX_EXTENTS
        longest = 2**63 if self._mode is Mode.EXTENDED else wire.MAX_LENGTH
        # By what the disk is asked for: two contexts may tell of the same extents.
        found: dict[str, list[Extent]] = {}
        for _, context in self._contexts:
            if context.kind not in found:
                extents = self._disk.extents(context.kind, request.offset, request.length)
                found[context.kind] = list(itertools.islice(extents, limit))
        for place, (number, context) in enumerate(self._contexts, 1):
            status = list(flagged(found[context.kind], context.flags, longest))
            self._replies.status(request, number, status, place == len(self._contexts))


class Context(NamedTuple):
    """Which extents of a disk tell what a meta context tells, and the flags of one of them."""

    kind: str
    flags: Callable[[Any], int]


def zero_flags(extent: ZeroExtent) -> int:
    """Return the flags of base:allocation."""
    return (wire.STATE_ZERO if extent.zero else 0) | (wire.STATE_HOLE if extent.hole else 0)


CONTEXTS = {
    wire.BASE_ALLOCATION: Context("zero", zero_flags),
    # How deep in a chain of images the data are: a hole is in none of them.
    wire.ALLOCATION_DEPTH: Context("zero", lambda extent: 0 if extent.hole else 1),
}

# All others are dirty bitmaps.
DIRTY = Context("dirty", lambda extent: wire.STATE_DIRTY if extent.dirty else 0)


def flagged(extents: Iterable[Extent], flags: Callable[[Any], int], longest: int) -> Iterator[tuple[int, int]]:
    """Yield extents as length and flags of their meta context."""
    for extent in extents:
        # One that is longer than the header can say ends early: the client asks again from there.
        yield min(extent.length, longest), flags(extent)
        if extent.length > longest:
            return


# The errors of the system that a client can do something about.
KNOWN = {
    errno.EPERM: requests.EPERM,
    errno.EINVAL: requests.EINVAL,
    errno.ENOSPC: requests.ENOSPC,
    errno.EDQUOT: requests.ENOSPC,
    errno.EOPNOTSUPP: requests.ENOTSUP,
}


def code_of(error: BaseException) -> int:
    """Return the error number of the protocol for one of our errors."""
    if isinstance(error, errors.NoSpace):
        return requests.ENOSPC
    if isinstance(error, errors.UnsupportedContext):
        return requests.ENOTSUP
    code = error.code if isinstance(error, errors.StorageError) else None
    return KNOWN.get(code, requests.EIO) if code is not None else requests.EIO
