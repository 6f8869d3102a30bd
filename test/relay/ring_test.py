"""Read-ahead and write-behind: both sides work at once, and both end when one does."""

from __future__ import annotations

import itertools
import threading

import pytest
from backends.contract import Bytes, Collector, Progress, pattern
from fakes.waiting import DEADLINE

from ovirt_imageio import relay


def test_one_piece_needs_no_thread():
    threads = []

    def read(slot, offset, length):
        threads.append(threading.current_thread())
        return slot[:length]

    def write(offset, view):
        threads.append(threading.current_thread())

    assert relay.read_ahead(read, pieces(STEP), slots(), Collector(), Progress()) == STEP
    assert relay.write_behind(write, pieces(STEP), slots(), Bytes(bytes(STEP)), Progress()) == STEP
    assert threads == [threading.current_thread()] * 2


# Progress in order


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_tally(order):
    told = []
    tally = relay.Tally(told.append)
    ended = set()
    for number in order:
        tally.add(number, 10**number)
        ended.add(number)
        first_gap = next(number for number in range(5) if number not in ended)
        assert told == [10**number for number in range(first_gap)]
        assert tally.total == sum(told)


def test_tally_passes_on_what_progress_raises():
    progress = Progress(1, RuntimeError("stop"))
    tally = relay.Tally(progress)
    for number in range(2):
        with pytest.raises(RuntimeError, match="stop"):
            tally.add(number, 1)
    assert progress.calls == [1]


# Read-ahead and write-behind

STEP = 1000


def slots(count=2):
    return [memoryview(bytearray(STEP)) for _ in range(count)]


def pieces(length):
    return [(start, min(STEP, length - start)) for start in range(0, length, STEP)]


class Storage:
    """Bytes that are read and written in pieces; a call for the piece at `broken` fails with `error`."""

    def __init__(self, data=b"", broken=None, error=None):
        self.data = bytearray(data)
        self.calls = []
        self._broken = broken
        self._error = error
        self._lock = threading.Lock()

    def read(self, slot, offset, length):
        self._call(offset)
        data = self.data[offset : offset + length]
        slot[: len(data)] = data
        return slot[: len(data)]

    def write(self, offset, view):
        self._call(offset)
        with self._lock:
            self.data.extend(bytes(max(0, offset - len(self.data))))
            self.data[offset : offset + len(view)] = view

    def _call(self, offset):
        self.calls.append(offset)
        if offset == self._broken:
            raise self._error


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, STEP, STEP + 1, 10 * STEP])
def test_read_ahead(length, count):
    storage, sink, progress = Storage(pattern(10 * STEP)), Collector(), Progress()
    assert relay.read_ahead(storage.read, pieces(length), slots(count), sink, progress) == length
    assert sink.data == storage.data[:length]
    assert progress.total == length


def test_reads_run_ahead():
    class Sink(Collector):
        def write(self, view):
            # While the first piece is sent, others are read: as many as there are slots.
            assert ahead.wait(DEADLINE)
            super().write(view)

    ahead = threading.Event()
    storage = Storage(pattern(4 * STEP))

    def read(slot, offset, length):
        if offset == 2 * STEP:
            ahead.set()
        return storage.read(slot, offset, length)

    relay.read_ahead(read, pieces(4 * STEP), slots(3), Sink(), Progress())


@pytest.mark.parametrize("available", [0, 1, STEP, 2 * STEP + 1])
def test_read_ahead_ends_early(available):
    storage, sink, progress = Storage(pattern(available)), Collector(), Progress()
    assert relay.read_ahead(storage.read, pieces(5 * STEP), slots(), sink, progress) == available
    assert sink.data == storage.data
    assert progress.total == available


def test_read_fails():
    storage = Storage(pattern(5 * STEP), broken=2 * STEP, error=OSError("broken"))
    sink, progress = Collector(), Progress()
    with pytest.raises(OSError, match="broken"):
        relay.read_ahead(storage.read, pieces(5 * STEP), slots(), sink, progress)
    # What was read before is sent.
    assert sink.data == storage.data[: 2 * STEP]
    assert progress.total == 2 * STEP
    assert max(storage.calls) <= 3 * STEP


def test_sink_fails():
    sink = Collector(limit=2 * STEP, error=ConnectionResetError("gone"))
    progress = Progress()
    with pytest.raises(ConnectionResetError, match="gone"):
        relay.read_ahead(Storage(pattern(9 * STEP)).read, pieces(9 * STEP), slots(), sink, progress)
    assert progress.total == 2 * STEP


def test_progress_stops_reading():
    storage = Storage(pattern(9 * STEP))
    with pytest.raises(RuntimeError, match="stop"):
        relay.read_ahead(storage.read, pieces(9 * STEP), slots(), Collector(), Progress(1, RuntimeError("stop")))
    assert len(storage.calls) <= 3


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, STEP, STEP + 1, 10 * STEP])
def test_write_behind(length, count):
    data = pattern(length)
    storage, progress = Storage(), Progress()
    source = Bytes(data, step=300)
    assert relay.write_behind(storage.write, pieces(length), slots(count), source, progress) == length
    assert storage.data == data
    assert progress.total == length


def test_writes_run_behind():
    class Source(Bytes):
        asked = 0

        def readinto(self, view):
            self.asked += 1
            if self.asked == 2:
                # The second piece comes while the first is not written yet.
                arrived.set()
            return super().readinto(view)

    arrived = threading.Event()
    storage = Storage()

    def write(offset, view):
        assert arrived.wait(DEADLINE)
        storage.write(offset, view)

    data = pattern(4 * STEP)
    relay.write_behind(write, pieces(len(data)), slots(), Source(data), Progress())
    assert storage.data == data


def test_progress_is_told_while_the_source_stands_still():
    class Source(Bytes):
        def readinto(self, view):
            if not self._data:
                assert written.wait(DEADLINE)
            return super().readinto(view)

    written = threading.Event()
    with_progress = []

    def progress(count):
        with_progress.append(count)
        written.set()

    relay.write_behind(Storage().write, pieces(5 * STEP), slots(3), Source(pattern(STEP)), progress)
    assert with_progress == [STEP]


def test_place():
    """A piece may lie anywhere in its slot."""
    storage = Storage()
    data = pattern(2 * STEP)

    def place(slot, offset, length):
        assert length == STEP // 2
        return slot[100 : 100 + length]

    lent = slots()
    source = Bytes(data[: STEP // 2])
    relay.write_behind(storage.write, [(0, STEP // 2)], lent, source, Progress(), place)
    assert bytes(lent[0][100 : 100 + STEP // 2]) == storage.data == data[: STEP // 2]


@pytest.mark.parametrize("available", [0, 1, STEP, 2 * STEP + 1])
def test_source_ends_early(available):
    data = pattern(available)
    storage, progress = Storage(), Progress()
    assert relay.write_behind(storage.write, pieces(5 * STEP), slots(), Bytes(data), progress) == available
    assert storage.data == data
    assert progress.total == available


def test_source_fails():
    """What came before it failed is written, and told."""
    data = pattern(5 * STEP)
    storage, progress = Storage(), Progress()
    source = Bytes(data, limit=2 * STEP, error=ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError, match="gone"):
        relay.write_behind(storage.write, pieces(5 * STEP), slots(), source, progress)
    assert storage.data == data[: 2 * STEP]
    assert progress.total == 2 * STEP


@pytest.mark.parametrize("broken", [0, 2 * STEP, 4 * STEP])
def test_write_fails(broken):
    storage = Storage(broken=broken, error=OSError("full"))
    progress = Progress()
    with pytest.raises(OSError, match="full"):
        relay.write_behind(storage.write, pieces(5 * STEP), slots(), Bytes(pattern(5 * STEP)), progress)
    # Little behind the hole is written, and nothing of that is told.
    assert max(storage.calls) <= broken + STEP
    assert progress.total == broken


def test_both_fail():
    """The disk's error is the one to report: it is why the data is not there."""
    storage = Storage(broken=0, error=OSError("full"))
    source = Bytes(pattern(STEP), error=ConnectionResetError("gone"))
    with pytest.raises(OSError, match="full"):
        relay.write_behind(storage.write, pieces(5 * STEP), slots(), source, Progress())


def test_progress_stops_writing():
    storage = Storage()
    with pytest.raises(RuntimeError, match="stop"):
        relay.write_behind(
            storage.write, pieces(9 * STEP), slots(), Bytes(pattern(9 * STEP)), Progress(1, RuntimeError("stop"))
        )
    assert max(storage.calls) <= STEP


def test_progress_has_no_gap():
    """The second piece is written first; that is told only when the first is written, too."""
    storage, told = Storage(), []
    second = threading.Event()

    def write(offset, view):
        if offset == 0:
            assert second.wait(DEADLINE)
            assert told == []
        storage.write(offset, view)
        if offset == STEP:
            second.set()

    data = pattern(2 * STEP + 1)
    assert relay.write_behind(write, pieces(len(data)), slots(3), Bytes(data), told.append) == len(data)
    assert storage.data == data
    assert told == [STEP, STEP, 1]
