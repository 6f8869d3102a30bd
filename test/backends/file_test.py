"""The backend of files and block devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from backends.contract import SIZE, Contract, Disk

from ovirt_imageio.backends.file import FileBackend


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
    """The beginning of a block device; its size is what it is, so that it can only be looked at in part."""

    can_grow = False
    granularity = 4096

    def content(self) -> bytes:
        with open(self.path, "rb") as f:
            return f.read(SIZE)


class TestFile(Contract):
    @pytest.fixture
    def disk(self, tmp_path: Path) -> FileDisk:
        return FileDisk(str(tmp_path / "disk"))
