"""Data and holes, as file systems tell them."""

from __future__ import annotations

import errno
import os

import pytest

from ovirt_imageio.storage import holes
from ovirt_imageio.storage.holes import Range

MIB = 1024**2


@pytest.fixture
def fd(tmp_path):
    """A file of 4 MiB with data in the second and in the last one."""
    fd = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x" * MIB, MIB)
    os.pwrite(fd, b"x" * MIB, 3 * MIB)
    yield fd
    os.close(fd)


class Kernel:
    """Answers seeks like a file whose data ranges are given, and then like others that are given."""

    def __init__(self, monkeypatch, *moments):
        self._moments = list(moments)
        monkeypatch.setattr(os, "lseek", self.lseek)

    def lseek(self, fd, start, what):
        data = self._moments.pop(0) if len(self._moments) > 1 else self._moments[0]
        if isinstance(data, int):
            raise OSError(data, os.strerror(data))
        places = range(start, data[-1][1])
        is_data = {place for first, last in data for place in range(first, last)}
        for place in places:
            if (place in is_data) == (what == os.SEEK_DATA):
                return place
        if what == os.SEEK_HOLE and places:
            return data[-1][1]
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))


def test_ranges(fd):
    assert list(holes.ranges(fd, 0, 4 * MIB)) == [
        Range(0, MIB, False),
        Range(MIB, MIB, True),
        Range(2 * MIB, MIB, False),
        Range(3 * MIB, MIB, True),
    ]


def test_part(fd):
    assert list(holes.ranges(fd, MIB - 100, MIB + 100)) == [Range(MIB - 100, 100, False), Range(MIB, 100, True)]
    assert list(holes.ranges(fd, MIB + 100, MIB + 200)) == [Range(MIB + 100, 100, True)]
    assert list(holes.ranges(fd, 100, 200)) == [Range(100, 100, False)]


def test_nothing(fd):
    assert list(holes.ranges(fd, 0, 0)) == []


def test_hole_at_the_end(fd):
    os.ftruncate(fd, 8 * MIB)
    assert list(holes.ranges(fd, 3 * MIB, 8 * MIB)) == [Range(3 * MIB, MIB, True), Range(4 * MIB, 4 * MIB, False)]


def test_beyond_the_end(fd):
    assert list(holes.ranges(fd, 5 * MIB, 6 * MIB)) == [Range(5 * MIB, MIB, False)]


def test_preallocated_space_reads_as_zeroes(tmp_path):
    fd = os.open(tmp_path / "preallocated", os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, MIB)
        assert list(holes.ranges(fd, 0, MIB)) == [Range(0, MIB, False)]
    finally:
        os.close(fd)


def test_device_is_all_data(block_storage):
    fd = os.open(block_storage.path, os.O_RDONLY)
    try:
        assert list(holes.ranges(fd, 100, MIB)) == [Range(100, MIB - 100, True)]
    finally:
        os.close(fd)


def test_cannot_tell(monkeypatch):
    Kernel(monkeypatch, errno.EINVAL)
    assert list(holes.ranges(-1, 5, 100)) == [Range(5, 95, True)]


def test_other_errors_are_raised(monkeypatch):
    Kernel(monkeypatch, errno.EIO)
    with pytest.raises(OSError):
        list(holes.ranges(-1, 5, 100))


def test_data_that_is_punched_meanwhile(monkeypatch):
    Kernel(monkeypatch, [(10, 20)], [(50, 60)])
    assert list(holes.ranges(-1, 0, 100)) == [Range(0, 10, False), Range(10, 90, True)]


def test_file_that_shrinks_meanwhile(monkeypatch):
    Kernel(monkeypatch, [(10, 20), (30, 40)], [(10, 20), (30, 40)], errno.ENXIO)
    assert list(holes.ranges(-1, 0, 100)) == [Range(0, 10, False), Range(10, 10, True), Range(20, 80, False)]


def test_file_that_grows_meanwhile(fd):
    found = holes.ranges(fd, 0, 4 * MIB)
    next(found)
    os.pwrite(fd, b"x" * MIB, 4 * MIB)
    assert list(found)[-1] == Range(3 * MIB, MIB, True)
