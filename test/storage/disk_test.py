"""Any range of a file, by several writers."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest
from fakes.waiting import DEADLINE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovirt_imageio.relay import buffers
from ovirt_imageio.storage import direct, zero
from ovirt_imageio.storage.disk import Disk
from ovirt_imageio.storage.shared import shared_by

KIB = 1024
MIB = KIB * KIB


def open_disk(path: str, block_size: int = 4096, sparse: bool = False) -> tuple[Disk, direct.DirectFile]:
    """Open a disk as if its blocks had this size; 1 uses the page cache."""
    fd = os.open(path, os.O_RDWR | (os.O_DIRECT if block_size > 1 else 0))
    file = direct.DirectFile(fd, os.fstat(fd), block_size)
    return Disk(file, sparse=sparse), file


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.touch()
    return str(path)


def content(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.fixture(params=[1, 4096])
def block_size(request: pytest.FixtureRequest) -> int:
    return request.param


# Everything at once

places = st.integers(0, 20 * KIB) | st.sampled_from([0, 512, 4095, 4096, 8192, 12289])
steps = st.lists(st.tuples(st.sampled_from(["write", "zero", "read"]), places, places), max_size=10)


# This list replaces that of the house: a machine that is slow to make an example is still no fault.
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(size=places, steps=steps, block_size=st.sampled_from([1, 4096, 8192]), sparse=st.booleans())
def test_like_memory(path, size, steps, block_size, sparse):
    """Whatever is done to a disk gives what it gives in memory."""
    expected = bytearray(b"\xff" * size)
    Path(path).write_bytes(expected)
    disk, file = open_disk(path, block_size, sparse)
    with file:
        for number, (what, offset, length) in enumerate(steps):
            end = offset + length
            if what == "read":
                view = memoryview(bytearray(length))
                assert bytes(view[: disk.read(offset, view)]) == expected[offset:end]
                continue
            data = bytes([number + 1]) * length if what == "write" else bytes(length)
            if what == "write":
                disk.write(offset, memoryview(data))
            else:
                disk.zero(offset, length)
            if length:
                expected.extend(bytes(max(0, end - len(expected))))
            expected[offset:end] = data
            assert content(path) == expected


# Reading


@pytest.mark.parametrize("offset", [0, 1, 4096, 5000])
def test_read_slot(path, block_size, offset):
    data = os.urandom(20000)
    Path(path).write_bytes(data)
    disk, file = open_disk(path, block_size)
    slot = buffers.aligned(64 * KIB)
    with file:
        assert bytes(disk.read_slot(slot, offset, 1000)) == data[offset : offset + 1000]
        assert bytes(disk.read_slot(slot, offset, 30000)) == data[offset:]
        assert bytes(disk.read_slot(slot, 30000 + offset, 1000)) == b""


@pytest.mark.parametrize("skip", [0, 1])
def test_read_beyond_the_end_of_numbers(path, block_size, skip):
    disk, file = open_disk(path, block_size)
    with file:
        for offset in (2**63 - 1, 2**63, 2**64):
            assert disk.read(offset, buffers.aligned(8192)[skip:]) == 0


def test_memory_that_is_not_aligned(path, block_size):
    data = os.urandom(3 * MIB)
    disk, file = open_disk(path, block_size)
    with file:
        disk.write(0, memoryview(data))
        buffer = buffers.aligned(len(data) + 1)
        assert disk.read(0, buffer[1:]) == len(data)
        assert bytes(buffer[1:]) == data


# The size


def test_write_within_the_last_block_keeps_the_size(path, block_size):
    Path(path).write_bytes(b"x" * 5000)
    disk, file = open_disk(path, block_size)
    with file:
        disk.write(4990, memoryview(b"y" * 10))
    assert content(path) == b"x" * 4990 + b"y" * 10


@pytest.mark.parametrize(("offset", "length"), [(5000, 10), (5010, 10), (4096, 1000), (10_000, 8000), (4990, 9000)])
def test_write_beyond_the_end_is_exact(path, block_size, offset, length):
    Path(path).write_bytes(b"x" * 5000)
    disk, file = open_disk(path, block_size)
    with file:
        disk.write(offset, memoryview(b"y" * length))
    assert content(path) == (b"x" * 5000)[:offset] + bytes(max(0, offset - 5000)) + b"y" * length


def test_both_ends_of_a_growing_file_at_once(path):
    """Threads that switch direct I/O off do not leave it off, nor on when another one needs it off."""
    disk, file = open_disk(path)
    count, size = 50, 5000
    errors_: list[BaseException] = []

    def write(numbers: range) -> None:
        try:
            for number in numbers:
                disk.write(number * size, memoryview(bytes([number + 1]) * size))
        except BaseException as e:
            errors_.append(e)

    with file:
        threads = [threading.Thread(target=write, args=(range(first, count, 2),)) for first in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert fcntl.fcntl(file.fd, fcntl.F_GETFL) & os.O_DIRECT
    assert errors_ == []
    assert content(path) == b"".join(bytes([number + 1]) * size for number in range(count))


def test_sparse_zero_beyond_the_end_is_exact(path, block_size):
    Path(path).write_bytes(b"x" * 5000)
    disk, file = open_disk(path, block_size, sparse=True)
    with file:
        disk.zero(4999, 10**6)
    assert content(path) == b"x" * 4999 + bytes(10**6)


@pytest.mark.parametrize("what", ["write", "zero"])
def test_beyond_the_end_of_numbers(path, block_size, what):
    disk, file = open_disk(path, block_size)
    with file, pytest.raises(OSError) as e:
        if what == "write":
            disk.write(2**63 - 1, memoryview(b"xx"))
        else:
            disk.zero(2**63 - 1, 2)
    assert e.value.errno == errno.EFBIG
    assert content(path) == b""


# Zeroing


def test_preallocated_zero_allocates(path):
    disk, file = open_disk(path)
    with file:
        disk.zero(0, MIB)
    assert os.stat(path).st_blocks * 512 >= MIB


def test_sparse_zero_frees(path):
    Path(path).write_bytes(b"x" * MIB)
    disk, file = open_disk(path, sparse=True)
    with file:
        disk.zero(0, MIB)
    assert content(path) == bytes(MIB)
    assert os.stat(path).st_blocks * 512 < MIB


def test_sparse_zero_of_what_was_not_there_allocates_nothing(path):
    disk, file = open_disk(path, sparse=True)
    with file:
        disk.zero(0, 100 * MIB)
    assert os.stat(path).st_size == 100 * MIB
    assert os.stat(path).st_blocks == 0


@pytest.mark.parametrize("sparse", [True, False])
def test_zero_by_writing(path, monkeypatch, block_size, sparse):
    monkeypatch.setattr(zero, "methods", lambda **kwargs: ())
    Path(path).write_bytes(b"x" * 3 * MIB)
    disk, file = open_disk(path, block_size, sparse)
    with file:
        disk.zero(1000, 2 * MIB)
    assert content(path) == b"x" * 1000 + bytes(2 * MIB) + b"x" * (MIB - 1000)


def test_what_is_unsupported_is_remembered_by_all(path, monkeypatch):
    calls = []

    def refuse(fd, offset, length):
        calls.append(length)
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(zero, "methods", lambda **kwargs: (zero.Method("refusing", refuse),))
    (first, file), (second, other) = open_disk(path), open_disk(path)
    with file, other:
        first.zero(0, 8192)
        second.zero(0, 8192)
        assert shared_by(file.identity).unsupported == {"refusing"}
    assert calls == [8192]


def test_zero_by_writing_without_fallocate(ext2_storage):
    Path(ext2_storage.path).write_bytes(b"x" * MIB)
    disk, file = open_disk(ext2_storage.path)
    with file:
        disk.zero(1000, 100000)
        assert shared_by(file.identity).unsupported
    assert content(ext2_storage.path) == b"x" * 1000 + bytes(100000) + b"x" * (MIB - 101000)


def test_device_cannot_grow(block_storage):
    with direct.open_file(block_storage.path, writable=True) as file:
        disk = Disk(file)
        size = file.size()
        with pytest.raises(OSError) as e:
            disk.zero(size - 4096, 8192)
        assert e.value.errno == errno.ENOSPC
        assert not shared_by(file.identity).unsupported
        with pytest.raises(OSError) as e:
            disk.write(size, memoryview(b"x" * 4096))
        assert e.value.errno == errno.ENOSPC


def test_sparse_zero_of_a_device_discards(block_storage):
    backing = Path(f"/sys/block/{os.path.basename(os.path.realpath(block_storage.path))}/loop/backing_file")
    allocated = os.stat(backing.read_text().strip())
    with direct.open_file(block_storage.path, writable=True) as file:
        disk = Disk(file, sparse=True)
        disk.write(0, memoryview(b"x" * 8 * MIB))
        file.flush()
        written = os.stat(backing.read_text().strip()).st_blocks
        disk.zero(0, 8 * MIB)
        file.flush()
    after = os.stat(backing.read_text().strip()).st_blocks
    assert allocated.st_blocks <= after < written


# Several writers


@pytest.mark.parametrize("sizes", [(4096, 4096), (4096, 8192)], ids=str)
def test_writers_of_one_block(path, monkeypatch, sizes):
    """One writer stands still between reading and writing the block; the other one must wait, and undoes nothing."""
    Path(path).write_bytes(b"x" * 8192)
    (first, file), (second, other) = (open_disk(path, size) for size in sizes)
    reading, may_go_on = threading.Event(), threading.Event()
    read = file.read

    def slow_read(offset, view):
        count = read(offset, view)
        reading.set()
        assert may_go_on.wait(DEADLINE)
        return count

    monkeypatch.setattr(file, "read", slow_read)
    threads = [
        threading.Thread(target=first.write, args=(0, memoryview(b"1" * 2048))),
        threading.Thread(target=second.write, args=(2048, memoryview(b"2" * 2048))),
    ]
    with file, other:
        threads[0].start()
        assert reading.wait(DEADLINE)
        threads[1].start()
        threads[1].join(0.05)
        assert threads[1].is_alive()
        may_go_on.set()
        for thread in threads:
            thread.join()
    assert content(path) == b"1" * 2048 + b"2" * 2048 + b"x" * 4096


@pytest.mark.parametrize("block_size", [1, 512, 4096])
def test_zeroes_that_are_found_take_no_space(path, block_size):
    _, file = open_disk(path, block_size)
    with file:
        disk = Disk(file, sparse=True, detect_zeroes=True)
        disk.write(0, memoryview(b"a" * MIB))
        disk.write(MIB, memoryview(bytes(MIB)))
        disk.write(64 * KIB, memoryview(bytes(512 * KIB)))
        disk.write(600 * KIB, memoryview(bytes(100) + b"b"))
    assert content(path) == b"a" * 64 * KIB + bytes(512 * KIB) + b"a" * 24 * KIB + bytes(100) + b"b" + b"a" * (
        MIB - 600 * KIB - 101
    ) + bytes(MIB)
    assert os.stat(path).st_blocks * 512 <= MIB - 512 * KIB
