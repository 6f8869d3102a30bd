"""The checksum of a disk: a digest of the digests of its blocks, so that blocks are hashed side by side.

    disk      | block 0 | block 1 | zeroes  | ...     read in order, by the thread that owns the backend
    digests   |    d0   |    d1   |   dz    | ...     computed by a pool of threads; dz is known beforehand
    checksum  = digest(d0 + d1 + dz + ...)

Two disks with the same content have the same checksum, however they are stored. Knows backends; knows nothing of the
clients that ask.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.geometry.extent import Extent
from ovirt_imageio.ops.operations import Operation
from ovirt_imageio.relay import buffers
from ovirt_imageio.storage import zero

__all__ = ["BLOCK_SIZE", "DEFAULT_ALGORITHM", "MAX_BLOCK_SIZE", "MIN_BLOCK_SIZE", "Checksum", "algorithms", "blocks"]

DEFAULT_ALGORITHM = "blake2b"

# Large enough to make the cost of a block vanish, small enough for a few of them to fit in memory.
BLOCK_SIZE = 4 * 1024**2
MIN_BLOCK_SIZE = 1024**2
MAX_BLOCK_SIZE = 16 * 1024**2

# More threads than this only wait for the storage.
MAX_THREADS = 4

# Buffers beside those that are hashed: digests are taken in order, so some wait for an earlier one while the next
# blocks are read. With one instead of four a checksum takes 20 % longer.
SPARE = 4

# As many bytes as fit in an address; keeps the digests of all blocks short.
BLAKE2_DIGEST_SIZE = 32


@functools.cache
def algorithms() -> tuple[str, ...]:
    """Return the sorted names of the algorithms that work here: some that hashlib lists do not."""
    return tuple(name for name in sorted(hashlib.algorithms_available) if _works(name))


def _works(name: str) -> bool:
    try:
        return len(new(name).digest()) > 0
    except (ValueError, TypeError):  # Not in this OpenSSL, or without a digest of fixed size.
        return False


def new(algorithm: str) -> Any:
    """Return a new hash object."""
    if algorithm in ("blake2b", "blake2s"):
        return getattr(hashlib, algorithm)(digest_size=BLAKE2_DIGEST_SIZE)
    return hashlib.new(algorithm, usedforsecurity=False)


def digest_of(algorithm: str, data: Union[bytes, memoryview]) -> bytes:
    """Return the digest of one block."""
    digest = new(algorithm)
    digest.update(data)
    result: bytes = digest.digest()
    return result


def blocks(extents: Iterator[Extent], block_size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (offset, length, is_zero) for each block that contiguous extents from 0 cover; the last may be short.

    A block is zero if every extent that it touches is.
    """
    start = end = 0
    is_zero = True
    for extent in extents:
        end = extent.start + extent.length
        while end - start >= block_size:
            yield start, block_size, is_zero and extent.zero
            start += block_size
            is_zero = True
        if end > start:
            is_zero = is_zero and extent.zero
    if end > start:
        yield start, end - start, is_zero


class Hasher:
    """Hashes blocks side by side and adds their digests up in order.

    Threads: used by one; its own pool only computes digests.
    """

    def __init__(self, algorithm: str, block_size: int, settled: Callable[[int], None]) -> None:
        threads = min(MAX_THREADS, os.cpu_count() or 1)
        self._algorithm = algorithm
        self._settled = settled
        self._total = new(algorithm)
        self._free = [buffers.aligned(block_size) for _ in range(threads + SPARE)]
        self._pending: deque[tuple[Future[bytes], int, Optional[memoryview]]] = deque()
        self._max_pending = 4 * threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="checksum")
        # It holds no hasher: the two would stay, with all buffers, until the cyclic collector comes.
        self._digest_zeroes = functools.lru_cache(maxsize=2)(lambda length: digest_of(algorithm, bytes(length)))

    def __enter__(self) -> Hasher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add_zeroes(self, length: int) -> None:
        """Add a block that is known to be zero: its digest is computed once."""
        digest: Future[bytes] = Future()
        digest.set_result(self._digest_zeroes(length))
        self._add(digest, length, None)

    def add_data(self, length: int, read: Callable[[memoryview], None]) -> None:
        """Add a block that `read` fetches into the view that it is given."""
        while not self._free:
            self._settle()
        buffer = self._free.pop()
        view = buffer[:length]
        read(view)
        self._add(self._pool.submit(self._digest_data, view), length, buffer)

    def finish(self) -> str:
        """Return the checksum."""
        while self._pending:
            self._settle()
        checksum: str = self._total.hexdigest()
        return checksum

    def _add(self, digest: Future[bytes], length: int, buffer: Optional[memoryview]) -> None:
        self._pending.append((digest, length, buffer))
        if len(self._pending) > self._max_pending:
            self._settle()

    def _settle(self) -> None:
        digest, length, buffer = self._pending.popleft()
        self._total.update(digest.result())
        if buffer is not None:
            self._free.append(buffer)
        self._settled(length)

    def _digest_data(self, view: memoryview) -> bytes:
        return self._digest_zeroes(len(view)) if zero.is_zero(view) else digest_of(self._algorithm, view)


class Checksum(Operation):
    """Compute the checksum of a disk, or of its first `length` bytes.

    `result` holds it, in hexadecimal, after `run`.
    """

    name = "checksum"
    is_verification = True

    def __init__(
        self,
        backend: Backend,
        algorithm: str = DEFAULT_ALGORITHM,
        block_size: int = BLOCK_SIZE,
        length: Optional[int] = None,
    ) -> None:
        super().__init__(backend, 0, backend.size() if length is None else length)
        self._algorithm = algorithm
        self._block_size = block_size
        self.result: Optional[str] = None

    def run(self) -> None:
        """Compute, or let the storage do it if it can."""
        # The storage knows only whole disks.
        if self.length == self._backend.size():
            self.result = self._backend.checksum(self._algorithm, self._block_size)
        if self.result is not None:
            self.advance(self.length)
            return
        with Hasher(self._algorithm, self._block_size, self.advance) as hasher:
            for offset, length, is_zero in blocks(self._backend.extents("zero", 0, self.length), self._block_size):
                if is_zero:
                    hasher.add_zeroes(length)
                else:
                    hasher.add_data(length, functools.partial(self._read, offset))
            self.result = hasher.finish()

    def _read(self, offset: int, view: memoryview) -> None:
        count = self._backend.readinto(offset, view)
        if count < len(view):
            raise errors.PartialContent(len(view), count)
