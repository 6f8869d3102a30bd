"""What every backend promises, as tests: each backend's test module derives a class from `Contract`.

    class TestMemory(Contract):
        @pytest.fixture
        def disk(self):
            yield MemoryDisk()

`disk` is a `Disk`: it opens backends on one and the same storage, and looks at that storage by other means.
"""

from __future__ import annotations

import abc
import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Optional

import pytest
from fakes.plainsocket import PlainSink, PlainSource

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.geometry.extent import ZeroExtent

KIB = 1024
MIB = 1024 * KIB

# What a disk holds when a test begins; not a multiple of anything that matters, where the storage allows.
SIZE = 3 * MIB + 5 * KIB

# Ranges around the blocks of 512 and 4096 bytes and the pieces of 1 MiB.
RANGES = [
    (0, 1),
    (0, 512),
    (1, 511),
    (511, 2),
    (513, 4096),
    (4095, 4098),
    (4096, 4096),
    (100, 3000),
    (0, MIB),
    (MIB - 1, 2),
    (MIB - 512, MIB + 1024),
    (12345, 2 * MIB),
]


class Disk(abc.ABC):
    """Some storage under test."""

    # Can a write beyond the end grow it, or is its size fixed?
    can_grow = False
    # Does it keep what is written?
    keeps_data = True
    # What its size is a multiple of.
    granularity = 1

    @abc.abstractmethod
    def open(self, *, writable: bool = True, sparse: bool = False) -> Backend:
        """Open it once more."""

    @abc.abstractmethod
    def content(self) -> bytes:
        """Return all of it, by other means than a backend."""

    @abc.abstractmethod
    def fill(self, data: bytes) -> None:
        """Make `data` its content, by other means than a backend."""


class Bytes:
    """A source of bytes, at most `step` at a time, which fails with `error` after `limit` of them."""

    socket = None

    def __init__(
        self, data: bytes, step: int = MIB, limit: Optional[int] = None, error: Optional[BaseException] = None
    ) -> None:
        self._data = memoryview(data)[:limit]
        self._step = step
        self._error = error

    def readinto(self, view: memoryview) -> int:
        count = min(len(view), self._step, len(self._data))
        if count == 0 and self._error is not None:
            raise self._error
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count

    def advance(self, count: int) -> None:
        raise AssertionError("there is no socket")


class Collector:
    """A sink that keeps what it gets, and fails with `error` once it has `limit` bytes."""

    socket = None

    def __init__(self, limit: Optional[int] = None, error: Optional[BaseException] = None) -> None:
        self.data = bytearray()
        self._limit = limit
        self._error = error

    def write(self, view: memoryview) -> None:
        if self._error is not None and self._limit is not None and len(self.data) + len(view) > self._limit:
            raise self._error
        self.data += view

    def advance(self, count: int) -> None:
        raise AssertionError("there is no socket")


class Progress:
    """Counts what it is told, and fails with `error` once that is `limit` bytes."""

    def __init__(self, limit: Optional[int] = None, error: Optional[BaseException] = None) -> None:
        self.calls: list[int] = []
        self._limit = limit
        self._error = error

    def __call__(self, count: int) -> None:
        self.calls.append(count)
        if self._error is not None and self._limit is not None and self.total >= self._limit:
            raise self._error

    @property
    def total(self) -> int:
        return sum(self.calls)


def pattern(length: int, seed: int = 0) -> bytes:
    """Return bytes in which every sector differs from its neighbours, and none is zero."""
    return random.Random(seed).randbytes(length).replace(b"\0", b"\1")


def read(backend: Backend, offset: int, length: int) -> bytes:
    """Return what readinto gives."""
    view = memoryview(bytearray(length))
    return bytes(view[: backend.readinto(offset, view)])


class Contract:
    """The tests; `disk` is a fixture of the class that derives."""

    @pytest.fixture
    def data(self, disk: Disk) -> bytes:
        """What the disk holds."""
        data = pattern(SIZE - SIZE % disk.granularity)
        if not disk.keeps_data:
            return bytes(len(data))
        disk.fill(data)
        return data

    @pytest.fixture
    def backend(self, disk: Disk, data: bytes) -> Iterator[Backend]:
        with contextlib.closing(disk.open()) as backend:
            yield backend

    def check(self, disk: Disk, expected: bytes) -> None:
        """The disk holds `expected`, and nothing more."""
        if disk.keeps_data:
            assert disk.content() == expected

    # Attributes

    def test_attributes(self, disk: Disk, backend: Backend) -> None:
        assert backend.name
        assert backend.block_size >= 1
        assert backend.max_readers >= 1
        assert backend.max_writers >= 1
        assert backend.zero_step >= backend.block_size

    def test_size(self, backend: Backend, data: bytes) -> None:
        assert backend.size() == len(data)

    # Read

    @pytest.mark.parametrize("offset,length", RANGES)
    def test_read(self, backend: Backend, data: bytes, offset: int, length: int) -> None:
        assert read(backend, offset, length) == data[offset : offset + length]

    def test_read_at_the_end(self, backend: Backend, data: bytes) -> None:
        assert read(backend, len(data) - 10, 100) == data[-10:]

    @pytest.mark.parametrize("beyond", [0, 1, 512, 10**6])
    def test_read_beyond_the_end(self, backend: Backend, data: bytes, beyond: int) -> None:
        assert read(backend, len(data) + beyond, 100) == b""

    def test_read_nothing(self, backend: Backend) -> None:
        assert read(backend, 0, 0) == b""

    # Write

    @pytest.mark.parametrize("offset,length", RANGES)
    def test_write(self, disk: Disk, backend: Backend, data: bytes, offset: int, length: int) -> None:
        new = pattern(length, seed=1)
        backend.write(offset, memoryview(new))
        backend.flush()
        self.check(disk, data[:offset] + new + data[offset + length :])
        assert backend.size() == len(data)

    def test_write_nothing(self, disk: Disk, backend: Backend, data: bytes) -> None:
        backend.write(100, memoryview(b""))
        self.check(disk, data)

    def test_write_the_last_bytes(self, disk: Disk, backend: Backend, data: bytes) -> None:
        backend.write(len(data) - 10, memoryview(b"x" * 10))
        backend.flush()
        self.check(disk, data[:-10] + b"x" * 10)
        assert backend.size() == len(data)

    @pytest.mark.parametrize("gap", [0, 1, 512, 10000])
    def test_write_beyond_the_end(self, disk: Disk, backend: Backend, data: bytes, gap: int) -> None:
        if not disk.can_grow:
            pytest.skip("cannot grow")
        backend.write(len(data) + gap, memoryview(b"x" * 1000))
        backend.flush()
        self.check(disk, data + bytes(gap) + b"x" * 1000)

    def test_write_read_only(self, disk: Disk, data: bytes) -> None:
        with contextlib.closing(disk.open(writable=False)) as backend:
            if not disk.keeps_data:
                pytest.skip("forgets everything anyway")
            with pytest.raises(errors.StorageError):
                backend.write(0, memoryview(b"x" * 4096))
            with pytest.raises(errors.StorageError):
                backend.zero(0, 4096)
            with pytest.raises(errors.StorageError):
                backend.zero_allocated(0, 4096)
        self.check(disk, data)

    # Zero

    @pytest.mark.parametrize("name,sparse", [("zero", True), ("zero", False), ("zero_allocated", True)])
    @pytest.mark.parametrize("offset,length", RANGES)
    def test_zero(self, disk: Disk, data: bytes, name: str, sparse: bool, offset: int, length: int) -> None:
        with contextlib.closing(disk.open(sparse=sparse)) as backend:
            getattr(backend, name)(offset, length)
            backend.flush()
            self.check(disk, data[:offset] + bytes(length) + data[offset + length :])
            assert backend.size() == len(data)

    @pytest.mark.parametrize("sparse", [True, False])
    def test_zero_nothing(self, disk: Disk, data: bytes, sparse: bool) -> None:
        with contextlib.closing(disk.open(sparse=sparse)) as backend:
            backend.zero(100, 0)
        self.check(disk, data)

    @pytest.mark.parametrize("sparse", [True, False])
    @pytest.mark.parametrize("offset,length", [(-1000, 5000), (0, 1), (0, 4096), (777, 100000)])
    def test_zero_beyond_the_end(self, disk: Disk, data: bytes, sparse: bool, offset: int, length: int) -> None:
        if not disk.can_grow:
            pytest.skip("cannot grow")
        start = len(data) + offset
        with contextlib.closing(disk.open(sparse=sparse)) as backend:
            backend.zero(start, length)
            backend.flush()
            assert backend.size() == start + length
        self.check(disk, data[:start].ljust(start + length, b"\0"))
        assert len(disk.content()) >= start + length

    # Flush

    def test_flush(self, backend: Backend) -> None:
        backend.flush()
        backend.write(0, memoryview(b"x"))
        backend.flush()

    # Extents

    def test_extents_cover_the_disk(self, backend: Backend, data: bytes) -> None:
        extents = list(backend.extents())
        assert extents[0].start == 0
        for extent, following in zip(extents, extents[1:]):
            assert extent.start + extent.length == following.start
            assert extent[2:] != following[2:]
        assert extents[-1].start + extents[-1].length == len(data)

    def test_extents_tell_no_lie(self, disk: Disk, backend: Backend, data: bytes) -> None:
        for extent in backend.extents():
            assert isinstance(extent, ZeroExtent)
            if extent.zero:
                assert not any(data[extent.start : extent.start + extent.length])

    @pytest.mark.parametrize("offset,length", RANGES)
    def test_extents_of_a_range(self, backend: Backend, offset: int, length: int) -> None:
        extents = list(backend.extents("zero", offset, length))
        assert extents[0].start == offset
        assert sum(extent.length for extent in extents) == length

    def test_extents_unknown_context(self, backend: Backend) -> None:
        with pytest.raises(errors.UnsupportedContext):
            backend.extents("color")

    # Streaming

    @pytest.mark.parametrize("offset,length", [*RANGES, (0, SIZE - 5 * KIB), (7, 0)])
    def test_send(self, backend: Backend, data: bytes, offset: int, length: int) -> None:
        sink, progress = Collector(), Progress()
        backend.send_to(sink, offset, length, progress)
        assert sink.data == data[offset : offset + length]
        assert progress.total == length
        assert max(progress.calls, default=0) <= MIB

    @pytest.mark.parametrize("step", [1000, 64 * KIB, MIB])
    @pytest.mark.parametrize("offset,length", [(0, 1), (100, 3000), (4096, 2 * MIB), (12345, 2 * MIB), (7, 0)])
    def test_receive(self, disk: Disk, backend: Backend, data: bytes, offset: int, length: int, step: int) -> None:
        new = pattern(length, seed=1)
        progress = Progress()
        backend.receive_from(Bytes(new, step), offset, length, progress)
        backend.flush()
        self.check(disk, data[:offset] + new + data[offset + length :])
        assert progress.total == length
        assert max(progress.calls, default=0) <= MIB

    def test_receive_takes_no_more(self, backend: Backend) -> None:
        source = Bytes(pattern(3000))
        backend.receive_from(source, 0, 1000, Progress())
        assert source.readinto(memoryview(bytearray(5000))) == 2000

    @pytest.mark.parametrize("offset,length", [*RANGES, (0, SIZE - 5 * KIB), (7, 0)])
    def test_send_to_a_socket(self, backend: Backend, data: bytes, offset: int, length: int) -> None:
        progress = Progress()
        with PlainSink() as sink:
            backend.send_to(sink, offset, length, progress)
            assert sink.received() == data[offset : offset + length]
        assert progress.total == length
        assert max(progress.calls, default=0) <= MIB

    @pytest.mark.parametrize("step", [1000, 64 * KIB, MIB])
    @pytest.mark.parametrize("offset,length", [(0, 1), (100, 3000), (4096, 2 * MIB), (12345, 2 * MIB), (7, 0)])
    def test_receive_from_a_socket(
        self, disk: Disk, backend: Backend, data: bytes, offset: int, length: int, step: int
    ) -> None:
        new = pattern(length, seed=1)
        progress = Progress()
        with PlainSource(new, step) as source:
            backend.receive_from(source, offset, length, progress)
        backend.flush()
        self.check(disk, data[:offset] + new + data[offset + length :])
        assert progress.total == length
        assert max(progress.calls, default=0) <= MIB

    def test_cancel_amid_a_socket(self, backend: Backend, data: bytes) -> None:
        progress = Progress(MIB, errors.OperationCanceled())
        with PlainSink() as sink, pytest.raises(errors.OperationCanceled):
            backend.send_to(sink, 0, SIZE - 5 * KIB, progress)
        assert progress.total < SIZE - 5 * KIB
        assert read(backend, 1000, 3000) == data[1000:4000]

    # Errors and cancel in the middle

    def test_send_beyond_the_end(self, backend: Backend, data: bytes) -> None:
        sink, progress = Collector(), Progress()
        with pytest.raises(errors.PartialContent) as e:
            backend.send_to(sink, len(data) - 1000, 5000, progress)
        assert (e.value.requested, e.value.available) == (5000, 1000)
        assert bytes(sink.data) == data[-1000:]
        assert progress.total == 1000

    @pytest.mark.parametrize("available", [0, 1000, MIB, MIB + 5000])
    def test_receive_too_little(self, disk: Disk, backend: Backend, data: bytes, available: int) -> None:
        new = pattern(available, seed=1)
        progress = Progress()
        with pytest.raises(errors.PartialContent) as e:
            backend.receive_from(Bytes(new), 100, 2 * MIB, progress)
        assert (e.value.requested, e.value.available) == (2 * MIB, available)
        assert progress.total == available
        self.check(disk, data[:100] + new + data[100 + available :])
        assert read(backend, 3 * MIB, 1000) == data[3 * MIB : 3 * MIB + 1000]

    @pytest.mark.parametrize("limit", [2 * MIB, 2 * MIB + 5])
    @pytest.mark.parametrize("available", [0, 1, 3000, MIB, MIB + 1, 2 * MIB])
    def test_receive_all(self, disk: Disk, backend: Backend, data: bytes, available: int, limit: int) -> None:
        new = pattern(available, seed=1)
        progress = Progress()
        assert backend.receive_all(Bytes(new, 100_000), 100, limit, progress) == available
        assert progress.total == available
        self.check(disk, data[:100] + new + data[100 + available :])
        assert read(backend, 3 * MIB, 1000) == data[3 * MIB : 3 * MIB + 1000]

    def test_receive_all_takes_no_more(self, backend: Backend) -> None:
        source = Bytes(pattern(2 * MIB + 10))
        assert backend.receive_all(source, 0, 2 * MIB, Progress()) == 2 * MIB
        assert source.readinto(memoryview(bytearray(5000))) == 10

    def test_sink_fails(self, backend: Backend, data: bytes) -> None:
        sink, progress = Collector(MIB + 1, ConnectionResetError("gone")), Progress()
        with pytest.raises(ConnectionResetError, match="gone"):
            backend.send_to(sink, 0, 3 * MIB, progress)
        assert sink.data == data[: len(sink.data)]
        assert progress.total <= MIB + 1
        assert read(backend, 5, 1000) == data[5:1005]

    def test_source_fails(self, disk: Disk, backend: Backend, data: bytes) -> None:
        new = pattern(3 * MIB, seed=1)
        progress = Progress()
        with pytest.raises(ConnectionResetError, match="gone"):
            backend.receive_from(Bytes(new, limit=MIB + 1, error=ConnectionResetError("gone")), 0, 3 * MIB, progress)
        assert progress.total <= MIB + 1
        if disk.keeps_data:
            assert disk.content()[: progress.total] == new[: progress.total]
        assert read(backend, 3 * MIB, 1000) == data[3 * MIB : 3 * MIB + 1000]

    def test_cancel_send(self, backend: Backend, data: bytes) -> None:
        sink, progress = Collector(), Progress(1, errors.OperationCanceled())
        with pytest.raises(errors.OperationCanceled):
            backend.send_to(sink, 0, 3 * MIB, progress)
        assert progress.total <= MIB
        assert read(backend, 5, 1000) == data[5:1005]

    def test_cancel_receive(self, backend: Backend, data: bytes) -> None:
        progress = Progress(1, errors.OperationCanceled())
        with pytest.raises(errors.OperationCanceled):
            backend.receive_from(Bytes(pattern(3 * MIB, seed=1)), 0, 3 * MIB, progress)
        assert progress.total <= MIB
        assert read(backend, 3 * MIB, 1000) == data[3 * MIB : 3 * MIB + 1000]

    # Several at once

    def test_two_readers(self, disk: Disk, data: bytes) -> None:
        with contextlib.closing(disk.open()) as first, contextlib.closing(disk.open()) as second:
            assert read(first, 10, 5000) == read(second, 10, 5000) == data[10:5010]

    def test_one_sees_what_the_other_wrote(self, disk: Disk, data: bytes) -> None:
        if not disk.keeps_data:
            pytest.skip("forgets everything anyway")
        with contextlib.closing(disk.open()) as first, contextlib.closing(disk.open(writable=False)) as second:
            assert read(second, 0, 4096) == data[:4096]
            first.write(50, memoryview(b"x" * 5000))
            first.flush()
            assert read(second, 0, 6000) == data[:50] + b"x" * 5000 + data[5050:6000]

    def test_writers_share_a_block(self, disk: Disk, data: bytes) -> None:
        """Writers of disjoint ranges do not harm each other, however close the ranges are."""
        with contextlib.ExitStack() as stack:
            backends = [stack.enter_context(contextlib.closing(disk.open())) for _ in range(3)]
            if not disk.keeps_data or backends[0].max_writers < len(backends):
                pytest.skip("one writer at most")
            size = 1000

            def work(number: int) -> None:
                for turn in range(20):
                    for place in range(4):
                        mine = memoryview(pattern(size, seed=100 * turn + number))
                        backends[number].write((place * len(backends) + number) * size, mine)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(len(backends))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            written = b"".join(pattern(size, seed=1900 + number) for number in range(len(backends)))
            self.check(disk, written * 4 + data[12 * size :])

    # The end

    def test_close(self, backend: Backend) -> None:
        backend.close()
        backend.close()

    @pytest.mark.parametrize(
        "use",
        [
            lambda backend: backend.size(),
            lambda backend: read(backend, 0, 10),
            lambda backend: backend.write(0, memoryview(b"x")),
            lambda backend: backend.zero(0, 10),
            lambda backend: backend.flush(),
            lambda backend: list(backend.extents()),
            lambda backend: backend.send_to(Collector(), 0, 10, Progress()),
            lambda backend: backend.receive_from(Bytes(b"x"), 0, 1, Progress()),
        ],
        ids=["size", "readinto", "write", "zero", "flush", "extents", "send_to", "receive_from"],
    )
    def test_use_after_close(self, backend: Backend, use) -> None:  # type: ignore[no-untyped-def]
        backend.close()
        with pytest.raises(errors.ClosedBackend):
            use(backend)

    def test_interrupt_is_harmless(self, backend: Backend, data: bytes) -> None:
        """Interrupting what does not run breaks nothing that must work: the backend may be closed."""
        backend.interrupt()
        backend.close()
