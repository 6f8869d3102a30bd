"""A disk in a file or on a block device of this host.

    file:///path/to/disk

The bytes are served as they are, whatever format they are in. Reads run ahead of the network, and writes behind it.
"""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Iterator
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend, Terms
from ovirt_imageio.geometry.extent import Extent, ZeroExtent, merged
from ovirt_imageio.relay import Progress, Sink, Source
from ovirt_imageio.storage import direct, holes
from ovirt_imageio.storage.disk import Disk
from ovirt_imageio.storage.streaming import DiskStreamer, failures

__all__ = ["FileBackend", "check_url", "open_backend"]


class FileBackend(Backend):
    """A regular file or block device that exists.

    `sparse` tells that zeroes should free space, instead of allocating it; `detect_zeroes`, that they are looked for in
    what is written; `is_cached`, that the page cache is used. Several backends, of one or of several
    connections, may have the same file open, and write to disjoint ranges of it.

    Threads: one at a time.
    """

    name = "file"

    def __init__(
        self,
        path: str,
        *,
        writable: bool,
        sparse: bool = False,
        detect_zeroes: bool = False,
        is_cached: bool = False,
        max_connections: int = 8,
    ) -> None:
        self._file = direct.open_file(path, writable=writable, is_cached=is_cached)
        self._disk = Disk(self._file, sparse=sparse, detect_zeroes=detect_zeroes)
        self._streamer = DiskStreamer(self._file, self._disk)
        self._writable = writable
        self._is_closed = False
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
        """Write view at offset. A file grows when needed; what is between is zero."""
        with self._doing("write", writing=True):
            self._disk.write(offset, view)

    def zero(self, offset: int, length: int) -> None:
        """Zero a range by the fastest way that the storage has."""
        with self._doing("zero", writing=True):
            self._disk.zero(offset, length)

    def zero_allocated(self, offset: int, length: int) -> None:
        """Zero a range without making a hole."""
        with self._doing("zero", writing=True):
            self._disk.zero(offset, length, is_allocated=True)

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
        """Send a range to the sink; see DiskStreamer."""
        if not self._streamer.can_work_ahead(sink):
            return super().send_to(sink, offset, length, progress)
        self._check("read")
        done = self._streamer.send(sink, offset, length, progress)
        if done < length:
            raise errors.PartialContent(length, done)

    def receive_from(self, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write a range from the source; see DiskStreamer."""
        if not self._streamer.can_work_ahead(source):
            return super().receive_from(source, offset, length, progress)
        self._check("write", writing=True)
        done = self._streamer.receive(source, offset, length, progress)
        if done < length:
            raise errors.PartialContent(length, done)

    def close(self) -> None:
        """Close the file; network storage may tell only now that it did not take something that was not flushed."""
        if not self._is_closed:
            with self._doing("close"):
                self._is_closed = True
                self._file.close()

    def _extents(self, offset: int, end: int) -> Iterator[Extent]:
        ranges = holes.ranges(self._file.fd, offset, end)
        while True:
            with self._doing("get the extents"):
                found = next(ranges, None)
            if found is None:
                return
            yield ZeroExtent(found.start, found.length, not found.is_data, False)

    def _doing(self, operation: str, writing: bool = False) -> contextlib.AbstractContextManager[None]:
        """Check that it may be done, and raise our errors for those of the system in a with block."""
        self._check(operation, writing)
        return failures(operation)

    def _check(self, operation: str, writing: bool = False) -> None:
        if self._is_closed:
            raise errors.ClosedBackend(self.name)
        if writing and not self._writable:
            raise errors.StorageError(operation, "the disk was opened read only")


def check_url(url: str) -> None:
    """Raise errors.InvalidValue if url names no file of this host; whether it exists is seen when it is opened."""
    _path(url)


def open_backend(url: str, terms: Terms) -> FileBackend:
    """Open the file at url. Files know of no dirty extents, and what hangs in the kernel cannot be woken."""
    return FileBackend(
        _path(url), writable=terms.writable, sparse=terms.sparse, max_connections=terms.options.max_connections
    )


def _path(url: str) -> str:
    # The path is taken as it is, without decoding: that is how tickets name files.
    parts = urllib.parse.urlsplit(url)
    if not os.path.isabs(parts.path) or "\0" in parts.path:
        raise errors.InvalidValue("url", url, "file:///PATH, an absolute path")
    if parts.netloc not in ("", "localhost"):
        raise errors.InvalidValue("url", url, "file:///PATH, a file of this host")
    return parts.path
