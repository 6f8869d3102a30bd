"""The backend of files and block devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends.contract import SIZE, Contract, Disk
from real import loop
from real.storage import Storage

from ovirt_imageio.backends.file import FileBackend
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


@needs_loop
class TestDevices(Contract):
    @pytest.fixture(params=[512, 4096])
    def disk(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DeviceDisk]:
        size = SIZE - SIZE % request.param
        with loop.device(tmp_path / "backing", size, request.param) as path:
            yield DeviceDisk(path, request.param)
