"""Understand replies: simple, structured and extended ones, in any order, with interleaved chunks.

`Replies` answers one question again and again: where do the next bytes go? It is an iterator over steps:

    memoryview            fill all of it, then ask again: a header, or something as small
    Data(command, ...)    the next `length` bytes are what stands at `start` of the range that `command` reads:
                          take them from the connection, to wherever they shall go, then ask again
    Hole(command, ...)    no bytes follow: that part of the range is zeroes
    Done(command)         the command has ended; see command.error

Every length, offset, cookie, flag and type is checked against the command before a byte is stored, so a server can
neither write outside of a buffer nor make us remember more than we asked for. What breaks the rules raises
errors.ProtocolError: then the connection is lost, since it is not known where its next reply begins.

Pure: knows neither sockets nor clocks.
"""

from __future__ import annotations

import bisect
from collections.abc import Generator, Iterator
from typing import NamedTuple, Optional, Union

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.errors import ProtocolError, RequestFailed, printable
from ovirt_imageio.nbd.handshake import Export
from ovirt_imageio.nbd.wire import Chunk, Mode

__all__ = ["MAX_EXTENTS", "Data", "Done", "Hole", "Replies", "SentCommand", "Step"]

# How many pieces of one read may wait for their neighbours. Servers answer nearly in order; a hostile one could send
# every other byte, and make us keep a million numbers.
MAX_FRAGMENTS = 1024

# How many error chunks one command may have: one, or one for each bad place.
MAX_ERRORS = 1024

# The longest list of extents in one chunk: 8 MiB on the wire. qemu stops at 128 Ki.
MAX_EXTENTS = 1024 * 1024 - 1


# What a server may answer with a simple reply, by what was negotiated.
SIMPLE_KINDS = {
    Mode.SIMPLE: frozenset(wire.Command),
    Mode.STRUCTURED: frozenset(wire.Command) - {wire.Command.READ, wire.Command.BLOCK_STATUS},
    Mode.EXTENDED: frozenset(),
}


class SentCommand:
    """A command that was sent: what was asked for, and what came back so far."""

    __slots__ = (
        *("_covered", "cookie", "error", "error_count", "extents"),
        *("flags", "kind", "length", "may_be_simple", "offset", "payload", "view"),
    )

    def __init__(
        self, kind: wire.Command, offset: int, length: int, view: Optional[memoryview] = None, flags: int = 0
    ) -> None:
        assert view is None or len(view) == length
        self.kind = kind
        self.flags = flags
        self.offset = offset
        self.length = length
        # Where the bytes of a read go, or what a write sends. None where a read is passed on without being stored.
        self.view = view
        # How many bytes of the reply go there.
        self.payload = length if kind == wire.Command.READ else 0
        # True if the server may answer with a simple reply.
        self.may_be_simple = False
        self.cookie = 0
        self.error: Optional[RequestFailed] = None
        self.error_count = 0
        # The extents of block status, packed as they came, by the number of their context.
        self.extents: dict[int, memoryview] = {}
        # The parts of a read that came, as begin, end, begin, end ...: ascending, apart from one another.
        self._covered: list[int] = []

    @property
    def is_covered(self) -> bool:
        """True if all the bytes of a read came."""
        return self._covered == [0, self.length]

    def cover(self, start: int, length: int) -> None:
        """Note that `length` bytes at `start` come; raises ProtocolError if that cannot be."""
        end = start + length
        if length == 0 or start < 0 or end > self.length:
            raise ProtocolError(f"{length} bytes at {start} do not belong to {self}")
        covered = self._covered
        if not covered:
            # Most replies are of one piece.
            covered += (start, end)
            return
        at = bisect.bisect_right(covered, start)
        # An odd index is inside of a part.
        if at % 2 or (at < len(covered) and covered[at] < end):
            raise ProtocolError(f"{length} bytes at {start} of {self} came twice")
        # What touches a part makes it longer: then the number that stood between them goes.
        touches_left = at > 0 and covered[at - 1] == start
        touches_right = at < len(covered) and covered[at] == end
        bounds = ([] if touches_left else [start]) + ([] if touches_right else [end])
        covered[at - touches_left : at + touches_right] = bounds
        if len(covered) > 2 * MAX_FRAGMENTS:
            raise ProtocolError(f"{self} comes in too many fragments")

    def fail(self, code: int, message: str = "") -> None:
        """Note that the server reported an error; the first one counts."""
        self.error_count += 1
        if self.error_count > MAX_ERRORS:
            raise ProtocolError(f"the NBD server does not stop reporting errors of {self}")
        if self.error is None:
            self.error = RequestFailed(str(self.kind), code, message)

    def __str__(self) -> str:
        return f"{self.kind} of {self.length} bytes at {self.offset}"


class Data(NamedTuple):
    """The next `length` bytes of the connection stand at `start` of the range of `command`."""

    command: SentCommand
    start: int
    length: int


class Hole(NamedTuple):
    """`length` bytes at `start` of the range of `command` are zeroes; nothing follows on the connection."""

    command: SentCommand
    start: int
    length: int


class Done(NamedTuple):
    """The command has ended."""

    command: SentCommand


Step = Union[memoryview, Data, Hole, Done]
Steps = Generator[Union[memoryview, Data, Hole], None, None]


class Replies:
    """The commands that wait for their reply, and the steps that make it arrive."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self._pending: dict[int, SentCommand] = {}
        # How many bytes are to be read by all of them.
        self.payload = 0
        # How many of them may have a simple reply.
        self._simple_count = 0
        self._simple_kinds = SIMPLE_KINDS[export.mode]
        self._next_cookie = 0
        self._steps = self._run()

    def __len__(self) -> int:
        """How many commands are under way."""
        return len(self._pending)

    def add(self, command: SentCommand) -> None:
        """Expect the reply of a command, and give it its cookie."""
        command.cookie = self._next_cookie
        self._next_cookie = (self._next_cookie + 1) & 0xFFFF_FFFF_FFFF_FFFF
        self._pending[command.cookie] = command
        command.may_be_simple = command.kind in self._simple_kinds
        self._simple_count += command.may_be_simple
        self.payload += command.payload

    def take_usual(self, command: SentCommand, data: bytes) -> int:
        """End a command if `data` begins with the reply that is usual for it; return the length of that, else 0.

        It is known to the byte, so there is nothing to understand.
        """
        head = usual_head(self._export.mode, command)
        if head is None or not data.startswith(head):
            return 0
        end = len(head) + command.payload
        if len(data) < end:
            return 0
        if command.payload:
            assert command.view is not None
            command.view[:] = data[len(head) : end]
        self._end(command)
        return end

    def _end(self, command: SentCommand) -> None:
        """Expect nothing more of a command."""
        del self._pending[command.cookie]
        self._simple_count -= command.may_be_simple
        self.payload -= command.payload

    def __iter__(self) -> Iterator[Step]:
        """Return the steps; they go on where they were left."""
        return self._steps

    def _run(self) -> Generator[Step, None, None]:
        """Yield the steps of one reply, or one chunk of a reply, after the other; for ever."""
        header = scratch(self._export.mode.header.size)
        # A simple reply is the shortest: do not wait for more bytes where one may come.
        simple, rest = header[: wire.SIMPLE_REPLY.size], header[wire.SIMPLE_REPLY.size :]
        magic = self._export.mode.magic
        while True:
            is_short = self._simple_count > 0
            yield simple if is_short else header
            found = int.from_bytes(header[:4], "big")
            if found == wire.SIMPLE_REPLY_MAGIC and is_short:
                command: Optional[SentCommand] = yield from self._simple(simple)
            elif found == magic:
                if is_short and rest:
                    yield rest
                command = yield from self._chunk(header)
            else:
                raise ProtocolError(f"a reply begins with {found:#010x}")
            if command is not None:
                self._end(command)
                yield Done(command)

    def _find(self, cookie: int) -> SentCommand:
        try:
            return self._pending[cookie]
        except KeyError:
            raise ProtocolError(f"a reply to request {cookie}, which is not under way") from None

    def _simple(self, header: memoryview) -> Generator[Data, None, SentCommand]:
        """Understand a simple reply."""
        _, code, cookie = wire.SIMPLE_REPLY.unpack(header)
        command = self._find(cookie)
        if not command.may_be_simple or command.error:
            raise ProtocolError(f"a simple reply to {command}, or amid its chunks")
        if code:
            command.fail(code)
        elif command.kind == wire.Command.READ:
            command.cover(0, command.length)
            yield Data(command, 0, command.length)
        return command

    def _chunk(self, header: memoryview) -> Generator[Union[memoryview, Data, Hole], None, Optional[SentCommand]]:
        """Understand one chunk of a structured reply; return its command if it was the last one."""
        if self._export.mode is Mode.EXTENDED:
            _, flags, kind, cookie, offset, length = wire.EXTENDED_REPLY.unpack(header)
            command = self._find(cookie)
            if offset != command.offset:
                raise ProtocolError(f"a reply to {command} says that it is about offset {offset}")
        else:
            _, flags, kind, cookie, length = wire.STRUCTURED_REPLY.unpack(header)
            command = self._find(cookie)
        if flags & ~wire.CHUNK_DONE:
            raise ProtocolError(f"a chunk of {command} has unknown flags {flags:#x}")
        is_last = bool(flags & wire.CHUNK_DONE)
        if wire.is_error_chunk(kind):
            yield from self._error(command, kind, length)
        elif kind == Chunk.NONE:
            if length or not is_last:
                raise ProtocolError(f"an empty chunk of {command} has {length} bytes, or is not the last one")
        elif kind in (Chunk.OFFSET_DATA, Chunk.OFFSET_HOLE) and command.kind == wire.Command.READ:
            yield from self._data(command, kind, length)
        elif kind == self._status_kind() and command.kind == wire.Command.BLOCK_STATUS:
            yield from self._status(command, length)
        else:
            raise ProtocolError(f"a chunk of type {kind} in the reply to {command}")
        if is_last:
            self._check_complete(command)
        return command if is_last else None

    def _data(self, command: SentCommand, kind: int, length: int) -> Steps:
        """Understand a chunk of the bytes that were asked for."""
        if kind == Chunk.OFFSET_HOLE:
            if length != wire.HOLE.size:
                raise ProtocolError(f"a hole of {command} is described in {length} bytes")
            view = scratch(length)
            yield view
            offset, length = wire.HOLE.unpack(view)
            command.cover(offset - command.offset, length)
            yield Hole(command, offset - command.offset, length)
            return
        if not wire.DATA_OFFSET.size < length <= wire.DATA_OFFSET.size + command.length:
            raise ProtocolError(f"a chunk of {length} bytes in the reply to {command}")
        view = scratch(wire.DATA_OFFSET.size)
        yield view
        (offset,) = wire.DATA_OFFSET.unpack(view)
        length -= wire.DATA_OFFSET.size
        command.cover(offset - command.offset, length)
        yield Data(command, offset - command.offset, length)

    def _status_kind(self) -> Chunk:
        return Chunk.BLOCK_STATUS_EXT if self._export.mode is Mode.EXTENDED else Chunk.BLOCK_STATUS

    def _status(self, command: SentCommand, length: int) -> Steps:
        """Understand a chunk of extents; they stay packed until they are needed."""
        extended = self._export.mode is Mode.EXTENDED
        prefix = wire.STATUS_EXT.size if extended else wire.CONTEXT_ID.size
        size = wire.STATUS_EXT_EXTENT.size if extended else wire.STATUS_EXTENT.size
        count, odd = divmod(length - prefix, size)
        if odd or not 0 < count <= MAX_EXTENTS:
            raise ProtocolError(f"a list of extents of {length} bytes in the reply to {command}")
        head = scratch(prefix)
        yield head
        (context,) = wire.CONTEXT_ID.unpack_from(head)
        if extended and wire.STATUS_EXT.unpack(head)[1] not in (0, count):
            raise ProtocolError(f"a list of {count} extents in the reply to {command} claims another length")
        if context not in self._export.contexts or context in command.extents:
            raise ProtocolError(f"extents of unknown context {context}, or twice, in the reply to {command}")
        packed = memoryview(bytearray(count * size))
        command.extents[context] = packed
        yield packed

    def _error(self, command: SentCommand, kind: int, length: int) -> Steps:
        """Understand an error chunk, also one of a kind that is newer than we are."""
        if not wire.ERROR.size <= length <= wire.ERROR.size + wire.MAX_STRING + wire.ERROR_OFFSET.size:
            raise ProtocolError(f"an error of {length} bytes in the reply to {command}")
        payload = scratch(length)
        yield payload
        code, size = wire.ERROR.unpack_from(payload)
        tail = length - wire.ERROR.size - size
        expected = {int(Chunk.ERROR): 0, int(Chunk.ERROR_OFFSET): wire.ERROR_OFFSET.size}.get(kind, tail)
        if code == 0 or tail < 0 or tail != expected:
            raise ProtocolError(f"a malformed error in the reply to {command}")
        if kind == Chunk.ERROR_OFFSET:
            (offset,) = wire.ERROR_OFFSET.unpack_from(payload, length - tail)
            if not command.offset <= offset < command.offset + command.length:
                raise ProtocolError(f"an error at {offset} in the reply to {command}")
        command.fail(code, printable(bytes(payload[wire.ERROR.size : wire.ERROR.size + size])))

    def _check_complete(self, command: SentCommand) -> None:
        """Raise ProtocolError if the last chunk came before all that was promised."""
        if command.error is not None:
            return
        if command.kind == wire.Command.READ and not command.is_covered:
            raise ProtocolError(f"the reply to {command} ended before all of its bytes came")
        if command.kind == wire.Command.BLOCK_STATUS and len(command.extents) != len(self._export.contexts):
            raise ProtocolError(f"the reply to {command} ended before all of its extents came")


def usual_head(mode: Mode, command: SentCommand) -> Optional[bytes]:
    """Return how the reply to a command begins, up to what was read, if all goes well; None if there is no usual one.

    That is a simple reply where one is permitted, and one chunk of data for a read.
    """
    if command.may_be_simple:
        return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, 0, command.cookie)
    if mode is Mode.STRUCTURED and command.payload:
        kind = Chunk.OFFSET_DATA
        length = wire.DATA_OFFSET.size + command.length
        return wire.ONE_CHUNK.pack(
            wire.STRUCTURED_REPLY_MAGIC, wire.CHUNK_DONE, kind, command.cookie, length, command.offset
        )
    return None


def scratch(size: int) -> memoryview:
    """Return a view for a few bytes."""
    return memoryview(bytearray(size))
