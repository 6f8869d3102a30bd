"""What is under way between a client and a server of NBD whose payloads pass us unread.

    client ──> requests ──> server       each header is judged, and noted; payloads pass
    client <── replies  <── server       each header must answer what is noted; payloads pass

The caller moves the bytes, and shows each of them to the ledger first. It is told which bytes may pass, and where a
reply ends: there is the place for an answer of our own, to a request that was refused and not passed on. Two things are
changed on the way: a flag of requests to zero (`Offer.can_punch`), and the numbers of meta contexts (`renumber`).

Pure: knows neither sockets nor disks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional

from ovirt_imageio.nbd import requests, wire
from ovirt_imageio.nbd.errors import ClientFault, ProtocolError
from ovirt_imageio.nbd.replies import MAX_EXTENTS
from ovirt_imageio.nbd.requests import Request, Rules
from ovirt_imageio.nbd.wire import CHANGES, Chunk, Command, CommandFlag, Mode

__all__ = ["Ledger", "Moved", "Part", "refusal", "renumber"]

# How many requests may be under way, or refused and not answered: four times what the busiest client asks for. More
# wait at the client.
MAX_PENDING = 1024

# The longest chunk that is not data: as many extents as we would take ourselves, and what comes before them.
MAX_CHUNK = (MAX_EXTENTS + 1) * wire.STATUS_EXT_EXTENT.size

# What a server may say of an error, with its numbers.
MAX_ERROR = wire.MAX_STRING + 16

# The chunks that begin with the number of a meta context, and how long that is.
STATUS = frozenset([Chunk.BLOCK_STATUS, Chunk.BLOCK_STATUS_EXT])
NUMBER = wire.CONTEXT_ID.size

# The largest number that can be replaced by another one with one byte, wherever a reply is cut.
MAX_NUMBER = 255

# The word that begins each reply, and says how long its header is.
MAGIC = struct.Struct(">I")


class Moved(NamedTuple):
    """A request that succeeded."""

    command: int
    offset: int
    length: int


class Part(NamedTuple):
    """A part of what a client sent: bytes from `start` to `end` that may pass, or `refused` with an error number."""

    start: int
    end: int
    refused: Optional[Request] = None
    code: int = 0


class Pending:
    """A request that was passed on."""

    __slots__ = ("command", "failed", "left", "length", "offset")

    def __init__(self, request: Request) -> None:
        self.command = request.command
        self.offset = request.offset
        self.length = request.length
        # How many bytes of a read may still come.
        self.left = request.length if request.command == Command.READ else 0
        self.failed = False


class Ledger:
    """The requests of one client that were passed on, and what their replies may be.

    `numbers` are those that the client knows meta contexts by, by the numbers of the server.

    Threads: one.
    """

    def __init__(self, rules: Rules, mode: Mode, numbers: Optional[Mapping[int, int]] = None) -> None:
        self._rules = rules
        self._mode = mode
        # How long the headers of replies are, by the words that begin them.
        self._sizes = {mode.magic: mode.header.size}
        if mode is Mode.STRUCTURED:
            self._sizes[wire.SIMPLE_REPLY_MAGIC] = wire.SIMPLE_REPLY.size
        self._longest = max(self._sizes.values())
        self._numbers = numbers or {}
        # Nothing is looked at where all are the same.
        self._has_numbers = any(theirs != ours for theirs, ours in self._numbers.items())
        # Bytes of the number of a context that are still to come.
        self._number = 0
        self._header = wire.EXTENDED_REQUEST.size if mode is Mode.EXTENDED else wire.REQUEST.size
        self._pending: dict[int, Pending] = {}
        # How many of them change the disk.
        self._changes = 0
        # Bytes of a payload that are still to come from the client, and whether they may pass.
        self._payload = 0
        self._passes = True
        # How many requests were refused whose answers wait here.
        self._refused = 0
        # How much of what the client sent last was dealt with.
        self.taken = 0
        # The client said good-bye.
        self.is_over = False
        # Bytes of a reply that are still to come, and the beginning of a header that was cut.
        self._rest = 0
        self._begun = b""
        # The cookie of the request that ends with the chunk that comes.
        self._last: Optional[int] = None
        # What has succeeded since the caller last looked.
        self.moved: list[Moved] = []

    def __len__(self) -> int:
        """Return how many requests are under way."""
        return len(self._pending)

    @property
    def has_changes(self) -> bool:
        """True if a request that changes the disk is under way."""
        return self._changes > 0

    @property
    def is_full(self) -> bool:
        """True if nothing more should be taken from the client."""
        return len(self._pending) + self._refused >= MAX_PENDING

    @property
    def is_between_replies(self) -> bool:
        """True if the last byte that came from the server ended a chunk."""
        return not self._rest and not self._begun

    @property
    def is_amid_request(self) -> bool:
        """True if the client has begun a payload."""
        return self._payload > 0

    @property
    def is_dropping(self) -> bool:
        """True if that is the payload of a request that was refused: the client expects no answer before its end."""
        return self._payload > 0 and not self._passes

    # --- From the client ---------------------------------------------------------------------------------------------

    def take_requests(self, data: memoryview) -> Iterator[Part]:
        """Yield the parts of what the client sent that may pass or are refused.

        Once all are yielded, `taken` tells how much of it is dealt with: a header that is not complete, and what comes
        while it is full, must be shown again, with more behind it. Flags that the server must see are added. Raises
        errors.ClientFault.
        """
        position = start = 0
        size = len(data)
        while position < size and not self.is_over:
            if self._payload:
                step = min(self._payload, size - position)
                self._payload -= step
                position += step
                if not self._passes:
                    # It is dropped.
                    start = position
                continue
            if self.is_full:
                break
            request = requests.find(data, position, size, self._mode)
            if request is None:
                break
            code = self._rules.judge(request)
            self._payload = request.payload
            self._passes = not code
            if code:
                self._refused += 1
                if start < position:
                    yield Part(start, position)
                position += self._header
                start = position
                yield Part(position, position, request, code)
            elif request.command == Command.DISCONNECT:
                self.is_over = True
                position += self._header
            else:
                self._note(request)
                flags = self._completed(request)
                if flags != request.flags:
                    wire.REQUEST_FLAGS.pack_into(data, position + wire.REQUEST_FLAGS_AT, flags)
                position += self._header
        self.taken = position
        if start < position:
            yield Part(start, position)

    def note_answered(self) -> None:
        """Note that the client takes the answers to all requests that were refused."""
        self._refused = 0

    def _completed(self, request: Request) -> int:
        """Return the flags of a request with those that the server must see."""
        if request.command == Command.WRITE_ZEROES and not self._rules.can_punch:
            # Zeroing may give no space back.
            return request.flags | CommandFlag.NO_HOLE
        if request.command == Command.WRITE and self._mode is Mode.EXTENDED:
            # A client that forgets it is understood here, but not by every server.
            return request.flags | CommandFlag.PAYLOAD_LENGTH
        return request.flags

    def _note(self, request: Request) -> None:
        if request.cookie in self._pending:
            raise ClientFault("the NBD client uses the cookie of a request that is under way")
        self._pending[request.cookie] = Pending(request)
        self._changes += request.command in CHANGES

    # --- From the server ---------------------------------------------------------------------------------------------

    def take_replies(self, data: memoryview) -> int:
        """Check what the server sent, all of which may pass; return how much of it lies before the last end of a chunk.

        Return -1 if no chunk ends here. Numbers of contexts are replaced. Raises errors.ProtocolError.
        """
        position, size, end = 0, len(data), -1
        while position < size:
            if self._rest:
                step = min(self._rest, size - position)
                if self._number:
                    step = self._take_number(data[position : position + step])
                self._rest -= step
                position += step
            elif self._begun or size - position < self._longest:
                position += self._take_slowly(data[position:])
            else:
                position += self._take_header(data, position)
            if not self._rest and not self._begun:
                self._end_reply()
                end = position
        return end

    def _take_slowly(self, data: memoryview) -> int:
        """Take some of a header that may be cut; return how much was taken."""
        taken = 0
        while len(self._begun) < (size := self._begun_size()):
            step = bytes(data[taken : taken + size - len(self._begun)])
            if not step:
                return taken
            taken += len(step)
            self._begun += step
        begun, self._begun = self._begun, b""
        self._take_header(memoryview(begun), 0)
        return taken

    def _take_number(self, data: memoryview) -> int:
        """Take what came of the number of a context, and replace its last byte; return how much was taken."""
        step = min(self._number, len(data))
        self._number -= step
        if not self._number:
            number = self._numbers.get(data[step - 1])
            if number is None:
                raise ProtocolError("the NBD server tells of a meta context that was not agreed on")
            data[step - 1] = number
        return step

    def _begun_size(self) -> int:
        """Return how long the header is that has begun, as far as that is known."""
        if len(self._begun) < MAGIC.size:
            return MAGIC.size
        return self._size_of(MAGIC.unpack_from(self._begun)[0])

    def _size_of(self, magic: int) -> int:
        """Return how long the header is that begins so."""
        size = self._sizes.get(magic)
        if size is None:
            raise ProtocolError(f"a reply of the NBD server begins with {magic:#x}")
        return size

    def _take_header(self, data: memoryview, position: int) -> int:
        """Take a whole header; return how long it is."""
        (magic,) = MAGIC.unpack_from(data, position)
        size = self._size_of(magic)
        if magic == wire.STRUCTURED_REPLY_MAGIC:
            _, flags, kind, cookie, length = wire.STRUCTURED_REPLY.unpack_from(data, position)
            self._take_chunk(flags, kind, cookie, length)
        elif magic == wire.EXTENDED_REPLY_MAGIC:
            _, flags, kind, cookie, _, length = wire.EXTENDED_REPLY.unpack_from(data, position)
            self._take_chunk(flags, kind, cookie, length)
        else:
            _, error, cookie = wire.SIMPLE_REPLY.unpack_from(data, position)
            self._take_simple(error, cookie)
        return size

    def _take_simple(self, error: int, cookie: int) -> None:
        pending = self._find(cookie)
        if self._mode is Mode.STRUCTURED and pending.command in (Command.READ, Command.BLOCK_STATUS):
            raise ProtocolError("the NBD server sent a simple reply where it must not")
        if pending.left and not error:
            self._rest = pending.left
        pending.failed = error != 0
        self._last = cookie

    def _take_chunk(self, flags: int, kind: int, cookie: int, length: int) -> None:
        pending = self._find(cookie)
        if kind == Chunk.OFFSET_DATA:
            count = length - wire.DATA_OFFSET.size
            if not 0 < count <= pending.left:
                raise ProtocolError("the NBD server sent data that was not asked for")
            pending.left -= count
        elif wire.is_error_chunk(kind):
            if length > MAX_ERROR:
                raise ProtocolError(f"the NBD server reports an error with {length} bytes")
            pending.failed = True
        elif length > MAX_CHUNK:
            raise ProtocolError(f"the NBD server sent a chunk of type {kind} and {length} bytes")
        self._rest = length
        if self._has_numbers and pending.command == Command.BLOCK_STATUS and kind in STATUS and length >= NUMBER:
            self._number = NUMBER
        if flags & wire.CHUNK_DONE:
            self._last = cookie

    def _find(self, cookie: int) -> Pending:
        pending = self._pending.get(cookie)
        if pending is None:
            raise ProtocolError("the NBD server answered a request that was not sent")
        return pending

    def _end_reply(self) -> None:
        """Forget the request whose last chunk has come."""
        cookie, self._last = self._last, None
        if cookie is None:
            return
        pending = self._pending.pop(cookie)
        self._changes -= pending.command in CHANGES
        if not pending.failed:
            self.moved.append(Moved(pending.command, pending.offset, pending.length))


def renumber(theirs: Mapping[int, str], agreed: Mapping[int, str]) -> Optional[dict[int, int]]:
    """Return the numbers of meta contexts that were agreed on with a client, by those of a server.

    Return None if the server does not tell exactly these, or if its replies cannot pass. There is one dirty bitmap at
    most, which may have another name there.
    """
    ours = {kind_of(name): number for number, name in agreed.items()}
    numbers = {number: ours.get(kind_of(name), -1) for number, name in theirs.items()}
    if sorted(numbers.values()) != sorted(agreed):
        return None
    is_alike = all(number == ours for number, ours in numbers.items())
    return numbers if is_alike or max(*numbers, *numbers.values()) <= MAX_NUMBER else None


def kind_of(context: str) -> str:
    """Return what a meta context tells."""
    return wire.DIRTY_BITMAP if context.startswith(wire.DIRTY_BITMAP) else context


def refusal(request: Request, code: int, mode: Mode) -> bytes:
    """Return the answer to a request that was not passed on."""
    body = wire.ERROR.pack(code, 0)
    if mode is Mode.SIMPLE:
        return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, code, request.cookie)
    if mode is Mode.STRUCTURED:
        head = wire.STRUCTURED_REPLY.pack(
            wire.STRUCTURED_REPLY_MAGIC, wire.CHUNK_DONE, Chunk.ERROR, request.cookie, len(body)
        )
    else:
        head = wire.EXTENDED_REPLY.pack(
            wire.EXTENDED_REPLY_MAGIC, wire.CHUNK_DONE, Chunk.ERROR, request.cookie, request.offset, len(body)
        )
    return head + body
