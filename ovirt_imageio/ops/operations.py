"""What can be done to a disk: operations that report progress and can be canceled.

Knows backends, sources and sinks; neither the client that asked nor the URL.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable
from typing import Callable, ClassVar, Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.geometry.extent import Extent
from ovirt_imageio.measure.clock import Clock, NullClock
from ovirt_imageio.relay import Sink, Source

__all__ = ["Extents", "Flush", "Operation", "Read", "Write", "WriteAll", "Zero"]

# An operation that moves no more than this is over at once.
BRIEF = 64 * 1024

# For operations that are not timed; it keeps nothing, so all may share it.
NO_CLOCK = NullClock()


class Operation(abc.ABC):
    """One piece of work on one disk.

    Threads: `run` is called once, by the thread that owns the backend. Any thread may call `cancel` and read the
    attributes.
    """

    name: ClassVar[str]
    # Do the bytes done count as transferred?
    is_transfer: ClassVar[bool] = True
    # Does it only look at the disk, so that an upload which is verified has not moved?
    is_verification: ClassVar[bool] = False
    # Has its answer begun, so that a client cannot be told any more why it was cut?
    is_answering: ClassVar[bool] = False
    # May it change the disk?
    is_change: bool = False
    # Is it over at once, unless its storage or client is slow?
    is_brief: bool = False
    # Does it go on for as long as its client likes?
    is_endless: ClassVar[bool] = False

    def __init__(self, backend: Backend, offset: int = 0, length: int = 0) -> None:
        self._backend = backend
        self._canceled = False
        self.offset = offset
        self.length = length
        # How far we are: [offset, offset + done) was moved.
        self.done = 0
        # Times the parts of the operation; the caller of `run` may replace it.
        self.clock: Clock = NO_CLOCK
        self._is_finishing = False

    @property
    def is_finishing(self) -> bool:
        """True once the client has nothing more to send or take: only the storage still works."""
        return self._is_finishing

    @property
    def needs_client(self) -> bool:
        """False if what is left to do needs nothing more of the client."""
        return not self.is_finishing

    @property
    def is_changing(self) -> bool:
        """True if the disk would be left half written if it was cut now."""
        return self.is_change

    def moved_since(self, done: int) -> Iterable[tuple[int, int]]:
        """Return the ranges that were moved since `done` had this value, as start and end."""
        return [(self.offset + done, self.offset + self.done)]

    def counts_between(self, start: int, end: int) -> Iterable[tuple[str, int]]:
        """Return how many bytes were moved while `done` grew from `start` to `end`, by the name of what moved them.

        Not until now: what moves meanwhile belongs to the next call.
        """
        return [(self.name, end - start)]

    @abc.abstractmethod
    def run(self) -> None:
        """Do it. Raises errors.OperationCanceled soon after cancel()."""

    def cancel(self) -> None:
        """Make `run` stop at its next step; one that blocks is woken by the owner of its socket. Threads: any."""
        self._canceled = True

    def advance(self, count: int) -> None:
        """Report that `count` more bytes are done: the progress callback of every move."""
        self.done += count
        if self._canceled:
            raise errors.OperationCanceled()

    def __str__(self) -> str:
        return f"{self.name} of {self.length} bytes at {self.offset}, {self.done} done"


class Read(Operation):
    """Send a range of the disk to a sink."""

    name = "read"
    is_answering = True

    def __init__(self, backend: Backend, sink: Sink, offset: int, length: int) -> None:
        super().__init__(backend, offset, length)
        self._sink = sink
        self.is_brief = length <= BRIEF

    def run(self) -> None:
        """Send the range; raises errors.PartialContent if the disk ends before it does."""
        self._backend.send_to(self._sink, self.offset, self.length, self.advance)


class Write(Operation):
    """Write a range of the disk from a source."""

    name = "write"
    is_change = True

    def __init__(self, backend: Backend, source: Source, offset: int, length: int, flush: bool = True) -> None:
        super().__init__(backend, offset, length)
        self._source = source
        self._flush = flush
        self.is_brief = length <= BRIEF

    def run(self) -> None:
        """Write the range, then flush if asked; raises errors.PartialContent if the source ends before."""
        self._receive()
        self._is_finishing = True
        if self._flush:
            with self.clock.run("write.flush"):
                self._backend.flush()

    @property
    def is_finishing(self) -> bool:
        """True once the source has ended, though some of it may still be on its way to the disk.

        A source that cannot tell has ended when all of it is written.
        """
        return self._is_finishing or getattr(self._source, "is_consumed", False)

    def _receive(self) -> None:
        self._backend.receive_from(self._source, self.offset, self.length, self.advance)


class WriteAll(Write):
    """Write whatever the source has until it ends; more than `length` bytes do not fit."""

    def _receive(self) -> None:
        count = self._backend.receive_all(self._source, self.offset, self.length, self.advance)
        if count == self.length and self._source.readinto(memoryview(bytearray(1))):
            raise errors.RangeNotSatisfiable(self.offset, self.length + 1, self.offset + self.length)
        self.length = count


class Zero(Operation):
    """Make a range of the disk read as zeroes."""

    name = "zero"
    is_change = True

    def __init__(self, backend: Backend, offset: int, length: int, flush: bool = False) -> None:
        super().__init__(backend, offset, length)
        self._flush = flush
        self.is_brief = length <= BRIEF

    @property
    def needs_client(self) -> bool:
        """False: it has said all."""
        return False

    def run(self) -> None:
        """Zero the range in steps that leave cancel responsive."""
        with self.clock.run("zero.zero"):
            while self.done < self.length:
                step = min(self._backend.zero_step, self.length - self.done)
                self._backend.zero(self.offset + self.done, step)
                self.advance(step)
        self._is_finishing = True
        if self._flush:
            with self.clock.run("zero.flush"):
                self._backend.flush()


class Flush(Operation):
    """Flush what was written."""

    name = "flush"
    is_transfer = False
    is_change = True
    is_brief = True

    def run(self) -> None:
        """Flush."""
        self._is_finishing = True
        self._backend.flush()


class Extents(Operation):
    """Hand the extents of a range to a consumer, in batches, while they are found.

    The consumer is called with an empty batch first: the storage can tell extents, so an answer may start now.
    """

    name = "extents"
    is_transfer = False

    # Small enough for a listing to move, large enough to make the cost of handing over vanish.
    BATCH = 512

    def __init__(
        self,
        backend: Backend,
        consume: Callable[[list[Extent]], None],
        context: str = "zero",
        offset: int = 0,
        length: Optional[int] = None,
        limit: Optional[int] = None,
    ) -> None:
        super().__init__(backend, offset, length or 0)
        self._consume = consume
        self._context = context
        self._range = (offset, length)
        self._limit = limit

    def run(self) -> None:
        """List the extents; `done` counts the bytes that they cover."""
        extents = itertools.islice(self._backend.extents(self._context, *self._range), self._limit)
        batch: list[Extent] = []
        while True:
            self._consume(batch)
            self.advance(sum(extent.length for extent in batch))
            batch = list(itertools.islice(extents, self.BATCH))
            if not batch:
                return
