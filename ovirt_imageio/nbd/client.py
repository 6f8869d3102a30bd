"""Speak to an NBD server: one connection, several requests under way.

    with connect(address.parse("nbd:unix:/run/nbd.sock")) as nbd:
        nbd.read(0, view)

Requests that fail raise errors.RequestFailed, and the connection can be used further; errors.ConnectionDead leaves it
closed.

Knows neither how the connection came to be (connect.py), nor HTTP, tickets, backends and configuration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Union

from ovirt_imageio.geometry import blocks
from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.batches import Batches
from ovirt_imageio.nbd.errors import ConnectionDead, Disconnected, Error, Unsupported
from ovirt_imageio.nbd.handshake import Export
from ovirt_imageio.nbd.replies import Data, Done, Hole, Replies, SentCommand
from ovirt_imageio.nbd.stream import GATHER, ServerStream
from ovirt_imageio.nbd.wire import CommandFlag
from ovirt_imageio.net.stream import Stream
from ovirt_imageio.relay import Pipe
from ovirt_imageio.relay.buffers import ZEROES

__all__ = ["PIECE", "WINDOW", "Client"]

# Bytes are moved in pieces of this size: pieces of half the size are 10 % slower, of a quarter 20 to 33 %.
PIECE = 1024 * 1024

# How many requests are under way at once: the storage works while the network does.
WINDOW = 4

# The first piece of a long move. qemu takes the memory for each request from malloc, and glibc gives back to the system
# what is freed: then each page is faulted in anew for the next request, and qemu needs three times the processor. That
# ends once a larger piece of memory was freed: from then on twice as much is kept, enough for a few connections.
OPENING = 4 * PIECE

# The longest zero request: any server can do that, and none needs minutes.
MAX_ZERO = 1024 * 1024 * 1024

# "the length field of NBD_CMD_BLOCK_STATUS": some servers choke on the last bit.
MAX_STATUS = 2 * 1024 * 1024 * 1024
# With extended headers lengths have 64 bits; qemu wants them not to be negative.
MAX_EXTENDED_STATUS = 2**62

# Longer than any disk.
NEVER = 2**64


class Client:
    """One export of one server.

    Threads: one at a time, but for `interrupt`, which any thread may call.
    """

    def __init__(self, stream: ServerStream, export: Export) -> None:
        self._stream = stream
        self.export = export
        self._replies = Replies(export)
        self._is_alive = True
        # Asked for each write: to ask the flags is slow.
        self._is_read_only = export.is_read_only
        # Bytes are moved in pieces of this size, which the server can take.
        self.piece = min(PIECE, export.maximum_block)
        self._opening = min(OPENING, export.maximum_block)

    @property
    def is_alive(self) -> bool:
        """False once nothing more can be said on this connection."""
        return self._is_alive

    @property
    def can_splice(self) -> bool:
        """True if what Data announces, and what is written, may pass through a pipe."""
        return Pipe.is_supported and self._stream.is_plain

    def has_reply(self) -> bool:
        """Return True if a reply, or at least its beginning, is here."""
        return self._stream.is_ready()

    def probe(self) -> bool:
        """Return False if the connection is dead, also if the server closed it while nothing was under way."""
        if self._is_alive and not self._replies and self._stream.was_told():
            # Nothing was asked for: this can only be the end.
            self._die()
        return self._is_alive

    # --- Requests ----------------------------------------------------------------------------------------------------

    def read(self, offset: int, view: memoryview) -> None:
        """Fill view with the bytes at offset."""
        if self._is_one_piece(offset, len(view)):
            return self.run_one(SentCommand(wire.Command.READ, offset, len(view), view))
        self.run(
            SentCommand(wire.Command.READ, offset + start, length, view[start : start + length])
            for start, length in self.pieces(offset, len(view))
        )

    def write(self, offset: int, view: memoryview, fua: bool = False) -> None:
        """Write all of view at offset; with `fua` it is on the storage when this returns."""
        self._check_writable(wire.Command.WRITE)
        flags = CommandFlag.FUA if fua and self.export.can_fua else CommandFlag.NONE
        if self._is_one_piece(offset, len(view)):
            self.run_one(SentCommand(wire.Command.WRITE, offset, len(view), view, flags))
        else:
            self.run(
                SentCommand(wire.Command.WRITE, offset + start, length, view[start : start + length], flags)
                for start, length in self.pieces(offset, len(view))
            )
        if fua and not self.export.can_fua:
            self.flush()

    def zero(self, offset: int, length: int, punch_hole: bool = True) -> None:
        """Make `length` bytes at offset read as zeroes, and give their space back if `punch_hole`."""
        self._check_writable(wire.Command.WRITE_ZEROES)
        if self.export.can_zero:
            flags = CommandFlag.NONE if punch_hole else CommandFlag.NO_HOLE
            steps = blocks.pieces(0, length, MAX_ZERO)
            self.run(SentCommand(wire.Command.WRITE_ZEROES, offset + start, size, None, flags) for start, size in steps)
        else:
            self.run(
                SentCommand(wire.Command.WRITE, offset + start, size, ZEROES[:size])
                for start, size in self.pieces(offset, length)
            )

    def flush(self) -> None:
        """Make what was written survive a power failure; a server that does not offer it has nothing to flush."""
        if self.export.can_flush:
            self.run_one(SentCommand(wire.Command.FLUSH, 0, 0))

    def block_status(self, offset: int, length: int) -> dict[int, memoryview]:
        """Return the extents at offset, packed as they came, by the number of their context.

        They cover a part of the range that is not empty, and may reach beyond it. See `status` for a view of them.
        """
        assert 0 < length <= self.max_status
        if not self.export.contexts:
            raise Unsupported(str(wire.Command.BLOCK_STATUS))
        command = SentCommand(wire.Command.BLOCK_STATUS, offset, length)
        self.run_one(command)
        return command.extents

    @property
    def max_status(self) -> int:
        """The longest range that block_status can be asked about."""
        return MAX_EXTENDED_STATUS if self.export.mode is wire.Mode.EXTENDED else MAX_STATUS

    def next_piece(self, offset: int, length: int) -> int:
        """Return the length of the next request, where `length` bytes at offset are left.

        Pieces end at multiples of their size, so that aligned storage has two odd ones at most.
        """
        size = self.piece
        if length >= self._opening:
            size, self._opening = self._opening, NEVER
        return min(size - offset % self.piece, length)

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Split a range into pieces that the server can take: yield the start within the range, and the length."""
        start = 0
        while start < length:
            size = self.next_piece(offset + start, length - start)
            yield start, size
            start += size

    def _is_one_piece(self, offset: int, length: int) -> bool:
        """True if pieces() would not split the range."""
        return 0 < length <= self.piece - offset % self.piece

    def _check_writable(self, command: wire.Command) -> None:
        if self._is_read_only:
            raise Unsupported(str(command), message="the export is read-only")

    # --- What requests are made of -----------------------------------------------------------------------------------

    def run(self, commands: Iterable[SentCommand]) -> None:
        """Run commands, a window of them at a time; when one fails, wait for those under way and raise its error."""
        try:
            for command in commands:
                while len(self._replies) >= WINDOW:
                    self.finish()
                self.submit(command)
            while self._replies:
                self.finish()
        except BaseException as e:
            self._recover(e)
            raise

    def run_one(self, command: SentCommand) -> None:
        """Run a command while no other is under way."""
        assert not self._replies
        try:
            self.submit(command)
            if not self._finish_usual(command):
                self.finish()
        except BaseException as e:
            self._recover(e)
            raise

    def _finish_usual(self, command: SentCommand) -> bool:
        """Wait for the reply to a small command, the only one under way; return True if the usual one is all here."""
        if command.length > GATHER:
            return False
        count = self._replies.take_usual(command, self._stream.gather())
        if count:
            self._stream.drop(count)
        return count > 0

    def submit(self, command: SentCommand) -> None:
        """Send a command. Its reply is expected from now on; see `advance`."""
        header = self.start(command)
        try:
            self._stream.send(header, command.view if command.kind == wire.Command.WRITE else None)
        except BaseException:
            self._die()
            raise

    def start(self, command: SentCommand) -> bytes:
        """Return the header of a command, whose reply is expected from now on; the caller sends it, and its payload."""
        assert command.offset + command.length <= self.export.size
        if not self._is_alive:
            raise Disconnected("the connection to the NBD server is closed")
        self._replies.add(command)
        flags = command.flags
        if command.kind == wire.Command.WRITE and self.export.mode is wire.Mode.EXTENDED:
            flags |= CommandFlag.PAYLOAD_LENGTH
        mode = self.export.mode
        return wire.encode_request(mode, flags, command.kind, command.cookie, command.offset, command.length)

    def advance(self, gather: bool = True) -> Union[Data, Hole, Done]:
        """Receive until something happens to one of the commands. What Data announces must be received next.

        A caller that takes that from the socket must not let others `gather` it.
        """
        for step in self._replies:
            if not isinstance(step, memoryview):
                return step
            self._stream.receive(step, gather and self._replies.payload <= GATHER)
        raise AssertionError("replies end only when they raise")

    def receive(self, view: memoryview) -> None:
        """Receive a part of what Data announced."""
        self._stream.receive(view)

    def receive_pipe(self, pipe: Pipe, limit: int) -> int:
        """Move a part of what Data announced, up to `limit` bytes, into a pipe; return how many bytes that are."""
        return self._stream.receive_pipe(pipe, limit)

    def submit_parts(self, command: SentCommand, parts: Sequence[memoryview]) -> None:
        """Send a write whose bytes are in several parts, at least one. Its reply is expected from now on."""
        header = self.start(command)
        try:
            self._stream.send(header, parts[0])
            for part in parts[1:]:
                self._stream.send(part)
        except BaseException:
            self._die()
            raise

    def submit_pipe(self, command: SentCommand, pipe: Pipe) -> None:
        """Send a write whose bytes are in a pipe. Its reply is expected from now on."""
        header = self.start(command)
        try:
            self._stream.send_pipe(header, pipe)
        except BaseException:
            self._die()
            raise

    def store(self, step: Union[Data, Hole]) -> None:
        """Put what a step announces into the view of its command."""
        assert step.command.view is not None
        view = step.command.view[step.start : step.start + step.length]
        if isinstance(step, Data):
            self.receive(view)
        else:
            for start, size in blocks.pieces(0, len(view), PIECE):
                view[start : start + size] = ZEROES[:size]

    def finish(self) -> SentCommand:
        """Wait until one of the commands under way has ended, and return it; raise if it failed."""
        step = self.advance()
        while not isinstance(step, Done):
            self.store(step)
            step = self.advance()
        if step.command.error is not None:
            raise step.command.error
        return step.command

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Leave no command under way when the body raises: wait for them, and throw away what they bring.

        If that is not possible, the connection is closed. The body must take all that Data announced, or `discard` it,
        before it raises.
        """
        try:
            yield
        except BaseException as e:
            self._recover(e)
            raise

    def _recover(self, error: BaseException) -> None:
        """Leave no command under way after an error."""
        # It is dead, too, when a command was not sent, or a part of it: its reply would never come.
        if not self._is_alive or isinstance(error, ConnectionDead) or not isinstance(error, Exception):
            self._die()
            return
        try:
            self._settle()
        except ConnectionDead:
            self._die()

    def _settle(self) -> None:
        while self._replies:
            step = self.advance()
            if isinstance(step, Data):
                self.discard(step.length)

    def discard(self, length: int) -> None:
        """Throw away the next `length` bytes that Data announced."""
        spare = memoryview(bytearray(min(length, PIECE)))
        for _, size in blocks.pieces(0, length, PIECE):
            self.receive(spare[:size])

    def _die(self) -> None:
        self._is_alive = False
        self._stream.close()

    @contextlib.contextmanager
    def lending(self) -> Iterator[Stream]:
        """Lend the connection to a caller that speaks NBD over it; it is closed afterwards."""
        assert not self._replies
        try:
            yield self._stream.lend()
        finally:
            self._die()

    def warm_up(self) -> None:
        """Let qemu keep its memory, as the first piece of a long move does: it takes a third less of the processor."""
        if self._opening <= self.export.size:
            self.read(0, memoryview(bytearray(self._opening)))

    def batches(self) -> Batches[Any]:
        """Return what sends requests in batches from now on; the connection can still be flushed and closed."""
        assert not self._replies
        return Batches(self._stream, self.export)

    # --- The end -----------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Make whatever waits for the server fail now. Threads: any."""
        self._stream.interrupt()

    def close(self) -> None:
        """Say good-bye, if that is possible, and close; harmless when repeated."""
        if self._is_alive:
            self._is_alive = False
            with contextlib.suppress(Error):
                self._stream.send(wire.encode_request(self.export.mode, 0, wire.Command.DISCONNECT, 0, 0, 0))
        self._stream.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
