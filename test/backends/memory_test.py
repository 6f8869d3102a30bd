"""The backend in memory."""

from __future__ import annotations

import pytest
from backends.contract import Contract, Disk

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent


class MemoryDisk(Disk):
    can_grow = True

    def __init__(self) -> None:
        self._data = bytearray()

    def open(self, *, writable: bool = True, sparse: bool = False) -> MemoryBackend:
        return MemoryBackend(self._data, writable=writable)

    def content(self) -> bytes:
        return bytes(self._data)

    def fill(self, data: bytes) -> None:
        self._data[:] = data


class TestContract(Contract):
    @pytest.fixture
    def disk(self) -> MemoryDisk:
        return MemoryDisk()


def test_bytes_are_copied() -> None:
    data = b"data"
    backend = MemoryBackend(data)
    backend.write(0, memoryview(b"DATA"))
    assert data == b"data"


def test_limits() -> None:
    backend = MemoryBackend(b"", max_connections=4)
    assert (backend.max_readers, backend.max_writers) == (4, 1)
    assert backend.block_size == 1


def test_empty_disk_has_no_extents() -> None:
    assert list(MemoryBackend(b"").extents()) == []


def test_dirty_is_unsupported_unless_given() -> None:
    with pytest.raises(errors.UnsupportedContext):
        MemoryBackend(b"x").extents("dirty")


def test_given_extents() -> None:
    zero = [ZeroExtent(0, 10, True, True), ZeroExtent(10, 5, False, False), ZeroExtent(15, 5, False, False)]
    dirty = [DirtyExtent(0, 20, True, False)]
    backend = MemoryBackend(bytes(20), extents={"zero": zero, "dirty": dirty})
    assert list(backend.extents()) == [zero[0], ZeroExtent(10, 10, False, False)]
    assert list(backend.extents("zero", 5, 7)) == [ZeroExtent(5, 5, True, True), ZeroExtent(10, 2, False, False)]
    assert list(backend.extents("dirty", 19, 1)) == [DirtyExtent(19, 1, True, False)]
