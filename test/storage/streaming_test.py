"""Ranges of a disk on their way; what every backend promises is in backends/contract.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends.contract import Bytes, Collector, Progress, pattern
from fakes.plainsocket import PlainSink, PlainSource

from ovirt_imageio import errors, relay
from ovirt_imageio.relay import buffers
from ovirt_imageio.storage import direct
from ovirt_imageio.storage.disk import Disk
from ovirt_imageio.storage.streaming import SLOTS, DiskStreamer, slots_for

KIB = 1024
MIB = KIB * KIB
SIZE = 3 * MIB + 1000
DATA = pattern(SIZE)


class Unspliceable(direct.DirectFile):
    """A file whose descriptor is one that the kernel does not splice: that of a folder."""

    def __init__(self, file: direct.DirectFile, folder: Path) -> None:
        super().__init__(os.open(folder, os.O_RDONLY), os.fstat(file.fd), file.block_size)
        self.read = file.read


class Broken(direct.DirectFile):
    """A file on a disk that fails after `limit` bytes."""

    def __init__(self, file: direct.DirectFile, limit: int) -> None:
        super().__init__(os.dup(file.fd), os.fstat(file.fd), file.block_size)
        self._limit = limit

    def read(self, offset: int, view: memoryview) -> int:
        self._check(offset + len(view))
        return super().read(offset, view)

    def write(self, offset: int, view: memoryview) -> None:
        self._check(offset + len(view))
        super().write(offset, view)

    def _check(self, end: int) -> None:
        if end > self._limit:
            raise OSError(errno.EIO, "Input/output error", "/path/to/disk")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def file(path: Path) -> Iterator[direct.DirectFile]:
    with direct.open_file(str(path), writable=True) as file:
        yield file


def streamer(file: direct.DirectFile) -> DiskStreamer:
    return DiskStreamer(file, Disk(file))


def test_working_ahead(path, file):
    with open(path) as cached:
        cached_file = direct.DirectFile(cached.fileno(), os.fstat(cached.fileno()), 1)
        with PlainSink() as plain:
            assert streamer(file).can_work_ahead(plain)
            assert streamer(cached_file).can_work_ahead(plain)
        # What has no plain socket encrypts.
        assert streamer(file).can_work_ahead(Collector()) == file.is_direct
        assert not streamer(cached_file).can_work_ahead(Collector())


@pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (5000, 2 * MIB), (777, 100), (SIZE - 5, 5), (9, 0)])
def test_send(file, offset, length):
    sink, progress = Collector(), Progress()
    assert streamer(file).send(sink, offset, length, progress) == length == progress.total
    assert sink.data == DATA[offset : offset + length]


@pytest.mark.skipif(not relay.Pipe.is_supported, reason="this Python has no splice")
@pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (5000, 2 * MIB)])
def test_body_stays_in_the_kernel(file, offset, length):
    progress = Progress()
    with PlainSink() as sink:
        assert streamer(file).send(sink, offset, length, progress) == length == progress.total
        assert sink.advanced > length - 2 * 64 * KIB
        assert sink.received() == DATA[offset : offset + length]


def test_file_system_without_splice(tmp_path, file):
    with Unspliceable(file, tmp_path) as other, PlainSink() as sink:
        there = streamer(other)
        assert there.send(sink, 0, SIZE, Progress()) == SIZE
        assert there.send(sink, 100, MIB, Progress()) == MIB
        assert sink.advanced == 0
        assert sink.received() == DATA + DATA[100 : 100 + MIB]


def test_disk_that_ends(file):
    sink, progress = Collector(), Progress()
    assert streamer(file).send(sink, MIB, 4 * MIB, progress) == SIZE - MIB == progress.total
    assert sink.data == DATA[MIB:]
    with PlainSink() as plain:
        assert streamer(file).send(plain, MIB, 4 * MIB, Progress()) == SIZE - MIB
        assert plain.received() == DATA[MIB:]


@pytest.mark.parametrize("length", [100, 2 * MIB, SIZE])
def test_receive(path, file, length):
    data = pattern(length, seed=1)
    progress = Progress()
    with PlainSource(data, step=70_000) as source:
        assert streamer(file).receive(source, 0, length, progress) == length == progress.total
    assert path.read_bytes() == data + DATA[length:]


def test_source_that_ends(path, file):
    progress = Progress()
    assert streamer(file).receive(Bytes(b"x" * 5000), 100, MIB, progress) == 5000 == progress.total
    assert path.read_bytes() == DATA[:100] + b"x" * 5000 + DATA[5100:]


def test_disk_that_fails(file):
    with Broken(file, limit=2 * MIB) as broken:
        progress = Progress()
        with pytest.raises(errors.StorageError) as e:
            streamer(broken).send(Collector(), 0, SIZE, progress)
        assert str(e.value) == "Storage failed to read: Input/output error"
        with pytest.raises(errors.StorageError) as e:
            streamer(broken).receive(Bytes(DATA), 0, SIZE, progress)
        assert str(e.value) == "Storage failed to write: Input/output error"


def test_other_end_that_fails(file):
    """Its error is not one of the disk."""
    with pytest.raises(ConnectionResetError):
        streamer(file).send(Collector(limit=MIB, error=ConnectionResetError()), 0, SIZE, Progress())
    with pytest.raises(ConnectionResetError):
        streamer(file).receive(Bytes(DATA, limit=MIB, error=ConnectionResetError()), 0, SIZE, Progress())


@pytest.mark.parametrize(
    ("length", "count"), [(0, 1), (1, 2), (buffers.SLOT, 2), (2 * buffers.SLOT, 3), (100 * buffers.SLOT, SLOTS)]
)
def test_slots(length, count):
    assert slots_for(length) == count
