"""Let a client use a disk by NBD, request by request, until it leaves.

Knows what may be offered of a disk; knows nothing of how the client came to speak NBD.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.nbd.errors import ClientFault
from ovirt_imageio.nbd.inbox import Channel
from ovirt_imageio.nbd.offer import PREFERRED_BLOCK, Offer
from ovirt_imageio.nbd.wire import CHANGES, Command, ExportFlag
from ovirt_imageio.ops.operations import Operation

__all__ = ["Attach", "make_offer"]

# What is moved, by the names of the operations that do the same over HTTP: the other commands move nothing.
MOVES: dict[int, str] = {Command.READ: "read", Command.WRITE: "write", Command.WRITE_ZEROES: "zero"}
WRITES = frozenset([Command.WRITE, Command.WRITE_ZEROES])


class Attach(Operation):
    """Serve a disk by NBD over a channel.

    `done` is the sum of all requests that succeeded: it may be more than the disk has. A watch of its own requests.

    Threads: those of Operation. `moved_since` and `counts_between` are called by one thread at a time.
    """

    name = "nbd"
    is_answering = True
    is_endless = True

    def __init__(self, backend: Backend, channel: Channel, offer: Offer) -> None:
        super().__init__(backend, 0, offer.size)
        self._channel = channel
        self._offer = offer
        self.is_change = ExportFlag.READ_ONLY not in offer.flags
        self._current = Command.DISCONNECT
        self._start = self._position = 0
        self._has_changes = False
        # Was something written since no change was under way? Then a flush may not cover it.
        self._has_written = False
        # The ranges that were moved and were not asked for yet, as start and end.
        self._ranges: deque[tuple[int, int]] = deque()
        # How many bytes were moved, and how many of them were asked for.
        self._counts = dict.fromkeys(MOVES.values(), 0)
        self._told = dict(self._counts)

    @property
    def is_changing(self) -> bool:
        """True while a request that changes the disk is done."""
        return self._has_changes or self._current in CHANGES

    def run(self) -> None:
        """Serve until the client leaves. Raises errors.BrokenProtocol."""
        try:
            self._backend.attach(self._channel, self._offer, self)
        except ClientFault as error:
            raise errors.BrokenProtocol(str(error)) from error

    def moved_since(self, done: int) -> Iterable[tuple[int, int]]:
        """Yield the ranges that were moved since the last call."""
        while self._ranges:
            yield self._ranges.popleft()

    def counts_between(self, start: int, end: int) -> Iterable[tuple[str, int]]:
        """Yield how many bytes were moved since the last call, by kind of request."""
        for name, count in self._counts.items():
            told, self._told[name] = self._told[name], count
            if told < count:
                yield name, count - told

    # The watch.

    def begin(self, command: Command, offset: int, length: int) -> None:
        """A request begins."""
        if self._canceled:
            raise errors.OperationCanceled()
        self._current = command
        self._start = self._position = offset

    def moved(self, count: int) -> None:
        """A part of the current request is done; a backend that told too much takes it back with a negative count."""
        self._position += count
        if self._current == Command.READ:
            self._tell()
            if self._canceled:
                raise errors.OperationCanceled()

    def end(self, error: Optional[BaseException]) -> None:
        """The current request is done, or failed: now it is known what of a change is stored."""
        if self._current in MOVES:
            self._tell()
        self._current = Command.DISCONNECT

    def passed(self, command: int, offset: int, length: int) -> None:
        """A request is done whose bytes went between the client and another server."""
        if command in WRITES:
            # If that server breaks, it may be lost, and the client must hear of that.
            self._backend.writes.note_write()
            self._has_written = True
        elif command == Command.FLUSH and not self._has_written:
            self._backend.writes.note_flush()
        if command in MOVES:
            self._count(command, offset, offset + length)

    def under_way(self, has_changes: bool) -> None:
        """Note whether such a request changes the disk."""
        if self._canceled and not has_changes:
            raise errors.OperationCanceled()
        self._has_changes = has_changes
        self._has_written = self._has_written and has_changes

    def _tell(self) -> None:
        """Let the range be counted that was moved since the last time."""
        if self._start < self._position:
            self._count(self._current, self._start, self._position)
            self._start = self._position

    def _count(self, command: int, start: int, end: int) -> None:
        # First this: a thread that sees `done` grow finds what it is made of.
        self._ranges.append((start, end))
        self._counts[MOVES[command]] += end - start
        self.done += end - start

    def __str__(self) -> str:
        return f"nbd, {self.done} bytes done"


def make_offer(backend: Backend, size: int, names: Iterable[str], *, is_writable: bool) -> Offer:
    """Return what a client may get of a disk: as much as its ticket permits, under any of these names."""
    flags = ExportFlag.HAS_FLAGS | ExportFlag.SEND_DF
    if is_writable:
        flags |= ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.SEND_WRITE_ZEROES
    else:
        flags |= ExportFlag.READ_ONLY
    if (backend.max_writers if is_writable else backend.max_readers) > 1:
        flags |= ExportFlag.CAN_MULTI_CONN
    # Odd requests work on every backend; whole blocks are faster.
    preferred = max(backend.block_size, PREFERRED_BLOCK)
    return Offer(
        size, flags, frozenset(names), backend.contexts, preferred_block=preferred, can_extend=backend.can_extend
    )
