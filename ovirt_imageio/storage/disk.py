"""A file or block device that is read, written and zeroed anywhere, by several writers, in blocks.

    blocks   |        |        |        |        |
    write        [head][  body          ][tail]
                 read-modify-write  direct  read-modify-write

Knows files; knows nothing of sources, sinks and URLs.
"""

from __future__ import annotations

import errno
import os

from ovirt_imageio.geometry import blocks
from ovirt_imageio.relay import buffers
from ovirt_imageio.storage import zero
from ovirt_imageio.storage.direct import DirectFile
from ovirt_imageio.storage.shared import shared_by

__all__ = ["Disk"]


class Disk:
    """Access to any range of a file.

    Writers in this process that share a block do each other no harm. A file grows by what is written, not by whole
    blocks. With `detect_zeroes` a write of zeroes is a zero(), which frees space if the disk is sparse. Raises OSError.

    Threads: any, each with a range of its own.
    """

    def __init__(self, file: DirectFile, *, sparse: bool = False, detect_zeroes: bool = False) -> None:
        self._file = file
        self._sparse = sparse
        self._detect_zeroes = detect_zeroes
        self._shared = shared_by(file.identity)

    def read(self, offset: int, view: memoryview) -> int:
        """Read until view is full or the disk ends; return the number of bytes read."""
        if offset % self._file.block_size == 0 and self._can_take(view):
            body = blocks.round_down(len(view), self._file.block_size)
            done = self._file.read(offset, view[:body])
            if done < body:
                return done
        else:
            done = 0
        with buffers.pool.lend() as (slot,):
            for start, length in blocks.pieces(offset + done, len(view) - done, len(slot)):
                part = self.read_slot(slot, start, length)
                view[done : done + len(part)] = part
                done += len(part)
                if len(part) < length:
                    break
        return done

    def read_slot(self, slot: memoryview, offset: int, length: int) -> memoryview:
        """Read the blocks around a range into an aligned slot; return the range, shorter where the disk ends."""
        start, total = blocks.span(offset, length, self._file.block_size)
        skip = offset - start
        count = self._file.read(start, slot[:total])
        return slot[skip : max(skip, min(skip + length, count))]

    def place(self, slot: memoryview, offset: int, length: int) -> memoryview:
        """Return the part of an aligned slot to put a range in, so that writing it needs no copy."""
        skip = offset % self._file.block_size
        return slot[skip : skip + length]

    def write(self, offset: int, view: memoryview) -> None:
        """Write all of view; a file that must grow does."""
        if self._detect_zeroes and zero.is_zero(view):
            self.zero(offset, len(view))
            return
        self._check_end(offset + len(view))
        with self._shared.locked(offset, len(view)):
            self._write(offset, view)

    def zero(self, offset: int, length: int, *, is_allocated: bool = False) -> None:
        """Make a range read as zeroes, with space if `is_allocated` or the disk is not sparse; a file may grow."""
        is_sparse = self._sparse and not is_allocated
        end = offset + length
        self._check_end(end)
        if length == 0:
            return
        size = self._file.size()
        if self._file.is_block_device and end > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self._shared.locked(offset, length):
            if is_sparse and end > size:
                # Not by truncating: a write further on, at the same time, would be cut off.
                self._file.write_cached(end - 1, memoryview(b"\0"))
            self._zero(offset, length, size, is_sparse)

    def _zero(self, offset: int, length: int, size: int, is_sparse: bool) -> None:
        head, body, tail = blocks.split(offset, length, self._file.block_size)
        self._write_zeroes(offset, head)
        if body:
            choice = zero.methods(
                is_block_device=self._file.is_block_device, sparse=is_sparse, is_beyond_end=offset >= size
            )
            if not zero.zero_range(self._file.fd, offset + head, body, choice, self._shared.unsupported):
                self._write_zeroes(offset + head, body)
        self._write_zeroes(offset + head + body, tail)

    def _write_zeroes(self, offset: int, length: int) -> None:
        for start, count in blocks.pieces(offset, length, buffers.SLOT):
            self._write(start, self.place(buffers.ZEROES, start, count))

    def _write(self, offset: int, view: memoryview) -> None:
        head, body, _ = blocks.split(offset, len(view), self._file.block_size)
        self._write_edge(offset, view[:head])
        self._write_blocks(offset + head, view[head : head + body])
        self._write_edge(offset + head + body, view[head + body :])

    def _write_blocks(self, offset: int, view: memoryview) -> None:
        if self._can_take(view):
            self._file.write(offset, view)
            return
        with buffers.pool.lend() as (slot,):
            for start in range(0, len(view), len(slot)):
                part = view[start : start + len(slot)]
                slot[: len(part)] = part
                self._file.write(offset + start, slot[: len(part)])

    def _write_edge(self, offset: int, view: memoryview) -> None:
        """Write a part of one block: read the block, change it, write it."""
        if not view:
            return
        block = self._file.block_size
        start = blocks.round_down(offset, block)
        skip = offset - start
        with buffers.pool.lend() as (slot,):
            count = self._file.read(start, slot[:block])
            if count < block:
                # The file ends within this block, or before it: a whole block would make it too long.
                self._file.write_cached(offset, view)
                return
            slot[skip : skip + len(view)] = view
            self._file.write(start, slot[:block])

    def _can_take(self, view: memoryview) -> bool:
        """Can direct I/O use this memory?"""
        return not self._file.is_direct or buffers.is_aligned(view, self._file.block_size)

    def _check_end(self, end: int) -> None:
        if end > blocks.MAX_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
