"""The nbd backend keeps the promises of every backend, on real qemu-nbd servers and on servers that misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backends.contract import Contract, Disk

from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.nbd.server import Server

pytestmark = pytest.mark.storage


class NBDDisk(Disk):
    """A raw file behind qemu-nbd, which serves it as it finds it when the first backend is opened."""

    granularity = 512

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server = Server(str(path), "raw", cache="writeback", aio="threads")
        self._is_running = False

    def open(self, *, writable: bool = True, sparse: bool = False) -> NBDBackend:
        if not self._is_running:
            self._server.start()
            self._is_running = True
        return NBDBackend(self._server.url, writable=writable, sparse=sparse)

    def content(self) -> bytes:
        return self._path.read_bytes()

    def fill(self, data: bytes) -> None:
        self._path.write_bytes(data)

    def stop(self) -> None:
        self._server.stop()


class TestNBD(Contract):
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[NBDDisk]:
        disk = NBDDisk(tmp_path / "disk")
        yield disk
        disk.stop()
