"""Make ranges of a file or block device read as zeroes, the fastest way that it has; and recognize zeroes.

Knows descriptors. The kernel is asked through the C library that Python runs on: no compiler is needed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Method", "is_zero", "methods", "zero_range"]

# linux/falloc.h
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_ZERO_RANGE = 0x10

# linux/fs.h
BLKZEROOUT = 0x127F

# How file systems, drivers, old kernels and sandboxes say that they do not know a way to zero.
UNSUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTTY},
)

# What views are compared with: small enough to stay in the processor's cache, big enough to make calls rare.
BLANK = bytes(64 * 1024)

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate64
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Method(NamedTuple):
    """One way to zero: `run(fd, offset, length)` raises OSError."""

    name: str
    run: Callable[[int, int, int], None]


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Change the allocation of a range; see fallocate(2)."""
    while _fallocate(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def _zero(fd: int, offset: int, length: int) -> None:
    fallocate(fd, FALLOC_FL_ZERO_RANGE, offset, length)


def _punch(fd: int, offset: int, length: int) -> None:
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)


def _allocate(fd: int, offset: int, length: int) -> None:
    fallocate(fd, 0, offset, length)


def _replace(fd: int, offset: int, length: int) -> None:
    _punch(fd, offset, length)
    _allocate(fd, offset, length)


def _zero_device(fd: int, offset: int, length: int) -> None:
    fcntl.ioctl(fd, BLKZEROOUT, struct.pack("QQ", offset, length))


# Zeroes that are allocated, or become so.
ZERO_RANGE = Method("zero range", _zero)
# The space is given back. On a block device too: the kernel discards what then is sure to read as zeroes, and says no
# otherwise. BLKDISCARD promises nothing about what is read later, so it is not a way to zero.
PUNCH = Method("punch hole", _punch)
# NFS has no zero range, but these two.
REPLACE = Method("punch hole and allocate", _replace)
# Only where nothing was before.
ALLOCATE = Method("allocate", _allocate)
ZERO_DEVICE = Method("BLKZEROOUT", _zero_device)


def methods(*, is_block_device: bool, sparse: bool, is_beyond_end: bool) -> Sequence[Method]:
    """Return the ways to zero a range, the best first; when all fail, zeroes must be written."""
    if is_block_device:
        return (PUNCH, ZERO_RANGE, ZERO_DEVICE) if sparse else (ZERO_RANGE, ZERO_DEVICE)
    if sparse:
        return (PUNCH,)
    return (ZERO_RANGE, REPLACE, ALLOCATE) if is_beyond_end else (ZERO_RANGE, REPLACE)


def zero_range(fd: int, offset: int, length: int, choice: Sequence[Method], unsupported: set[str]) -> bool:
    """Zero a range by the first method of `choice` that works; return False if there is none.

    Methods that turn out to be unsupported are added to `unsupported`, and not tried again. Other errors are raised.
    """
    for method in choice:
        if method.name in unsupported:
            continue
        try:
            method.run(fd, offset, length)
        except OSError as e:
            if e.errno not in UNSUPPORTED:
                raise
            unsupported.add(method.name)
        else:
            return True
    return False


def is_zero(view: memoryview) -> bool:
    """Return True if all bytes of view are zero, as fast as the memory allows."""
    # startswith() compares with memcmp(), in place: the fastest that Python offers, with no copy and no compiler.
    step = len(BLANK)
    return all(BLANK.startswith(view[start : start + step]) for start in range(0, len(view), step))
