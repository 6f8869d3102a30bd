"""Keep qemu, and programs that ask as it does, away from an image that is written without it.

qemu takes locks of single bytes of an image, which tell what each program does with it, and what others may not do
meanwhile. One lock of all these bytes excludes every program that looks: virtual machines, qemu-img, qemu-nbd, and us.

Knows descriptors; knows nothing of formats.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from ovirt_imageio import errors

__all__ = ["take"]

# The bytes that qemu locks: 100 and up for what a program does, 200 and up for what it forbids (see /proc/locks).
FIRST = 100
COUNT = 200

# struct flock: type, whence, start, length, pid. Locks of a descriptor have no pid.
FLOCK = "hhqqi"


def take(descriptor: int, path: str) -> None:
    """Lock an image that is open for writing, until its descriptor is closed.

    A file system without such locks does without. Raises errors.BackendUnavailable if another program uses the image.
    """
    lock = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, FIRST, COUNT, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            reason = f"another program uses {path}, such as a virtual machine or another transfer; end that first"
            raise errors.BackendUnavailable("lock the image", reason, error.errno) from None
