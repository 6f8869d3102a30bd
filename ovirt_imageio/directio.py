"""Stream data into a local disk, or out of it, with direct I/O.

    op = directio.Receive("/path/to/disk", source, size=10 * 1024**3)
    op.run()

A disk is an existing file or block device; it is not truncated, and what is outside of the range is kept. While `run`
works, other threads may look at `op.done`. Knows local disks only; nothing of HTTP and tickets.
"""

from __future__ import annotations

import abc
import contextlib
from typing import Callable, Optional, Protocol

from ovirt_imageio import errors
from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.geometry.blocks import MAX_SIZE

__all__ = ["BUFFERSIZE", "Receive", "Send", "Zero"]

# The most that is asked from a source at once, unless the caller says otherwise.
BUFFERSIZE = 1024 * 1024


class Readable(Protocol):
    """What can be received from; `readinto(buffer)` is used instead when it exists. Both may return less than asked."""

    def read(self, count: int) -> bytes:
        """Return up to count bytes, none at the end."""


class Writable(Protocol):
    """What can be sent to: a file, or anything like it."""

    def write(self, data: memoryview) -> Optional[int]:
        """Write data; return how much was taken, None for all."""


class Operation(abc.ABC):
    """One piece of work on a range of a disk.

    Threads: `run` is called once, by any thread. Meanwhile others may read the attributes and call `close`.
    """

    def __init__(self, path: str, size: Optional[int], offset: int, buffersize: int) -> None:
        check_number("size", 0 if size is None else size)
        check_number("offset", offset)
        check_number("buffersize", buffersize, minimum=1)
        self.path = path
        self.size = size
        self.offset = offset
        self.buffersize = buffersize
        # Bytes done so far, counted when they are on the other side.
        self.done = 0
        self.active = False
        self._is_closed = False

    def run(self) -> None:
        """Do it.

        Raises errors.PartialContent if the data ends before `size`, which leaves on the disk what came;
        errors.StorageError if the disk fails, errors.OperationCanceled after close(), and whatever the other side
        raises.
        """
        self.active = True
        try:
            self._advance(0)
            self._run()
        finally:
            self.active = False

    def close(self) -> None:
        """Stop `run` at its next step, if it runs, and refuse it from now on. Nothing else needs to be released."""
        self._is_closed = True

    @abc.abstractmethod
    def _run(self) -> None:
        """Open the disk, and do the work."""

    def _advance(self, count: int) -> None:
        self.done += count
        if self._is_closed:
            raise errors.OperationCanceled()

    def __repr__(self) -> str:
        state = " active" if self.active else ""
        return (
            f"<{type(self).__name__} path={self.path!r} size={self.size} offset={self.offset} "
            f"buffersize={self.buffersize} done={self.done}{state}>"
        )


class Receive(Operation):
    """Write `size` bytes from a source to the disk, or all that it has.

    `src` has `readinto(buffer)` or `read(count)`; both may return less than asked for, and nothing at the end.
    A file that grows ends with a whole block: callers open it as a disk, with direct I/O. The data is flushed to the
    storage at the end, unless `flush` is false. `clock` is accepted for the sake of callers
    that had one in older versions, and not used.
    """

    def __init__(
        self,
        path: str,
        src: Readable,
        size: Optional[int] = None,
        offset: int = 0,
        flush: bool = True,
        buffersize: int = BUFFERSIZE,
        clock: object = None,
    ) -> None:
        super().__init__(path, size, offset, buffersize)
        self._source = Source(src, buffersize)
        self._flush = flush

    def _run(self) -> None:
        with contextlib.closing(FileBackend(self.path, writable=True)) as disk:
            # Without a size the end of the source is not an error.
            ending = contextlib.suppress(errors.PartialContent) if self.size is None else contextlib.nullcontext()
            before = disk.size()
            with ending:
                length = MAX_SIZE - self.offset if self.size is None else self.size
                disk.receive_from(self._source, self.offset, length, self._advance)
            if (end := disk.size()) > before:
                disk.zero(end, -end % disk.block_size)
            if self._flush:
                disk.flush()


class Send(Operation):
    """Write `size` bytes of the disk, or all up to its end, to `dst.write(data)`.

    What `data` shows is gone when `write` returns.
    """

    def __init__(
        self, path: str, dst: Writable, size: Optional[int] = None, offset: int = 0, buffersize: int = BUFFERSIZE
    ) -> None:
        super().__init__(path, size, offset, buffersize)
        self._sink = Sink(dst, buffersize)

    def _run(self) -> None:
        with contextlib.closing(FileBackend(self.path, writable=False)) as disk:
            length = max(0, disk.size() - self.offset) if self.size is None else self.size
            disk.send_to(self._sink, self.offset, length, self._advance)


class Zero(Operation):
    """Make `size` bytes of the disk read as zeroes; `sparse` frees their space instead of allocating it."""

    def __init__(
        self,
        path: str,
        size: int,
        offset: int = 0,
        flush: bool = False,
        buffersize: int = BUFFERSIZE,
        sparse: bool = False,
    ) -> None:
        super().__init__(path, size, offset, buffersize)
        self._length = size
        self._flush = flush
        self._sparse = sparse

    def _run(self) -> None:
        with contextlib.closing(FileBackend(self.path, writable=True, sparse=self._sparse)) as disk:
            while self.done < self._length:
                step = min(disk.zero_step, self._length - self.done)
                disk.zero(self.offset + self.done, step)
                self._advance(step)
            if self._flush:
                disk.flush()


class Source:
    """Makes anything readable look like a source of the relay, which asks for at most `limit` bytes."""

    socket = None

    def __init__(self, src: Readable, limit: int) -> None:
        self._src = src
        self._readinto: Callable[[memoryview], int] = getattr(src, "readinto", self._read)
        self._limit = limit

    def readinto(self, view: memoryview) -> int:
        """Read into view; 0 at the end."""
        return self._readinto(view[: self._limit])

    def _read(self, view: memoryview) -> int:
        data = self._src.read(len(view))
        view[: len(data)] = data
        return len(data)

    def advance(self, count: int) -> None:
        """Never called: there is no socket."""


class Sink:
    """Makes anything writable look like a sink of the relay; it gets at most `limit` bytes at once."""

    socket = None

    def __init__(self, dst: Writable, limit: int) -> None:
        self._write = dst.write
        self._limit = limit

    def write(self, view: memoryview) -> None:
        """Write all of view."""
        done = 0
        while done < len(view):
            part = view[done : done + self._limit]
            count = self._write(part)
            done += len(part) if count is None else count

    def advance(self, count: int) -> None:
        """Never called: there is no socket."""


def check_number(name: str, value: int, minimum: int = 0) -> None:
    """Raise errors.InvalidValue if value cannot be what it is said to be."""
    if not minimum <= value <= MAX_SIZE:
        raise errors.InvalidValue(name, value, f"{minimum} to {MAX_SIZE}")
