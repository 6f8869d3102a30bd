"""A disk that reads as zeroes and forgets what is written: to measure everything but the storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.geometry import blocks
from ovirt_imageio.geometry.extent import Extent, ZeroExtent
from ovirt_imageio.relay.buffers import ZEROES

__all__ = ["NullBackend"]


class NullBackend(Backend):
    """`size` bytes of zeroes.

    Threads: any.
    """

    name = "null"

    def __init__(self, size: int = 0, *, max_connections: int = 8) -> None:
        self._size = size
        self._is_closed = False
        self.max_readers = max_connections
        self.max_writers = max_connections

    def size(self) -> int:
        """Return the size that was asked for."""
        self._check()
        return self._size

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill view with zeroes."""
        self._check()
        count = max(0, min(len(view), self._size - offset))
        for start, length in blocks.pieces(0, count, len(ZEROES)):
            view[start : start + length] = ZEROES[:length]
        return count

    def write(self, offset: int, view: memoryview) -> None:
        """Forget view."""
        self._check()

    def zero(self, offset: int, length: int) -> None:
        """Do nothing: it is zero already."""
        self._check()

    def flush(self) -> None:
        """Do nothing."""
        self._check()

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield one zero extent."""
        self._check()
        if context != "zero":
            raise errors.UnsupportedContext(context)
        if length is None:
            length = self._size - offset
        return iter([ZeroExtent(offset, length, True, False)] if length else [])

    def close(self) -> None:
        """Refuse everything from now on."""
        self._is_closed = True

    def _check(self) -> None:
        if self._is_closed:
            raise errors.ClosedBackend(self.name)
