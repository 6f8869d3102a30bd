"""A borrowed disk is not changed, and not closed."""

from __future__ import annotations

import contextlib

import pytest

from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.client.borrowed import BorrowedDisk


class Shown(BorrowedDisk):
    """All of another disk."""

    name = "shown"

    def __init__(self, disk):
        self._disk = disk

    def size(self):
        return self._disk.size()

    def readinto(self, offset, view):
        return self._disk.readinto(offset, view)


def test_is_only_read():
    disk = MemoryBackend(bytearray(b"data"))
    view = memoryview(bytearray(4))
    with contextlib.closing(Shown(disk)) as shown:
        assert shown.readinto(0, view) == 4
        for change in (lambda: shown.write(0, view), lambda: shown.zero(0, 1), shown.flush):
            with pytest.raises(AssertionError, match="only read"):
                change()
    # It is still open.
    disk.write(0, memoryview(b"more"))
    assert view == b"data"
    disk.close()
