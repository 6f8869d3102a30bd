"""A new qcow2 image that is written without qemu: what is where in it is computed before the first byte of data comes.

    | header | tables ...            | data ...
      last     first, from extents     in any order, by any number of connections

Until its header is there nothing takes the file for an image, whatever ended the transfer. It is the image that a
server sends for ?format=qcow2. Knows files; knows nothing of servers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.geometry import blocks
from ovirt_imageio.geometry.outline import Outline
from ovirt_imageio.geometry.qcow2 import CLUSTER, Qcow2Layout
from ovirt_imageio.qemu import lock
from ovirt_imageio.relay import Progress, Source
from ovirt_imageio.storage.streaming import failures

__all__ = ["MappedDisk", "NewQcow2"]

# After so many bytes of one connection, what the storage has leaves the page cache, and the rest is on its way: a host
# has better use for its memory.
RELEASE = 32 * 1024**2


class NewQcow2:
    """An image of a disk with this outline.

    Threads: one; what `served` gives may be called by any.
    """

    def __init__(self, path: str, outline: Outline) -> None:
        self.outline = outline
        self._path = path
        self._layout = Qcow2Layout(outline.size, outline.extents())
        self._scope = contextlib.ExitStack()
        self._descriptor: Optional[int] = None

    @property
    def tag(self) -> str:
        """A text that differs where the data of another outline would have other places."""
        return self._layout.tag

    @property
    def tables_length(self) -> int:
        """How many bytes are before the data; of a sparse disk most of them are holes."""
        return self._layout.tables_length

    def create(self) -> None:
        """Make the file anew, with all but its header and its data. Raises errors.StorageError."""
        descriptor = self._lock()
        with failures(f"create {self._path}"):
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, self._layout.length)
            self._write(descriptor, CLUSTER, self._layout.tables_length)

    @contextlib.contextmanager
    def served(self, connections: int) -> Iterator[Callable[[], Backend]]:
        """Write the image in a with block; what it gives opens its disk. It is complete, and flushed, afterwards."""
        descriptor = self._lock()
        yield lambda: MappedDisk(
            self._open(writable=True, connections=connections), self._layout, self.outline.size, self._release
        )
        with failures(f"complete {self._path}"):
            # Flushed apart: the header shall not be there before the rest is.
            os.fsync(descriptor)
            self._write(descriptor, 0, CLUSTER)
            os.fsync(descriptor)
            self._release()
        self.close()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Backend]:
        """Open the disk of an image that may not be complete, to look at it."""
        with contextlib.closing(MappedDisk(self._open(writable=False), self._layout, self.outline.size)) as disk:
            yield disk

    def close(self) -> None:
        """Let other programs use the file; harmless when repeated."""
        self._descriptor = None
        self._scope.close()

    def _lock(self) -> int:
        """Return a descriptor that keeps others away."""
        if self._descriptor is None:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                reason = f"{self._path}: {error.strerror}"
                raise errors.BackendUnavailable("create the image", reason, error.errno) from None
            self._scope.callback(os.close, descriptor)
            lock.take(descriptor, self._path)
            self._descriptor = descriptor
        return self._descriptor

    def _open(self, *, writable: bool, connections: int = 1) -> FileBackend:
        # What comes is scattered, and arrives in order: the page cache makes long writes of it.
        return FileBackend(
            self._path,
            writable=writable,
            sparse=True,
            detect_zeroes=True,
            is_cached=True,
            max_connections=connections,
        )

    def _release(self) -> None:
        """Let the page cache have less of the file. Threads: any."""
        if self._descriptor is not None:
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def _write(self, descriptor: int, start: int, end: int) -> None:
        """Write a part of the tables, but for zeroes at both ends of a cluster: sparse disks have little else.

        Through the page cache, as they are many small writes.
        """
        for offset, length in blocks.pieces(start, end - start, CLUSTER):
            for part in self._layout.parts(offset, length):
                assert isinstance(part, bytes)
                entries = memoryview(part.strip(b"\0"))
                offset += len(part) - len(part.lstrip(b"\0"))
                while entries:
                    count = os.pwrite(descriptor, entries, offset)
                    offset, entries = offset + count, entries[count:]


class MappedDisk(Backend):
    """The disk in the image; only what the layout has a place for can be written. `release` is called now and then.

    Threads: one at a time, but for `interrupt`.
    """

    name = "qcow2"

    def __init__(
        self, file: FileBackend, layout: Qcow2Layout, size: int, release: Callable[[], None] = lambda: None
    ) -> None:
        self._release = release
        # How much was written since.
        self._written = 0
        self._file = file
        self._layout = layout
        self._size = size
        self.max_readers = file.max_readers
        self.max_writers = file.max_writers

    def size(self) -> int:
        """Return the size of the disk; nothing is left of that in a file which was cut."""
        return self._size if self._file.size() >= self._layout.length else 0

    def readinto(self, offset: int, view: memoryview) -> int:
        """Read; what has no place reads as zeroes."""
        length = max(0, min(len(view), self._size - offset))
        for start, count, place in self._layout.places(offset, length):
            part = view[start - offset : start - offset + count]
            if place is None:
                part[:] = bytes(count)
            else:
                self._file.readinto(place, part)
        return length

    def write(self, offset: int, view: memoryview) -> None:
        """Write."""
        for start, count, place in self._places(offset, len(view)):
            self._file.write(place, view[start - offset : start - offset + count])
            self._count(count)

    def zero(self, offset: int, length: int) -> None:
        """Zero what has a place; the rest reads as zeroes."""
        for _, count, place in self._layout.places(offset, length):
            if place is not None:
                self._file.zero(place, count)

    def receive_from(self, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write what the source has."""
        for _, count, place in self._places(offset, length):
            self._file.receive_from(source, place, count, progress)
            self._count(count)

    def flush(self) -> None:
        """Wait until what was written is on the storage."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _count(self, count: int) -> None:
        self._written += count
        if self._written >= RELEASE:
            self._written = 0
            self._release()

    def _places(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        for start, count, place in self._layout.places(offset, length):
            assert place is not None, (start, count)
            yield start, count, place
