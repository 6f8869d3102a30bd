"""Ways to zero a range, and to recognize zeroes."""

from __future__ import annotations

import errno
import os

import pytest

from ovirt_imageio.storage import zero
from ovirt_imageio.storage.zero import Method

MIB = 1024**2


@pytest.fixture
def fd(tmp_path):
    fd = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * MIB)
    yield fd
    os.close(fd)


def failing(name: str, code: int, calls: list[str]) -> Method:
    def run(fd, offset, length):
        calls.append(name)
        if code:
            raise OSError(code, os.strerror(code))

    return Method(name, run)


# Trying one way after the other


@pytest.mark.parametrize("code", sorted(zero.UNSUPPORTED))
def test_falls_through_once(code):
    calls, unsupported = [], set()
    choice = [failing("best", code, calls), failing("good", 0, calls), failing("last", 0, calls)]
    assert zero.zero_range(-1, 0, 1, choice, unsupported)
    assert calls == ["best", "good"]
    assert unsupported == {"best"}
    assert zero.zero_range(-1, 0, 1, choice, unsupported)
    assert calls == ["best", "good", "good"]


def test_nothing_works():
    unsupported = set()
    assert not zero.zero_range(-1, 0, 1, [failing("only", errno.ENOSYS, [])], unsupported)
    assert not zero.zero_range(-1, 0, 1, [], unsupported)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG])
def test_real_errors_are_raised(code):
    unsupported = set()
    with pytest.raises(OSError) as e:
        zero.zero_range(-1, 0, 1, [failing("best", code, []), failing("good", 0, [])], unsupported)
    assert e.value.errno == code
    assert not unsupported


# The ways that there are


def names(**kwargs):
    return [method.name for method in zero.methods(**kwargs)]


def test_choice_for_files():
    preallocated = names(is_block_device=False, sparse=False, is_beyond_end=False)
    assert preallocated == ["zero range", "punch hole and allocate"]
    # To allocate zeroes nothing, so it is right only where nothing was.
    assert names(is_block_device=False, sparse=False, is_beyond_end=True) == [*preallocated, "allocate"]
    assert names(is_block_device=False, sparse=True, is_beyond_end=False) == ["punch hole"]


@pytest.mark.parametrize("is_beyond_end", [True, False])
def test_choice_for_devices(is_beyond_end):
    assert names(is_block_device=True, sparse=False, is_beyond_end=is_beyond_end) == ["zero range", "BLKZEROOUT"]
    assert names(is_block_device=True, sparse=True, is_beyond_end=is_beyond_end)[0] == "punch hole"


@pytest.mark.parametrize("method", [zero.ZERO_RANGE, zero.PUNCH, zero.REPLACE], ids=lambda method: method.name)
def test_method(fd, method):
    try:
        method.run(fd, 4096, 8192)
    except OSError as e:
        pytest.skip(f"the file system of the temporary folder cannot: {e}")
    assert os.pread(fd, 2 * MIB, 0) == b"x" * 4096 + bytes(8192) + b"x" * (MIB - 12288)
    assert (os.fstat(fd).st_blocks * 512 < MIB) == (method is zero.PUNCH)


def test_allocate(fd):
    zero.ALLOCATE.run(fd, MIB, MIB)
    assert os.fstat(fd).st_size == 2 * MIB
    assert os.fstat(fd).st_blocks * 512 >= 2 * MIB
    assert os.pread(fd, MIB, MIB) == bytes(MIB)


def test_fallocate_raises(fd):
    with pytest.raises(OSError) as e:
        zero.fallocate(fd, 0, -1, 1)
    assert e.value.errno == errno.EINVAL


def test_device_ioctl_on_a_file(fd):
    with pytest.raises(OSError) as e:
        zero.ZERO_DEVICE.run(fd, 0, 4096)
    assert e.value.errno in zero.UNSUPPORTED


@pytest.mark.parametrize("method", [zero.ZERO_RANGE, zero.PUNCH, zero.ZERO_DEVICE], ids=lambda method: method.name)
def test_method_on_devices(block_storage, method):
    fd = os.open(block_storage.path, os.O_RDWR)
    try:
        os.pwrite(fd, b"x" * MIB, 0)
        os.fsync(fd)
        method.run(fd, 4096, 8192)
        assert os.pread(fd, MIB, 0) == b"x" * 4096 + bytes(8192) + b"x" * (MIB - 12288)
    finally:
        os.close(fd)


# Recognizing zeroes

STEP = len(zero.BLANK)


@pytest.mark.parametrize("length", [0, 1, 511, STEP - 1, STEP, STEP + 1, 3 * STEP + 5])
def test_is_zero(length):
    data = bytearray(length)
    assert zero.is_zero(memoryview(data))
    for place in {0, length // 2, length - 1} if length else ():
        data[place] = 1
        assert not zero.is_zero(memoryview(data))
        data[place] = 0


def test_is_zero_of_a_part():
    view = memoryview(b"x" + bytes(1000) + b"x")
    assert zero.is_zero(view[1:-1])
    assert not zero.is_zero(view[1:])
