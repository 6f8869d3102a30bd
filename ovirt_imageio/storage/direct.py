"""Files and block devices, opened for direct I/O: whole blocks, past the page cache.

    with direct.open_file("/path/to/disk", writable=True) as file:
        file.read(0, buffer)        # offset, length and address are multiples of file.block_size

Where a file system refuses direct I/O, or has nothing but the page cache, the file is used through that, and its block
size is 1. Knows nothing of other users of the file: see storage/disk.py for that, and for ranges that are not
multiples of a block.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import stat
import struct
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.geometry.blocks import MAX_SIZE
from ovirt_imageio.relay import buffers

__all__ = ["DirectFile", "open_file"]

log = logging.getLogger(__name__)

# linux/fs.h: the logical block size of a device.
BLKSSZGET = 0x1268

# The sectors that exist; a file system that detects neither is assumed to have the bigger one, which is always right.
SMALL_BLOCK = 512
BIG_BLOCK = 4096

# linux/magic.h: file systems whose storage is the page cache: tmpfs and ramfs. Going past it would only cost a copy.
IN_MEMORY = frozenset({0x01021994, 0x858458F6})

# The same, of file systems whose files are the state of the kernel. Reading one may leak a secret, or have an effect.
PSEUDO = frozenset(
    {
        0x00009FA0,  # proc
        0x0027E0EB,  # cgroup
        0x62656570,  # configfs
        0x62656572,  # sysfs
        0x63677270,  # cgroup2
        0x64626720,  # debugfs
        0x6165676C,  # pstore
        0x73636673,  # securityfs
        0x74726163,  # tracefs
        0xCAFE4A11,  # bpf
        0xDE5E81E4,  # efivarfs
        0xF97CFF8C,  # selinuxfs
    }
)

# struct statfs begins with the type of the file system, a word; the whole is shorter than this.
STATFS_WORDS = 32

_libc = ctypes.CDLL(None, use_errno=True)

# The file systems that we said are slow, as st_dev: once is enough.
_warned: set[int] = set()


class DirectFile:
    """An open file or block device.

    Threads: any, each with a range of its own; close by one.
    """

    def __init__(self, fd: int, info: os.stat_result, block_size: int) -> None:
        self.fd = fd
        self.is_block_device = stat.S_ISBLK(info.st_mode)
        self.block_size = block_size
        # Names the storage, however it was opened; a device has many nodes, but one number.
        self.identity = (0, info.st_rdev) if self.is_block_device else (info.st_dev, info.st_ino)
        # Held while direct I/O is off. Reads and writes of whole blocks work meanwhile, through the page cache.
        self._cached = threading.Lock()

    @property
    def is_direct(self) -> bool:
        """True if the page cache is not used."""
        return self.block_size > 1

    def size(self) -> int:
        """Return the current size; another process may change it at any time."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def read(self, offset: int, view: memoryview) -> int:
        """Read until view is full or the file ends; return the number of bytes read."""
        if offset + len(view) > MAX_SIZE:
            return 0  # No file reaches so far.
        done = 0
        while done < len(view):
            count = os.preadv(self.fd, [view[done:]], offset + done)
            done += count
            # Direct I/O cannot continue from the middle of a block: there the file ends.
            if count == 0 or count % self.block_size:
                break
        return done

    def write(self, offset: int, view: memoryview) -> None:
        """Write all of view."""
        done = 0
        while done < len(view):
            count = os.pwritev(self.fd, [view[done:]], offset + done)
            # A disk that is full takes a part first, which may end within a block; the next call tells why.
            step = count - count % self.block_size
            if step == 0:
                raise OSError(errno.EIO, "The storage took less than a block")
            done += step

    def write_cached(self, offset: int, view: memoryview) -> None:
        """Write all of view, of any length at any offset, through the page cache."""
        with self._cached, self._page_cache():
            done = 0
            while done < len(view):
                done += os.pwrite(self.fd, view[done:], offset + done)

    def flush(self) -> None:
        """Make what was written survive a power failure."""
        os.fsync(self.fd)

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        fd, self.fd = self.fd, -1
        if fd != -1:
            os.close(fd)

    @contextlib.contextmanager
    def _page_cache(self) -> Iterator[None]:
        if not self.is_direct:
            yield
            return
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        fcntl.fcntl(self.fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        try:
            yield
        finally:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags)

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


def open_file(path: str, *, writable: bool, is_cached: bool = False) -> DirectFile:
    """Open an existing regular file or block device, through the page cache if `is_cached`.

    Raises errors.StorageError.
    """
    try:
        return _open(path, writable, is_cached)
    except OSError as e:
        raise errors.storage_error("open the disk", e) from e
    except ValueError as e:  # A zero byte in the path.
        raise errors.StorageError("open the disk", "the path is not valid", errno.EINVAL) from e


def _open(path: str, writable: bool, is_cached: bool) -> DirectFile:
    # Opening a tape or a watchdog has effects, and opening a fifo blocks: look first, and again at what we got.
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _check_kind(place)
    finally:
        os.close(place)
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(path, flags if is_cached else flags | os.O_DIRECT)
            is_direct = not is_cached
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            fd = os.open(path, flags)
            is_direct = False
        stack.callback(os.close, fd)
        info = _check_kind(fd)
        # The nodes of devices are on such a file system, what they name is not.
        is_in_memory = stat.S_ISREG(info.st_mode) and _file_system(fd) in IN_MEMORY
        block_size = _probe(fd, info) if is_direct and not is_in_memory else None
        if block_size is None:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
            if not (is_in_memory or is_cached):
                _warn(info.st_dev, path)
        file = DirectFile(fd, info, block_size or 1)
        stack.pop_all()
        return file


def _check_kind(fd: int) -> os.stat_result:
    info = os.fstat(fd)
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise OSError(errno.EINVAL, "Not a regular file or block device")
    if _file_system(fd) in PSEUDO:
        raise OSError(errno.EINVAL, "A file of the kernel, not a disk")
    return info


def _file_system(fd: int) -> int:
    """Return the type of the file system, 0 if it does not tell."""
    words = (ctypes.c_long * STATFS_WORDS)()
    return words[0] if _libc.fstatfs(fd, words) == 0 else 0


def _probe(fd: int, info: os.stat_result) -> Optional[int]:
    """Return the block size; None if direct I/O does not work, though the flag was accepted."""
    if stat.S_ISBLK(info.st_mode):
        size: int = struct.unpack("i", fcntl.ioctl(fd, BLKSSZGET, bytes(4)))[0]
        return size
    with buffers.pool.lend() as (buffer,):
        for size in (1, SMALL_BLOCK, BIG_BLOCK):
            try:
                os.preadv(fd, [buffer[:size]], 0)
            except OSError as e:
                if e.errno != errno.EINVAL:
                    raise
            else:
                # One byte works where nothing is allocated at the start, and on NFS: that tells nothing.
                return BIG_BLOCK if size == 1 else size
    return None


def _warn(device: int, path: str) -> None:
    if device not in _warned:
        _warned.add(device)
        log.warning("The file system of %s does not support direct I/O: using the page cache", path)
