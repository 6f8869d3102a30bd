"""The two ends of a lane over NBD: requests begin, several of them, and end in any order.

    NBDEnd      an NBD server: the local qemu-nbd, or a server of images that was asked to speak NBD
    DiskEnd     any other disk here: its requests are done when they are waited for

Knows disks and connections; knows nothing of tasks, and of what bytes are for.
"""

from __future__ import annotations

import abc
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Callable, Generic, TypeVar, Union

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.backends.nbdconnection import translated
from ovirt_imageio.nbd.batches import AGREEMENT, MAX_LENGTH, Batches
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.connect import speak
from ovirt_imageio.nbd.errors import ConnectionDead, RequestFailed, TimedOut
from ovirt_imageio.nbd.wire import CommandFlag, Mode
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.origin.image import Image
from ovirt_imageio.relay import buffers

__all__ = ["DiskEnd", "End", "NBDEnd", "attach", "local_end", "translated_there"]

T = TypeVar("T")

# Requests that are done, as the caller knows them, with the bytes of those that read.
Done = list[tuple[T, memoryview]]


class End(abc.ABC, Generic[T]):
    """One end of a lane. Each request has something of the caller, which comes back when it is done.

    Threads: one at a time, but for `interrupt`, which any thread may call.
    """

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """How many requests are under way."""

    @abc.abstractmethod
    def read(self, item: T, start: int, length: int) -> None:
        """Begin to read up to MAX_LENGTH bytes."""

    @abc.abstractmethod
    def write(self, item: T, start: int, view: memoryview) -> None:
        """Begin to write; view must stay as it is until `push`."""

    @abc.abstractmethod
    def zero(self, item: T, start: int, length: int) -> None:
        """Begin to zero."""

    @abc.abstractmethod
    def push(self) -> None:
        """Send what began."""

    @abc.abstractmethod
    def finish(self) -> Done[T]:
        """Wait until some of the requests are done, and return them; their bytes are there until the next call."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Make what was written survive a power failure; nothing is under way."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Make whatever blocks fail soon. Threads: any."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything, also with requests under way; harmless when repeated."""


class NBDEnd(End[T]):
    """An NBD server.

    `interrupt` and `close` end the connection; `translate` turns errors of NBD into ours; with `punch_hole`, zeroing
    gives space back.
    """

    def __init__(
        self,
        nbd: Client,
        *,
        interrupt: Callable[[], None],
        close: Callable[[], None],
        translate: Callable[[str, Union[RequestFailed, ConnectionDead]], errors.Error],
        punch_hole: bool = True,
    ) -> None:
        self._nbd = nbd
        self._batches: Batches[T] = nbd.batches()
        self._interrupt = interrupt
        self._close = close
        self._translate = translate
        self._zero_flags = CommandFlag.NONE if punch_hole else CommandFlag.NO_HOLE
        self.size = nbd.export.size

    @property
    def count(self) -> int:
        """How many requests are under way."""
        return len(self._batches)

    def read(self, item: T, start: int, length: int) -> None:
        """Begin to read. Raises errors.PartialContent if the disk ends before."""
        if start + length > self.size:
            raise errors.PartialContent(length, max(0, self.size - start))
        self._batches.read(item, start, length)

    def write(self, item: T, start: int, view: memoryview) -> None:
        """Begin to write."""
        self._batches.write(item, start, view)

    def zero(self, item: T, start: int, length: int) -> None:
        """Begin to zero."""
        self._batches.zero(item, start, length, self._zero_flags)

    def push(self) -> None:
        """Send what began."""
        with self._translating("send requests"):
            self._batches.send()

    def finish(self) -> Done[T]:
        """Wait for replies."""
        with self._translating("move data"):
            return self._batches.receive()

    def flush(self) -> None:
        """Send a request to flush, and wait for its reply."""
        with self._translating("flush"):
            self._nbd.flush()

    def interrupt(self) -> None:
        """End the connection. Threads: any."""
        self._interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._close()

    @contextlib.contextmanager
    def _translating(self, operation: str) -> Iterator[None]:
        try:
            yield
        except (RequestFailed, ConnectionDead) as error:
            # Half a request may have been sent: nothing may follow it.
            self._nbd.interrupt()
            raise self._translate(operation, error) from error


class DiskEnd(End[T]):
    """A disk whose requests are done one after the other."""

    def __init__(self, disk: Backend) -> None:
        self._disk = disk
        self._reads: deque[tuple[T, int, int]] = deque()
        self._done: Done[T] = []
        self._buffer = buffers.aligned(MAX_LENGTH)

    @property
    def count(self) -> int:
        """How many requests are under way."""
        return len(self._reads) + len(self._done)

    def read(self, item: T, start: int, length: int) -> None:
        """Note what to read."""
        self._reads.append((item, start, length))

    def write(self, item: T, start: int, view: memoryview) -> None:
        """Write."""
        self._disk.write(start, view)
        self._done.append((item, view[:0]))

    def zero(self, item: T, start: int, length: int) -> None:
        """Zero."""
        self._disk.zero(start, length)
        self._done.append((item, self._buffer[:0]))

    def push(self) -> None:
        """Do nothing: there is no server to send to."""

    def finish(self) -> Done[T]:
        """Read as much as the buffer holds, if there is something to read; return what is done."""
        done, self._done = self._done, []
        free = self._buffer
        while self._reads and self._reads[0][2] <= len(free):
            item, start, length = self._reads.popleft()
            count = self._disk.readinto(start, free[:length])
            if count < length:
                raise errors.PartialContent(length, count)
            done.append((item, free[:length]))
            free = free[length:]
        return done

    def flush(self) -> None:
        """Flush."""
        self._disk.flush()

    def interrupt(self) -> None:
        """Wake what the disk waits for. Threads: any."""
        self._disk.interrupt()

    def close(self) -> None:
        """Close the disk."""
        self._disk.close()


def local_end(disk: Backend) -> End[T]:
    """Return an end for a disk here, which is closed with it."""
    if not isinstance(disk, NBDBackend) or disk.block_size > 1:
        return DiskEnd(disk)
    with contextlib.ExitStack() as stack:
        stack.callback(disk.close)
        nbd = disk.lend(AGREEMENT)
        return NBDEnd(nbd, interrupt=disk.interrupt, close=stack.pop_all().close, translate=translated)


def attach(image: Image, line: Lifeline, reply_timeout: float) -> NBDEnd[T]:
    """Return an end that speaks NBD with the server of an image, which is closed with it, or if that fails.

    Raises errors.StorageError, which may be an OriginError, if the server does not want to. A thread that cuts the line
    ends the wait.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(image.close)
        with line.waking(image.resource.origin.wake):
            stream = stack.enter_context(image.attached())
            try:
                nbd = speak(stream, like=AGREEMENT, reply_timeout=reply_timeout)
            except ConnectionDead as error:
                raise translated_there("attach the disk", error) from error
        stack.callback(nbd.close)
        if nbd.export.mode is not Mode.SIMPLE or nbd.export.minimum_block > 1:
            raise errors.StorageError("attach the disk", "the image server speaks NBD in another way")
        return NBDEnd(
            nbd,
            interrupt=image.interrupt,
            close=stack.pop_all().close,
            translate=translated_there,
            punch_hole=image.abilities.is_sparse,
        )


def translated_there(operation: str, error: Union[RequestFailed, ConnectionDead]) -> errors.Error:
    """Return our error for one of the server of an image: a connection that was lost may be made again."""
    if isinstance(error, ConnectionDead) and not isinstance(error, TimedOut):
        return errors.BackendUnavailable(operation, f"the connection to the image server was lost: {error}")
    return translated(operation, error)
