"""A client that is attached is accounted for like one that asks request by request."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.nbd.wire import Command, ExportFlag
from ovirt_imageio.net.stream import Data, Stream
from ovirt_imageio.ops.attach import Attach, make_offer


class Silent:
    """A channel of a client that leaves at once, or sends what it is given."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def wait(self, view: memoryview) -> int:
        return self.readinto(view)

    def readinto(self, view: memoryview) -> int:
        part, self.data = self.data[: len(view)], self.data[len(view) :]
        view[: len(part)] = part
        return len(part)

    def send_parts(self, parts: Sequence[Data]) -> None:
        pass

    @property
    def stream(self) -> Stream:
        raise AssertionError("the bytes themselves are not needed")


def make(data: bytes = b"", is_writable: bool = True) -> Attach:
    disk = MemoryBackend(bytearray(4096))
    disk.writes = UnflushedWrites()
    return Attach(disk, Silent(data), make_offer(disk, 4096, [""], is_writable=is_writable))


def test_ranges_are_told_once():
    attach = make()
    attach.begin(Command.READ, 512, 1024)
    attach.moved(512)
    attach.moved(512)
    attach.end(None)
    attach.begin(Command.WRITE, 0, 512)
    attach.moved(512)
    attach.end(None)
    assert attach.done == 1536
    assert list(attach.moved_since(0)) == [(512, 1024), (1024, 1536), (0, 512)]
    assert list(attach.moved_since(1536)) == []


def test_what_moves_nothing_is_not_counted():
    attach = make()
    attach.begin(Command.BLOCK_STATUS, 0, 4096)
    attach.moved(4096)
    attach.end(None)
    assert attach.done == 0


def test_a_change_is_told_apart():
    attach = make()
    assert attach.is_change and not attach.is_changing
    for command in (Command.WRITE, Command.WRITE_ZEROES, Command.FLUSH):
        attach.begin(command, 0, 512)
        assert attach.is_changing
        attach.end(None)
        assert not attach.is_changing
    attach.begin(Command.READ, 0, 512)
    assert not attach.is_changing
    assert not make(is_writable=False).is_change


def test_requests_that_passed():
    attach = make()
    attach.under_way(True)
    assert attach.is_changing
    attach.passed(Command.WRITE, 0, 512)
    attach.passed(Command.READ, 1024, 512)
    attach.passed(Command.BLOCK_STATUS, 0, 4096)
    attach.under_way(False)
    assert not attach.is_changing
    assert attach.done == 1024
    assert list(attach.moved_since(0)) == [(0, 512), (1024, 1536)]
    attach.cancel()
    attach.under_way(True)
    with pytest.raises(errors.OperationCanceled):
        attach.under_way(False)


def test_directions_are_counted_apart():
    attach = make()
    attach.begin(Command.READ, 0, 512)
    attach.moved(512)
    attach.end(None)
    attach.passed(Command.WRITE, 0, 1024)
    attach.passed(Command.WRITE_ZEROES, 0, 2048)
    assert dict(attach.counts_between(0, 3584)) == {"read": 512, "write": 1024, "zero": 2048}
    attach.passed(Command.READ, 0, 1)
    assert dict(attach.counts_between(3584, 3585)) == {"read": 1}


def test_writes_that_passed_are_in_danger_until_they_are_flushed():
    attach = make()
    writes = attach._backend.writes
    attach.under_way(True)
    attach.passed(Command.READ, 0, 512)
    assert writes.is_empty
    attach.passed(Command.WRITE, 0, 512)
    attach.passed(Command.FLUSH, 0, 0)
    # It may have been sent before the write was done.
    assert not writes.is_empty
    attach.under_way(False)
    attach.under_way(True)
    attach.passed(Command.FLUSH, 0, 0)
    assert writes.is_empty
    attach.passed(Command.WRITE_ZEROES, 0, 512)
    assert not writes.is_empty


def test_cancel():
    attach = make()
    attach.begin(Command.READ, 0, 1024)
    attach.cancel()
    with pytest.raises(errors.OperationCanceled):
        attach.moved(512)
    with pytest.raises(errors.OperationCanceled):
        attach.begin(Command.READ, 0, 512)


def test_a_change_that_has_begun_is_ended():
    attach = make()
    attach.begin(Command.WRITE, 0, 1024)
    attach.cancel()
    attach.moved(1024)
    attach.end(None)
    assert attach.done == 1024


def test_a_change_counts_when_it_is_stored():
    attach = make()
    attach.begin(Command.WRITE, 0, 2048)
    attach.moved(2048)
    assert list(attach.moved_since(0)) == []
    attach.moved(-1024)
    attach.end(errors.NoSpace("write", "it is full"))
    assert list(attach.moved_since(0)) == [(0, 1024)]
    assert attach.done == 1024


def test_a_client_that_breaks_the_protocol():
    with pytest.raises(errors.BrokenProtocol, match="GET / HT"):
        make(bytes(3) + b"\3" + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").run()


def test_ranges_are_told_while_they_are_made():
    """One thread moves, another one asks: nothing is lost, and nothing is told twice."""
    attach = make()
    count = 20000

    def move() -> None:
        for number in range(count):
            attach.begin(Command.READ, number, 1)
            attach.moved(1)

    thread = threading.Thread(target=move)
    thread.start()
    found: list[tuple[int, int]] = []
    while thread.is_alive():
        found += attach.moved_since(0)
    thread.join()
    found += attach.moved_since(0)
    assert found == [(number, number + 1) for number in range(count)]


def test_offer():
    disk = MemoryBackend(bytearray(4096))
    offer = make_offer(disk, 1000, ["", "secret"], is_writable=False)
    assert offer.size == 1000
    assert offer.flags & ExportFlag.READ_ONLY
    # Readers are many, a writer of this disk is alone.
    assert offer.flags & ExportFlag.CAN_MULTI_CONN
    assert offer.contexts == {0: "base:allocation", 1: "qemu:allocation-depth"}
    assert "secret" not in repr(offer)
    assert offer.can_extend
    disk.can_extend = False
    assert not make_offer(disk, 1000, [""], is_writable=False).can_extend
    disk.contexts = {0: "base:allocation", 3: "qemu:dirty-bitmap:one"}
    offer = make_offer(disk, 4096, [""], is_writable=True)
    assert not offer.flags & (ExportFlag.READ_ONLY | ExportFlag.CAN_MULTI_CONN)
    assert offer.flags & ExportFlag.SEND_WRITE_ZEROES
    assert offer.contexts == disk.contexts
