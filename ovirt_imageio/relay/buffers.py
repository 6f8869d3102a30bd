"""Buffers that direct I/O accepts: page-aligned memory, reused.

Knows memory only; what is in a buffer that was lent before is whatever its last user left there.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
from collections.abc import Iterator

__all__ = ["SLOT", "ZEROES", "Pool", "aligned", "is_aligned", "pool"]

# The step of streaming: big enough for a disk to be fast, small enough to stay in the processor's cache.
SLOT = 1024 * 1024

# Idle slots kept for the next transfer: two transfers' worth per core of a big host, and never much memory.
MAX_IDLE = 32


def aligned(size: int) -> memoryview:
    """Return `size` bytes of zeroed memory that begin on a page boundary."""
    # Private memory, not the shared kind that is the default: it costs no file in the kernel, and may use huge pages.
    return memoryview(mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))[:size]


def huge(size: int) -> memoryview:
    """Return `size` bytes that begin on a page boundary, in huge pages where the kernel has them."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel without them does not know this.
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def is_aligned(view: memoryview, block: int) -> bool:
    """Return True if view is known to begin on a multiple of block; what cannot be written to cannot be asked."""
    if view.readonly or not view.nbytes:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) % block == 0


class Pool:
    """Aligned buffers of one size that are lent and come back.

    New memory is slow: the system gives it page by page, at the first touch, which takes twice as long as to encrypt as
    much. So it is taken for two buffers at once: two slots are a huge page, which comes ten times as fast. And the
    buffer that came back last is lent first, as the processor may still have it.

    Threads: any.
    """

    def __init__(self, size: int = SLOT, max_idle: int = MAX_IDLE) -> None:
        self.size = size
        self._max_idle = max_idle
        self._idle: list[memoryview] = []
        self._lock = threading.Lock()

    def take(self) -> memoryview:
        """Lend a buffer until it is given back; its content is undefined."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        memory = huge(2 * self.size)
        self.give(memory[self.size :])
        return memory[: self.size]

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back."""
        with self._lock:
            if len(self._idle) < self._max_idle:
                self._idle.append(buffer)

    @contextlib.contextmanager
    def lend(self, count: int = 1) -> Iterator[list[memoryview]]:
        """Lend `count` buffers for the duration of a with block."""
        taken = [self.take() for _ in range(count)]
        try:
            yield taken
        finally:
            for buffer in taken:
                self.give(buffer)


# Where everything in the process takes its slots from.
pool = Pool()

# What is written where nothing makes zeroes faster. Pages that were never written to share one page of zeroes, so this
# takes no memory. Nothing may write to it.
ZEROES = aligned(4 * SLOT)
