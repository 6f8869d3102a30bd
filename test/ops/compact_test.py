"""A disk in memory that is sent as a qcow2 image: what is read, what counts as moved, and cancel."""

from __future__ import annotations

import pytest

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.geometry.qcow2 import Qcow2Layout
from ovirt_imageio.ops.compact import ReadQcow2

CLUSTER = 64 * 1024
SIZE = 10 * CLUSTER + 100
EXTENTS = [
    ZeroExtent(0, 2 * CLUSTER, True, True),
    ZeroExtent(2 * CLUSTER, CLUSTER, False, False),
    ZeroExtent(3 * CLUSTER, 7 * CLUSTER, True, True),
    ZeroExtent(10 * CLUSTER, 100, False, False),
]
LAYOUT = Qcow2Layout(SIZE, EXTENTS)
DATA_START = LAYOUT.length - 2 * CLUSTER


class Sink:
    socket = None

    def __init__(self, on_write=lambda: None):
        self.data = bytearray()
        self.on_write = on_write

    def write(self, view):
        self.on_write()
        self.data += view


def disk():
    return MemoryBackend(b"\xdd" * SIZE)


def test_sends_the_image_and_counts_what_was_read():
    sink = Sink()
    operation = ReadQcow2(disk(), sink, LAYOUT, 0, LAYOUT.length)
    operation.run()
    assert operation.done == len(sink.data) == LAYOUT.length
    assert sink.data[DATA_START:] == b"\xdd" * (CLUSTER + 100) + bytes(CLUSTER - 100)
    assert list(operation.moved_since(0)) == [(2 * CLUSTER, 3 * CLUSTER), (10 * CLUSTER, SIZE)]
    assert list(operation.moved_since(DATA_START + 10)) == [(2 * CLUSTER + 10, 3 * CLUSTER), (10 * CLUSTER, SIZE)]
    assert list(operation.moved_since(operation.done)) == []


def test_sends_a_range():
    whole, part = Sink(), Sink()
    ReadQcow2(disk(), whole, LAYOUT, 0, LAYOUT.length).run()
    operation = ReadQcow2(disk(), part, LAYOUT, 100, DATA_START)
    operation.run()
    assert part.data == whole.data[100 : DATA_START + 100]
    assert list(operation.moved_since(0)) == [(2 * CLUSTER, 2 * CLUSTER + 100)]


def test_is_canceled_between_tables():
    sink = Sink(lambda: operation.cancel())
    operation = ReadQcow2(disk(), sink, LAYOUT, 0, LAYOUT.length)
    with pytest.raises(errors.OperationCanceled):
        operation.run()
    assert operation.done == CLUSTER
    assert list(operation.moved_since(0)) == []


def test_a_disk_that_became_shorter():
    operation = ReadQcow2(MemoryBackend(b"\xdd" * CLUSTER), Sink(), LAYOUT, 0, LAYOUT.length)
    with pytest.raises(errors.PartialContent):
        operation.run()
    assert operation.done == DATA_START


def test_says_what_it_is():
    assert str(ReadQcow2(disk(), Sink(), LAYOUT, 5, 10)) == "read of 10 bytes at 5, 0 done as qcow2"
