"""The backend that keeps nothing."""

from __future__ import annotations

import pytest
from backends.contract import SIZE, Contract, Disk

from ovirt_imageio.backends.null import NullBackend
from ovirt_imageio.geometry.extent import ZeroExtent


class NullDisk(Disk):
    keeps_data = False

    def open(self, *, writable: bool = True, sparse: bool = False) -> NullBackend:
        return NullBackend(SIZE)

    def content(self) -> bytes:
        return bytes(SIZE)

    def fill(self, data: bytes) -> None:
        pass


class TestContract(Contract):
    @pytest.fixture
    def disk(self) -> NullDisk:
        return NullDisk()


def test_what_is_read_was_overwritten() -> None:
    view = memoryview(bytearray(b"x" * 100))
    assert NullBackend(70).readinto(0, view) == 70
    assert bytes(view) == bytes(70) + b"x" * 30


def test_extents() -> None:
    assert list(NullBackend(0).extents()) == []
    assert list(NullBackend(1 << 40).extents()) == [ZeroExtent(0, 1 << 40, True, False)]
    assert list(NullBackend(100).extents("zero", 10, 20)) == [ZeroExtent(10, 20, True, False)]


def test_limits() -> None:
    assert NullBackend(max_connections=4).max_writers == 4
