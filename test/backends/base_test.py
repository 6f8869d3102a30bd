"""The plain loops that every backend inherits."""

from __future__ import annotations

import pytest
from backends.contract import Bytes, Collector, Progress, pattern

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.relay.buffers import SLOT


class Short(Backend):
    """A disk whose reads are short."""

    name = "short"

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def size(self) -> int:
        return len(self.data)

    def readinto(self, offset: int, view: memoryview) -> int:
        data = self.data[offset : offset + min(len(view), 1000)]
        view[: len(data)] = data
        return len(data)

    def write(self, offset: int, view: memoryview) -> None:
        self.data[offset : offset + len(view)] = view

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, memoryview(bytes(length)))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_send_copes_with_short_reads() -> None:
    backend = Short(pattern(5500))
    sink, progress = Collector(), Progress()
    backend.send_to(sink, 100, 5000, progress)
    assert sink.data == backend.data[100:5100]
    assert progress.total == 5000


def test_send_that_ends_early() -> None:
    with pytest.raises(errors.PartialContent):
        Short(pattern(5500)).send_to(Collector(), 1000, 5000, Progress())


def test_receive_fills_whole_pieces() -> None:
    backend, progress = Short(b""), Progress()
    data = pattern(SLOT + 5)
    backend.receive_from(Bytes(data, step=10000), 0, len(data), progress)
    assert backend.data == data
    assert progress.calls == [SLOT, 5]


def test_default_extents() -> None:
    assert list(Short(b"12345").extents()) == [ZeroExtent(0, 5, False, False)]
    assert list(Short(b"12345").extents(offset=2, length=2)) == [ZeroExtent(2, 2, False, False)]
    assert list(Short(b"").extents()) == []
    with pytest.raises(errors.UnsupportedContext):
        Short(b"").extents("dirty")


def test_interrupt_leaves_a_backend_that_does_not_block_usable() -> None:
    backend = Short(b"12345")
    backend.interrupt()
    sink = Collector()
    backend.send_to(sink, 0, 5, Progress())
    assert sink.data == b"12345"
