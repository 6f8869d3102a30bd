"""A disk in memory, for tests and for users of the library; no ticket can name one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.geometry.extent import Extent, ZeroExtent, clipped, merged

__all__ = ["MemoryBackend"]


class MemoryBackend(Backend):
    """A growable disk in memory.

    A bytearray is used as it is, so that several backends, one per connection, may share it; anything else is copied.
    `extents` tells what to report for the contexts "zero" and "dirty"; by default everything is data.

        backend = MemoryBackend(bytearray(1024**2))

    Threads: one at a time. Backends that share a bytearray may be used at once by as many threads.
    """

    name = "memory"
    can_grow = True

    def __init__(
        self,
        data: Union[bytearray, bytes] = b"",
        *,
        writable: bool = True,
        max_connections: int = 8,
        extents: Optional[Mapping[str, Iterable[Extent]]] = None,
    ) -> None:
        self._data = data if isinstance(data, bytearray) else bytearray(data)
        self._writable = writable
        self._extents = {context: list(given) for context, given in (extents or {}).items()}
        self._is_closed = False
        self.max_readers = max_connections
        self.max_writers = 1

    def size(self) -> int:
        """Return the current size in bytes."""
        self._check()
        return len(self._data)

    def readinto(self, offset: int, view: memoryview) -> int:
        """Copy the bytes at offset into view."""
        self._check()
        # A slice is a copy: a view of the data would keep others from growing it.
        data = self._data[offset : offset + len(view)]
        view[: len(data)] = data
        return len(data)

    def write(self, offset: int, view: memoryview) -> None:
        """Write view at offset; a gap between the end of the disk and offset becomes zeroes."""
        self._check("write")
        self._grow(offset)
        self._data[offset : offset + len(view)] = view

    def zero(self, offset: int, length: int) -> None:
        """Write zeroes."""
        self._check("zero")
        self._grow(offset)
        self._data[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        """Do nothing: this disk survives nothing."""
        self._check()

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield the extents that were given, else one data extent."""
        self._check()
        end = self.size() if length is None else offset + length
        given = self._extents.get(context)
        if given is None and context != "zero":
            raise errors.UnsupportedContext(context)
        if given is None:
            given = [ZeroExtent(0, end, False, False)]
        return merged(clipped(given, offset, end))

    def close(self) -> None:
        """Forget the data, unless it is used elsewhere."""
        self._is_closed = True
        self._data = bytearray()

    def _grow(self, size: int) -> None:
        if size > len(self._data):
            self._data.extend(bytes(size - len(self._data)))

    def _check(self, operation: Optional[str] = None) -> None:
        if self._is_closed:
            raise errors.ClosedBackend(self.name)
        if operation and not self._writable:
            raise errors.StorageError(operation, "the disk was opened read only")
