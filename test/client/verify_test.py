"""Comparing both ends by their checksums."""

from __future__ import annotations

import pytest

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.client.errors import VerificationFailed
from ovirt_imageio.client.verify import compare, padded

DATA = bytes(range(256)) * 1000


def test_same():
    compare(MemoryBackend(DATA), MemoryBackend(DATA))


def test_different():
    other = bytearray(DATA)
    other[-1] ^= 1
    with pytest.raises(VerificationFailed):
        compare(MemoryBackend(DATA), MemoryBackend(other))


@pytest.mark.parametrize("extra", [1, 512, 10 * 1024**2])
def test_smaller_end_continues_with_zeroes(extra):
    larger = DATA + bytes(extra)
    compare(MemoryBackend(DATA), MemoryBackend(larger))
    compare(MemoryBackend(larger), MemoryBackend(DATA))
    with pytest.raises(VerificationFailed):
        compare(MemoryBackend(DATA), MemoryBackend(larger[:-1] + b"x"))


class Broken(MemoryBackend):
    def readinto(self, offset, view):
        raise errors.StorageError("read", "broken")


@pytest.mark.parametrize("ends", [(Broken(DATA), MemoryBackend(DATA)), (MemoryBackend(DATA), Broken(DATA))])
def test_failure_of_either_end(ends):
    with pytest.raises(errors.StorageError, match="broken"):
        compare(*ends)


def test_padded_reads_across_the_end():
    disk = padded(MemoryBackend(b"abc"), 6)
    view = memoryview(bytearray(b"xxxxxxxx"))
    assert disk.readinto(1, view) == 5
    assert bytes(view) == b"bc\0\0\0xxx"
    assert disk.readinto(4, view) == 2
    assert [extent.length for extent in disk.extents()] == [3, 3]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 6, [(0, 3), (3, 3)]),
        (1, 3, [(1, 2), (3, 1)]),
        (1, 2, [(1, 2)]),
        (3, 3, [(3, 3)]),
        (4, None, [(4, 2)]),
        (6, 0, []),
    ],
)
def test_padded_extents_of_a_range(offset, length, expected):
    found = padded(MemoryBackend(b"abc"), 6).extents("zero", offset, length)
    assert [(extent.start, extent.length) for extent in found] == expected
