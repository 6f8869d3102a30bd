"""The backend of files and block devices."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends.contract import MIB, SIZE, Bytes, Collector, Contract, Disk, Progress, pattern, read
from real import faulty, loop
from real.storage import Storage

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Options, Terms
from ovirt_imageio.backends.file import FileBackend, check_url, open_backend
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.storage import direct

needs_loop = pytest.mark.skipif(not loop.available(), reason="needs root, for loop devices")


class FileDisk(Disk):
    """A regular file."""

    can_grow = True

    def __init__(self, path: str) -> None:
        self.path = path
        Path(path).touch()

    def open(self, *, writable: bool = True, sparse: bool = False) -> FileBackend:
        return FileBackend(self.path, writable=writable, sparse=sparse)

    def content(self) -> bytes:
        return Path(self.path).read_bytes()

    def fill(self, data: bytes) -> None:
        Path(self.path).write_bytes(data)


class DeviceDisk(FileDisk):
    """A block device."""

    can_grow = False

    def __init__(self, path: str, granularity: int) -> None:
        super().__init__(path)
        self.granularity = granularity

    def fill(self, data: bytes) -> None:
        with open(self.path, "r+b") as f:
            f.write(data)


class TestFile(Contract):
    """On whatever file system the temporary folder is."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> FileDisk:
        return FileDisk(str(tmp_path / "disk"))


class TestPageCache(Contract):
    """As if the file system refused direct I/O."""

    @pytest.fixture
    def disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileDisk:
        monkeypatch.setattr(os, "O_DIRECT", 0)
        monkeypatch.setattr(direct, "_probe", lambda fd, info: None)
        return FileDisk(str(tmp_path / "disk"))


class TestFileSystems(Contract):
    """Sectors of 512 and 4096 bytes."""

    @pytest.fixture
    def disk(self, file_storage: Storage) -> FileDisk:
        return FileDisk(file_storage.path)


class TestWithoutFallocate(Contract):
    @pytest.fixture
    def disk(self, ext2_storage: Storage) -> FileDisk:
        return FileDisk(ext2_storage.path)


@pytest.mark.storage
@needs_loop
class TestDevices(Contract):
    @pytest.fixture(params=[512, 4096])
    def disk(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DeviceDisk]:
        size = SIZE - SIZE % request.param
        with loop.device(tmp_path / "backing", size, request.param) as path:
            yield DeviceDisk(path, request.param)


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.touch()
    return str(path)


@contextlib.contextmanager
def opened(path: str, writable: bool = True, sparse: bool = False) -> Iterator[FileBackend]:
    with contextlib.closing(FileBackend(path, writable=writable, sparse=sparse)) as backend:
        yield backend


# URLs


def test_url(path):
    Path(path).write_bytes(b"data")
    for url in (
        f"file://{path}",
        f"file:{path}",
        f"file://localhost{path}",
        f"file://{path}?cut",
        f"file://{path}#cut",
    ):
        check_url(url)
        backend = open_backend(url, Terms(Options(max_connections=3)))
        with contextlib.closing(backend):
            assert read(backend, 0, 10) == b"data"
            assert (backend.max_readers, backend.max_writers) == (3, 3)


def test_url_is_not_decoded(tmp_path):
    (tmp_path / "100%25").write_bytes(b"data")
    backend = open_backend(f"file://{tmp_path}/100%25", Terms(Options(max_connections=3), dirty=True))
    with contextlib.closing(backend):
        assert backend.size() == 4


@pytest.mark.parametrize("url", ["file:", "file://", "file:relative/path", "file://server", "file:///disk\0"])
def test_bad_url(url):
    with pytest.raises(errors.InvalidValue, match="absolute path"):
        check_url(url)


@pytest.mark.parametrize("url", ["file://server/disk", "file://user@localhost/disk", "file://localhost:80/disk"])
def test_file_of_another_host(url):
    with pytest.raises(errors.InvalidValue, match="a file of this host"):
        check_url(url)


# Extents


def test_extents_of_a_sparse_file(path):
    with open(path, "r+b") as f:
        f.truncate(100 * 1024**3)
        f.seek(MIB)
        f.write(b"x" * MIB)
    with opened(path, writable=False) as backend:
        assert list(backend.extents()) == [
            ZeroExtent(0, MIB, True, False),
            ZeroExtent(MIB, MIB, False, False),
            ZeroExtent(2 * MIB, 100 * 1024**3 - 2 * MIB, True, False),
        ]


def test_extents_of_an_empty_file(path):
    with opened(path) as backend:
        assert list(backend.extents()) == []


def test_dirty_extents(path):
    with opened(path) as backend, pytest.raises(errors.UnsupportedContext):
        backend.extents("dirty")


def test_extents_when_closed_meanwhile(path):
    Path(path).write_bytes(b"x" * MIB)
    with opened(path) as backend:
        extents = backend.extents()
        backend.close()
        with pytest.raises(errors.ClosedBackend):
            next(extents)


# Zeroing


def test_zero_a_huge_sparse_disk(path):
    size = 100 * 1024**3
    with opened(path, sparse=True) as backend:
        for offset in range(0, size, backend.zero_step):
            backend.zero(offset, min(backend.zero_step, size - offset))
        assert backend.size() == size
    assert os.stat(path).st_blocks == 0


def test_zeroes_that_are_allocated(path):
    with opened(path, sparse=True) as backend:
        backend.zero_allocated(0, MIB)
        backend.zero(MIB, MIB)
        assert backend.size() == 2 * MIB
    assert os.stat(path).st_blocks * 512 == MIB


# Direct I/O


def test_flags(path):
    """The page cache of the host is left to others."""
    with opened(path) as backend:
        flags = fcntl.fcntl(backend._file.fd, fcntl.F_GETFL)
        assert bool(flags & os.O_DIRECT) == backend._file.is_direct
        assert flags & os.O_ACCMODE == os.O_RDWR
    with opened(path, writable=False) as backend:
        assert fcntl.fcntl(backend._file.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def test_flush_fails(path, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with opened(path) as backend:
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(errors.StorageError) as e:
            backend.flush()
    assert str(e.value) == "Storage failed to flush: Input/output error"


def test_close_fails(path, monkeypatch):
    backend = FileBackend(path, writable=True)
    close = backend._file.close

    def fail():
        close()
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(backend._file, "close", fail)
    with pytest.raises(errors.StorageError, match="Storage failed to close: Input"):
        backend.close()
    backend.close()


# Files that change under us


def test_file_that_shrinks(path):
    Path(path).write_bytes(pattern(6 * MIB))

    class Sink(Collector):
        def write(self, view):
            super().write(view)
            os.truncate(path, MIB + 1000)

    sink = Sink()
    with opened(path, writable=False) as backend:
        with pytest.raises(errors.PartialContent) as e:
            backend.send_to(sink, 0, 6 * MIB, Progress())
        assert e.value.available == len(sink.data) < 6 * MIB
        assert backend.size() == MIB + 1000
        assert read(backend, MIB, MIB) == pattern(6 * MIB)[MIB : MIB + 1000]


def test_file_that_grows(path):
    Path(path).write_bytes(b"x" * 1000)
    with opened(path, writable=False) as backend:
        assert read(backend, 0, 5000) == b"x" * 1000
        Path(path).write_bytes(b"y" * 3000)
        assert backend.size() == 3000
        assert read(backend, 0, 5000) == b"y" * 3000


def test_file_that_is_removed(path):
    Path(path).write_bytes(b"x" * 1000)
    with opened(path) as backend:
        os.unlink(path)
        backend.write(0, memoryview(b"y"))
        assert read(backend, 0, 2) == b"yx"


# Failures of the storage


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64])
def test_beyond_what_numbers_can_tell(path, offset):
    with opened(path) as backend:
        assert read(backend, offset, 10) == b""
        with pytest.raises(errors.StorageError, match="File too large"):
            backend.write(offset, memoryview(b"xx"))
        with pytest.raises(errors.StorageError, match="File too large"):
            backend.zero(offset, 2)
        with pytest.raises(errors.StorageError, match="File too large"):
            backend.receive_from(Bytes(b"x" * 5000), offset, 5000, Progress())
        assert backend.size() == 0


@pytest.mark.storage
@needs_loop
def test_disk_that_fills_up(tmp_path):
    data = pattern(16 * MIB)
    with loop.mounted(tmp_path, "ext4", size=8 * MIB) as folder:
        (folder / "disk").touch()
        progress = Progress()
        with opened(str(folder / "disk")) as backend:
            with pytest.raises(errors.NoSpace) as e:
                backend.receive_from(Bytes(data), 0, len(data), progress)
            assert str(e.value) == "Storage failed to write: No space left on device"
            # What was counted is there.
            assert 0 < progress.total < 8 * MIB
            assert read(backend, 0, progress.total) == data[: progress.total]
            with pytest.raises(errors.NoSpace):
                backend.zero(0, len(data))


@pytest.mark.storage
@needs_loop
def test_device_that_ends(tmp_path):
    with loop.device(tmp_path / "backing", 2 * MIB) as path, opened(path) as backend:
        progress = Progress()
        with pytest.raises(errors.NoSpace):
            backend.receive_from(Bytes(pattern(4 * MIB)), 0, 4 * MIB, progress)
        assert progress.total == 2 * MIB


@pytest.mark.storage
@pytest.mark.skipif(not faulty.available(), reason="needs root, nbdfuse and nbdkit")
def test_io_errors(tmp_path):
    data = pattern(4 * MIB)
    with faulty.file(tmp_path) as disk, opened(disk.path) as backend:

        class FailingLater(Bytes):
            def readinto(self, view):
                if self._data.nbytes < 2 * MIB:
                    disk.fail()
                return super().readinto(view)

        progress = Progress()
        with pytest.raises(errors.StorageError, match="write: Input/output error") as e:
            backend.receive_from(FailingLater(data), 0, len(data), progress)
        assert disk.path not in str(e.value)
        sink = Collector()
        with pytest.raises(errors.StorageError, match="read: Input/output error"):
            backend.send_to(sink, 0, len(data), Progress())
        assert sink.data == b""
        # The backend survives, and what was counted is there.
        disk.mend()
        assert read(backend, 0, progress.total) == data[: progress.total]
        backend.receive_from(Bytes(data), 0, len(data), Progress())
        backend.flush()
        assert read(backend, 0, len(data)) == data


# Several writers


def test_uploads_at_once(path):
    """Ranges that begin and end anywhere are streamed at once."""
    size, count = 3 * MIB + 777, 4
    data = [pattern(size, seed=number) for number in range(count)]

    def upload(number):
        with opened(path) as backend:
            backend.receive_from(Bytes(data[number], step=70000), number * size, size, Progress())

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Path(path).read_bytes() == b"".join(data)
