"""What is read from a disk that many clients use at once could have been: on each kind of disk, over HTTP and NBD.

`make soak T=history` does it for longer, and kills processes meanwhile.
"""

from __future__ import annotations

import time

import pytest
from fakes.imageserver import ImageServer
from history import disks
from history.campaign import run, take
from real import storage

from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.geometry.extent import ZeroExtent


@pytest.mark.parametrize("kind", disks.MEMORY)
def test_memory(kind, tmp_path):
    counts = run(kind, tmp_path, seed=1, count=60, removals=2)
    assert counts["put"] and counts["get"] and counts["nbd write"] and counts["nbd read"]


@pytest.mark.storage
@pytest.mark.parametrize("kind", disks.DAEMON)
def test_daemon(kind, tmp_path):
    try:
        counts = run(kind, tmp_path, seed=1, count=40, removals=1)
    except storage.Missing as reason:
        pytest.skip(str(reason))
    assert counts["put"] and counts["get"] and counts["nbd write"] and counts["nbd read"]


class Forgetful(MemoryBackend):
    """Loses a write now and then."""

    written = 0

    def write(self, offset, view):
        Forgetful.written += 1
        if Forgetful.written % 20:
            super().write(offset, view)


class Careless(MemoryBackend):
    """Reads and writes whole pages, whatever others write there meanwhile."""

    def write(self, offset, view):
        start, end = offset - offset % 4096, -(-(offset + len(view)) // 4096) * 4096
        page = memoryview(bytearray(end - start))
        self.readinto(start, page)
        page[offset - start : offset - start + len(view)] = view
        time.sleep(0.001)
        super().write(start, page)


class Delayed(MemoryBackend):
    """Shows what was written when the next write comes."""

    def write(self, offset, view):
        last, self._last = getattr(self, "_last", None), (offset, bytes(view))
        if last is not None:
            super().write(last[0], memoryview(last[1]))


class Deceptive(MemoryBackend):
    """Says of everything that it is zeroes."""

    def extents(self, context="zero", offset=0, length=None):
        return iter([ZeroExtent(offset, self.size() - offset, True, False)])


@pytest.mark.parametrize("kind", [Forgetful, Careless, Delayed, Deceptive])
def test_a_disk_that_is_wrong_is_found(kind, tmp_path):
    with ImageServer(tmp_path) as server, pytest.raises(AssertionError, match=r"faults|the checksum"):
        take(disks.InMemory(server, kind), seed=1, count=60)
