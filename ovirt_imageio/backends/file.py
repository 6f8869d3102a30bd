"""A disk in a file or on a block device of this host.

    file:///path/to/disk

The bytes are served as they are, whatever format they are in. Reads run ahead of the network, and writes behind it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import urllib.parse
from collections.abc import Iterator
from typing import Optional, Union

from ovirt_imageio import errors, relay
from ovirt_imageio.backends.base import Backend, Options
from ovirt_imageio.geometry import blocks
from ovirt_imageio.geometry.extent import Extent, ZeroExtent, merged
from ovirt_imageio.net.connect import Lifeline
from ovirt_imageio.relay import Progress, Sink, Source, buffers
from ovirt_imageio.storage import direct, holes
from ovirt_imageio.storage.disk import Disk

__all__ = ["FileBackend", "check_url", "open_backend"]

# How many pieces may be between the storage and the network: two at the storage, one on the network, one to spare.
SLOTS = 4

# Where bytes begin to stay in the kernel: what is shorter costs less through a slot.
SPLICE_ALIGNMENT = 64 * 1024
SPLICE_MINIMUM = 256 * 1024

# A file system that has no splice says so in one of these ways.
CANNOT_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class CannotSplice(Exception):
    """The file system has no splice."""


class FileBackend(Backend):
    """A regular file or block device that exists.

    `sparse` tells that zeroes should free space, instead of allocating it. Several backends, of one or of several
    connections, may have the same file open, and write to disjoint ranges of it.

    Threads: one at a time.
    """

    name = "file"

    def __init__(self, path: str, *, writable: bool, sparse: bool = False, max_connections: int = 8) -> None:
        self._file = direct.open_file(path, writable=writable)
        self._disk = Disk(self._file, sparse=sparse)
        self._writable = writable
        self._is_closed = False
        self._can_splice = relay.Pipe.is_supported
        self._has_spliced = False
        self.block_size = self._file.block_size
        self.can_grow = not self._file.is_block_device
        self.max_readers = max_connections
        self.max_writers = max_connections

    def size(self) -> int:
        """Return the current size."""
        with self._doing("get the size"):
            return self._file.size()

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill view with the bytes at offset; less only where the disk ends."""
        with self._doing("read"):
            return self._disk.read(offset, view)

    def write(self, offset: int, view: memoryview) -> None:
        """Write view at offset. A file grows when needed, by whole blocks; what is between and behind is zero."""
        with self._doing("write", writing=True):
            self._disk.write(offset, view)

    def zero(self, offset: int, length: int) -> None:
        """Zero a range by the fastest way that the storage has."""
        with self._doing("zero", writing=True):
            self._disk.zero(offset, length)

    def flush(self) -> None:
        """Wait until what was written is on the storage."""
        with self._doing("flush"):
            self._file.flush()

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield what the file system knows: its holes read as zeroes. A block device is all data."""
        if context != "zero":
            raise errors.UnsupportedContext(context)
        end = self.size() if length is None else offset + length
        return merged(self._extents(offset, end))

    def send_to(self, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send a range to the sink; while one piece is on the network, the next are read.

        Between whole blocks and a plain socket the bytes stay in the kernel, but for the first: if they cannot be
        read, the sink must not have begun.
        """
        if self._is_busy_alone(sink):
            return super().send_to(sink, offset, length, progress)
        body = max(0, blocks.round_down(offset + length, self.block_size) - self._splice_start(offset))
        if body < SPLICE_MINIMUM or not self._can_splice:
            done = self._send_slots(sink, offset, length, progress)
        else:
            head = self._splice_start(offset) - offset
            done = self._send_slots(sink, offset, head, progress)
            if done == head:
                done += self._send_body(sink, offset + done, body, progress)
            if done == head + body:
                done += self._send_slots(sink, offset + done, length - done, progress)
        if done < length:
            raise errors.PartialContent(length, done)

    def receive_from(self, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write a range from the source; while one piece is written, the next arrive."""
        if self._is_busy_alone(source):
            return super().receive_from(source, offset, length, progress)
        with buffers.pool.lend(_slots(length)) as slots:
            pieces = blocks.pieces(offset, length, buffers.SLOT)
            done = relay.write_behind(self.write, pieces, slots, source, progress, self._disk.place)
        if done < length:
            raise errors.PartialContent(length, done)

    def _is_busy_alone(self, end: Union[Source, Sink]) -> bool:
        """True if nothing would be gained by working ahead: TLS keeps a processor busy, and the page cache does, too.

        With four connections, threads that take the interpreter's lock from one another cost a twelfth.
        """
        return not self._file.is_direct and end.socket is None

    def close(self) -> None:
        """Close the file; network storage may tell only now that it did not take something that was not flushed."""
        if not self._is_closed:
            with self._doing("close"):
                self._is_closed = True
                self._file.close()

    @staticmethod
    def _splice_start(offset: int) -> int:
        """Return where splicing may start in a range that begins at offset."""
        return blocks.round_down(offset, SPLICE_ALIGNMENT) + SPLICE_ALIGNMENT

    def _send_slots(self, sink: Sink, offset: int, length: int, progress: Progress) -> int:
        """Send a range through slots; return how much there was."""
        with buffers.pool.lend(_slots(length)) as slots:
            pieces = blocks.pieces(offset, length, buffers.SLOT)
            return relay.read_ahead(self._read_slot, pieces, slots, sink, progress)

    def _send_body(self, sink: Sink, offset: int, length: int, progress: Progress) -> int:
        """Send whole blocks, in the kernel where that is possible; return how much there was."""
        if sink.socket is not None:
            with contextlib.suppress(CannotSplice):
                return relay.splice_ahead(self._load, offset, length, sink, progress)
            self._can_splice = False
        return self._send_slots(sink, offset, length, progress)

    def _load(self, pipe: relay.Pipe, offset: int, length: int) -> int:
        with self._doing("read"):
            try:
                count = pipe.load(self._file.fd, offset, length)
            except OSError as e:
                if e.errno in CANNOT_SPLICE and not self._has_spliced:
                    raise CannotSplice() from e
                raise
            self._has_spliced = True
            return count

    def _read_slot(self, slot: memoryview, offset: int, length: int) -> memoryview:
        with self._doing("read"):
            return self._disk.read_slot(slot, offset, length)

    def _extents(self, offset: int, end: int) -> Iterator[Extent]:
        ranges = holes.ranges(self._file.fd, offset, end)
        while True:
            with self._doing("get the extents"):
                found = next(ranges, None)
            if found is None:
                return
            yield ZeroExtent(found.start, found.length, not found.is_data, False)

    @contextlib.contextmanager
    def _doing(self, operation: str, writing: bool = False) -> Iterator[None]:
        """Check that it may be done, and raise our errors for those of the system."""
        if self._is_closed:
            raise errors.ClosedBackend(self.name)
        if writing and not self._writable:
            raise errors.StorageError(operation, "the disk was opened read only")
        try:
            yield
        except OSError as e:
            raise errors.storage_error(operation, e) from e


def check_url(url: str) -> None:
    """Raise errors.InvalidValue if url names no file; whether it exists is seen when it is opened."""
    _path(url)


def open_backend(
    url: str, *, writable: bool, sparse: bool, dirty: bool, options: Options, line: Optional[Lifeline] = None
) -> FileBackend:
    """Open the file at url. Files know of no dirty extents, and what hangs in the kernel cannot be woken."""
    return FileBackend(_path(url), writable=writable, sparse=sparse, max_connections=options.max_connections)


def _path(url: str) -> str:
    # The path is taken as it is, without decoding: that is how tickets name files.
    path = urllib.parse.urlsplit(url).path
    if not os.path.isabs(path) or "\0" in path:
        raise errors.InvalidValue("url", url, "file:///PATH, an absolute path")
    return path


def _slots(length: int) -> int:
    """Return how many slots a transfer of this length can use."""
    return min(SLOTS, blocks.round_up(length, buffers.SLOT) // buffers.SLOT + 1)
