"""Is the copy the same? Compare checksums that each end computes by itself.

Knows backends only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from ovirt_imageio.backends.base import Backend
from ovirt_imageio.client.borrowed import BorrowedDisk
from ovirt_imageio.client.errors import VerificationFailed
from ovirt_imageio.geometry.extent import Extent, ZeroExtent
from ovirt_imageio.ops import checksum

__all__ = ["compare"]


def compare(here: Backend, there: Backend) -> tuple[str, str]:
    """Return the algorithm and the checksum of both; the smaller one ends with zeroes, as it were.

    Raises VerificationFailed unless both have the same content.
    """
    size = max(here.size(), there.size())
    algorithm = checksum.DEFAULT_ALGORITHM
    operations = [checksum.Checksum(padded(end, size), algorithm) for end in (here, there)]
    with ThreadPoolExecutor(1, thread_name_prefix="verify") as pool, stopped_on_error(operations, (here, there)):
        other = pool.submit(operations[1].run)
        operations[0].run()
        other.result()
    first, second = (str(operation.result) for operation in operations)
    if first != second:
        raise VerificationFailed(algorithm, first, second)
    return algorithm, first


@contextlib.contextmanager
def stopped_on_error(operations: list[checksum.Checksum], ends: tuple[Backend, Backend]) -> Iterator[None]:
    """Leave nothing running when the with block fails."""
    try:
        yield
    except BaseException:
        for operation, end in zip(operations, ends):
            operation.cancel()
            end.interrupt()
        raise


def padded(backend: Backend, size: int) -> Backend:
    """Return a backend that reads as if it had `size` bytes."""
    return backend if backend.size() == size else Padded(backend, size)


class Padded(BorrowedDisk):
    """A disk with zeroes behind its end, to be read only.

    Threads: one at a time.
    """

    name = "padded"

    def __init__(self, backend: Backend, size: int) -> None:
        self._backend = backend
        self._size = size

    def size(self) -> int:
        """Return the size with the zeroes."""
        return self._size

    def readinto(self, offset: int, view: memoryview) -> int:
        """Read what there is, then zeroes."""
        length = min(len(view), self._size - offset)
        count = self._backend.readinto(offset, view[:length]) if offset < self._backend.size() else 0
        view[count:length] = bytes(length - count)
        return length

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield the extents of what there is, then one of zeroes."""
        end = self._size if length is None else offset + length
        own = min(end, self._backend.size())
        if offset < own:
            yield from self._backend.extents(context, offset, own - offset)
        if max(offset, own) < end:
            yield ZeroExtent(max(offset, own), end - max(offset, own), True, True)
