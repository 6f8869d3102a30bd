"""Operations over a disk in memory: progress, cancel, and bodies of unknown length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.measure.clock import Clock
from ovirt_imageio.ops import operations
from ovirt_imageio.ops.operations import Extents

MiB = 1024**2


class Bytes:
    """A source and a sink in memory; reads are as short as `step`."""

    socket = None

    def __init__(self, data: bytes = b"", step: int = 2**30) -> None:
        self.data = bytearray(data)
        self.step = step
        self.on_write = lambda: None

    def readinto(self, view):
        part = self.data[: min(len(view), self.step)]
        view[: len(part)] = part
        del self.data[: len(part)]
        return len(part)

    def write(self, view):
        self.on_write()
        self.data += view

    def advance(self, count):
        raise AssertionError("there is no socket to take bytes from")


class Flushed(MemoryBackend):
    flushes = 0

    def flush(self):
        self.flushes += 1


@given(st.binary(max_size=100), st.data())
def test_read_sends_the_range(data, draw):
    offset = draw.draw(st.integers(0, len(data)))
    length = draw.draw(st.integers(0, len(data) - offset))
    sink = Bytes()
    operation = operations.Read(MemoryBackend(data), sink, offset, length)
    operation.run()
    assert sink.data == data[offset : offset + length]
    assert operation.done == length


def test_read_of_a_disk_that_ends_before():
    sink = Bytes()
    operation = operations.Read(MemoryBackend(b"abc"), sink, 1, 10)
    with pytest.raises(errors.PartialContent) as e:
        operation.run()
    assert (e.value.requested, e.value.available) == (10, 2)
    assert sink.data == b"bc"


@given(st.binary(min_size=1, max_size=100), st.integers(0, 50), st.integers(1, 7))
def test_write_takes_the_body_in_any_pieces(data, offset, step):
    disk = bytearray(b"x" * 200)
    operations.Write(MemoryBackend(disk), Bytes(data, step), offset, len(data)).run()
    assert disk == b"x" * offset + data + b"x" * (200 - offset - len(data))


@pytest.mark.parametrize("flush", [True, False])
def test_write_flushes_if_asked(flush):
    backend = Flushed(bytearray(10))
    operation = operations.Write(backend, Bytes(b"abc"), 0, 3, flush=flush)
    assert not operation.is_finishing
    operation.run()
    assert operation.is_finishing
    assert backend.flushes == int(flush)


def test_write_is_finishing_as_soon_as_its_source_has_ended():
    """Slow storage must not be held against a client that has sent everything."""
    source = Bytes(b"abc")
    source.is_consumed = False
    operation = operations.Write(MemoryBackend(bytearray(10)), source, 0, 3)
    assert not operation.is_finishing
    source.is_consumed = True
    assert operation.is_finishing


def test_parts_are_timed():
    write = operations.Write(Flushed(bytearray(10)), Bytes(b"abc"), 0, 3)
    zero = operations.Zero(Flushed(bytearray(10)), 0, 10, flush=True)
    write.clock = zero.clock = Clock()
    write.run()
    zero.run()
    names = [group.split()[0] for group in str(zero.clock).split("[")[1:]]
    assert names == ["write.flush", "zero.zero", "zero.flush"]


def test_a_short_body_is_written_as_far_as_it_came_and_not_flushed():
    disk = bytearray(b"." * 10)
    backend = Flushed(disk)
    operation = operations.Write(backend, Bytes(b"abc"), 2, 5)
    with pytest.raises(errors.PartialContent) as e:
        operation.run()
    assert (e.value.requested, e.value.available) == (5, 3)
    assert disk == b"..abc....."
    assert operation.done == 3
    assert backend.flushes == 0


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_write_all_writes_until_the_end(size):
    disk = bytearray(b"." * 12)
    backend = Flushed(disk)
    operation = operations.WriteAll(backend, Bytes(b"a" * size, step=4), 2, 10)
    operation.run()
    assert disk == b".." + b"a" * size + b"." * (10 - size)
    assert operation.done == size
    assert backend.flushes == 1


def test_write_all_refuses_what_does_not_fit():
    disk = bytearray(b"." * 4)
    with pytest.raises(errors.RangeNotSatisfiable) as e:
        operations.WriteAll(MemoryBackend(disk), Bytes(b"a" * 5), 0, 4).run()
    assert e.value.available == 4
    assert disk == b"aaaa"


def test_zero_goes_in_steps():
    class Stepped(MemoryBackend):
        zero_step = 3
        steps: list[tuple[int, int]] = []  # noqa: RUF012

        def zero(self, offset, length):
            self.steps.append((offset, length))
            super().zero(offset, length)

    disk = bytearray(b"x" * 10)
    backend = Stepped(disk)
    operation = operations.Zero(backend, 1, 8)
    operation.run()
    assert disk == b"x" + bytes(8) + b"x"
    assert backend.steps == [(1, 3), (4, 3), (7, 2)]
    assert operation.done == 8


def test_zero_of_nothing():
    disk = bytearray(b"x")
    operations.Zero(MemoryBackend(disk), 1, 0).run()
    assert disk == b"x"


def test_cancel_stops_at_the_next_step():
    disk = bytes(3 * MiB)
    sink = Bytes()
    operation = operations.Read(MemoryBackend(disk), sink, 0, len(disk))
    sink.on_write = operation.cancel
    with pytest.raises(errors.OperationCanceled):
        operation.run()
    assert len(sink.data) == operation.done == MiB


def test_cancel_during_a_write_leaves_what_was_written_counted():
    disk = bytearray(3 * MiB)
    source = Bytes(b"a" * (3 * MiB))
    operation = operations.Write(MemoryBackend(disk), source, 0, 3 * MiB)
    operation.cancel()
    with pytest.raises(errors.OperationCanceled):
        operation.run()
    assert disk.count(b"a") == operation.done


def disk_of(count: int) -> MemoryBackend:
    extents = [ZeroExtent(i, 1, i % 2 == 0, False) for i in range(count)]
    return MemoryBackend(bytearray(count), extents={"zero": extents})


@pytest.mark.parametrize("count", [0, 1, Extents.BATCH, Extents.BATCH + 1, 3 * Extents.BATCH])
def test_extents_come_in_batches_after_an_empty_one(count):
    batches: list[list[ZeroExtent]] = []
    operation = Extents(disk_of(count), batches.append)
    operation.run()
    assert batches[0] == []
    assert [extent.start for batch in batches for extent in batch] == list(range(count))
    assert all(0 < len(batch) <= Extents.BATCH for batch in batches[1:])
    assert operation.done == count


def test_a_page_of_extents():
    batches: list[list[ZeroExtent]] = []
    Extents(disk_of(100), batches.append, offset=10, length=80, limit=5).run()
    assert [extent.start for batch in batches for extent in batch] == [10, 11, 12, 13, 14]


def test_extents_that_the_disk_does_not_have_start_no_answer():
    batches: list[list[ZeroExtent]] = []
    with pytest.raises(errors.UnsupportedContext):
        Extents(disk_of(1), batches.append, context="dirty").run()
    assert batches == []


def test_extents_can_be_canceled():
    operation = Extents(disk_of(3 * Extents.BATCH), lambda batch: operation.cancel() if batch else None)
    with pytest.raises(errors.OperationCanceled):
        operation.run()
    assert operation.done == Extents.BATCH


def test_an_operation_describes_itself():
    assert str(operations.Zero(MemoryBackend(bytearray(9)), 2, 5)) == "zero of 5 bytes at 2, 0 done"


class Nowhere:
    """A sink that nothing reaches."""

    socket = None

    def write(self, view: memoryview) -> None:
        raise AssertionError

    def advance(self, count: int) -> None:
        raise AssertionError


NOWHERE = Nowhere()


def test_what_changes_a_disk():
    """Cut in the middle it leaves that half written: such operations have a grace."""
    disk = disk_of(1)
    source = Bytes(b"")
    changes = [operations.Write(disk, source, 0, 0), operations.Zero(disk, 0, 0), operations.Flush(disk)]
    assert all(operation.is_change and operation.is_changing for operation in changes)
    others = [operations.Read(disk, NOWHERE, 0, 0), Extents(disk, lambda batch: None)]
    assert not any(operation.is_change or operation.is_changing for operation in others)
    # Only a read has begun to answer when it is cut.
    assert [operation.is_answering for operation in (*changes, *others)] == [False, False, False, True, False]


def test_moved_since():
    read = operations.Read(disk_of(1), NOWHERE, 1000, 500)
    read.done = 300
    assert list(read.moved_since(100)) == [(1100, 1300)]
