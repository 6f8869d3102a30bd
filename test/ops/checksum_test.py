"""Checksums: known answers, equality with a plain implementation, and errors."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import weakref

import pytest
from fakes.garbage import uncollected
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.ops import checksum

MiB = 1024**2

# A disk that begins with "data" and is zero to its size, in blocks of 4 MiB.
KNOWN = [
    (0, "blake2b", "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"),
    (0, "sha1", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    (3 * MiB, "blake2b", "42f3b76772a6d3dcffae2a24697721687975e2c60ddfd4ba7831ea9ce772ca71"),
    (3 * MiB, "sha1", "6cba43b908381be45a55ab9b4361f8370b928354"),
    (4 * MiB, "blake2b", "f426bb2cf1e1901fe4e87423950944ecfed6d9d18a09e6e802aa4912e1c9b2d6"),
    (4 * MiB, "sha1", "3ed03b375b6658d99b63ced1867a95aeef080b79"),
    (5 * MiB, "blake2b", "0da53b583fc1fbbac7edea14454c79f84a8107613e614f2c7a47071dfdcf41a6"),
    (5 * MiB, "sha1", "d3936edd8e3a8ff10e8257a9f460d8da67838549"),
]


def compute(backend, algorithm="blake2b", block_size=4 * MiB):
    operation = checksum.Checksum(backend, algorithm, block_size)
    operation.run()
    assert operation.done == operation.length
    return operation.result


@pytest.mark.parametrize(("size", "algorithm", "expected"), KNOWN)
def test_known_answers(size, algorithm, expected):
    disk = bytearray(size)
    disk[:4] = b"data"[:size]
    assert compute(MemoryBackend(disk), algorithm) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (6 * 1024**3, "b1305582f6d479eedc68d4bf28c41950a82ac1351340c9f1aacd073d6495297a"),
        (6 * 1024**3 + 512, "5838862c67e5455d619a334bc86f35b609aab4f46c1a4dca9bdb6eaa738fb703"),
        (100 * 1024**3, "288b16b1f11d4c3ca00af54e8fcbf6efabc01a3bad85c9a6735e9faab6047595"),
    ],
)
def test_known_zeroes_are_not_read(size, expected):
    class Huge(MemoryBackend):
        def size(self):
            return size

        def readinto(self, offset, view):
            raise AssertionError("these bytes are known")

    assert compute(Huge(extents={"zero": [ZeroExtent(0, size, True, True)]})) == expected


def test_ten_blocks():
    blocks = b"".join((b"%02d\n" % i).ljust(4 * MiB, b"\0") for i in range(10))
    assert compute(MemoryBackend(blocks)) == "7934079f80b53142d738d2bb7efaedf696a3d34d76a7865a24130bc7b4a7acfe"


def plain(data: bytes, algorithm: str, block_size: int) -> str:
    total = checksum.new(algorithm)
    for i in range(0, len(data), block_size):
        block = checksum.new(algorithm)
        block.update(data[i : i + block_size])
        total.update(block.digest())
    return total.hexdigest()


def test_every_algorithm_that_is_offered_works():
    disk = b"x" * 5000
    for name in checksum.algorithms():
        assert compute(MemoryBackend(disk), name, 4096) == plain(disk, name, 4096)


def test_algorithms_without_a_digest_of_fixed_size_are_not_offered():
    assert "blake2b" in checksum.algorithms()
    assert not {"shake_128", "shake_256"} & set(checksum.algorithms())
    assert set(checksum.algorithms()) <= hashlib.algorithms_available


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=20), st.integers(1, 30))
def test_blocks_cover_the_disk_and_are_zero_only_if_all_of_them_is(pieces, block_size):
    start, extents, zero_bytes = 0, [], []
    for length, zero in pieces:
        extents.append(ZeroExtent(start, length, zero, False))
        zero_bytes += [zero] * length
        start += length
    end = 0
    for offset, length, is_zero in checksum.blocks(iter(extents), block_size):
        assert offset == end
        assert length == min(block_size, start - offset)
        assert is_zero == all(zero_bytes[offset : offset + length])
        end = offset + length
    assert end == start


def test_zeroes_that_no_extent_tells_give_the_same_checksum():
    disk = bytearray(3 * 4096)
    disk[4096:8192] = b"x" * 4096
    told = [ZeroExtent(0, 4096, True, False), ZeroExtent(4096, 4096, False, False), ZeroExtent(8192, 4096, True, False)]
    assert compute(MemoryBackend(disk), block_size=4096) == compute(
        MemoryBackend(disk, extents={"zero": told}), block_size=4096
    )


def test_storage_that_computes_it_is_asked():
    class Computing(MemoryBackend):
        def checksum(self, algorithm, block_size):
            return f"{algorithm}/{block_size}"

    assert compute(Computing(bytearray(10)), "sha1", 4096) == "sha1/4096"


def test_a_disk_that_ends_before_its_extents():
    backend = MemoryBackend(bytearray(10), extents={"zero": [ZeroExtent(0, 20, False, False)]})
    backend.size = lambda: 20
    with pytest.raises(errors.PartialContent):
        compute(backend)


def test_an_error_in_the_middle_leaves_no_thread():
    class Failing(MemoryBackend):
        def readinto(self, offset, view):
            if offset >= 50 * 4096:
                raise errors.StorageError("read", "Input/output error", 5)
            return super().readinto(offset, view)

    before = threading.active_count()
    with pytest.raises(errors.StorageError):
        compute(Failing(b"x" * 100 * 4096), block_size=4096)
    assert threading.active_count() == before


def test_cancel():
    class Canceling(MemoryBackend):
        def readinto(self, offset, view):
            operation.cancel()
            return super().readinto(offset, view)

    operation = checksum.Checksum(Canceling(b"x" * 100 * 4096), block_size=4096)
    with pytest.raises(errors.OperationCanceled):
        operation.run()
    assert operation.result is None


@pytest.mark.parametrize("length", [0, 1, 4096, 5000])
def test_of_a_part(length):
    data = bytes(range(256)) * 40
    operation = checksum.Checksum(MemoryBackend(data), block_size=4096, length=length)
    operation.run()
    assert operation.result == compute(MemoryBackend(data[:length]), block_size=4096)
    assert operation.done == length


def test_storage_is_asked_only_for_all_of_it():
    class Computing(MemoryBackend):
        def checksum(self, algorithm, block_size):
            return "of everything"

    disk = Computing(b"x" * 8192)
    assert compute(disk) == "of everything"
    operation = checksum.Checksum(disk, length=8191)
    operation.run()
    assert operation.result != "of everything"


@pytest.mark.parametrize("fails", [False, True])
def test_buffers_are_given_back(fails):
    memory = []

    class Disk(MemoryBackend):
        def readinto(self, offset, view):
            memory.append(weakref.ref(view.obj))
            if fails:
                raise errors.StorageError("read", "broken")
            return super().readinto(offset, view)

    with uncollected():
        with contextlib.suppress(errors.StorageError):
            compute(Disk(b"x" * 8192), block_size=4096)
        assert memory
        assert all(reference() is None for reference in memory)
