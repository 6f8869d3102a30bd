"""How bytes move between a source, slots and a sink."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading

import pytest
from backends.contract import Bytes, Collector, Progress, pattern

from ovirt_imageio import relay
from ovirt_imageio.relay import Pipe, Worker

DEADLINE = 10


def test_fill():
    view = memoryview(bytearray(10))
    assert relay.fill(Bytes(b"123456789012345", step=3), view) == 10
    assert bytes(view) == b"1234567890"
    assert relay.fill(Bytes(b"12345"), view) == 5
    assert relay.fill(Bytes(b""), view) == 0
    assert relay.fill(Bytes(b"12345"), view[:0]) == 0


# The worker


def test_worker_calls_in_order_in_another_thread():
    calls = []
    with Worker[int]("test") as worker:
        for number in range(100):
            worker.submit(lambda number=number: calls.append((number, threading.current_thread().name)) or number)
        assert [worker.result() for _ in range(100)] == list(range(100))
    assert calls == [(number, "test") for number in range(100)]


def test_worker_works_while_its_owner_does_something_else():
    begun, may_end = threading.Event(), threading.Event()
    with Worker[bool]("test") as worker:
        worker.submit(lambda: begun.set() or may_end.wait(DEADLINE))
        assert begun.wait(DEADLINE)
        may_end.set()
        assert worker.result()


def test_worker_stops_at_an_error():
    calls = []

    def fail():
        raise RuntimeError("failed")

    with Worker[None]("test") as worker:
        worker.submit(lambda: calls.append(1))
        worker.submit(fail)
        worker.submit(lambda: calls.append(2))
        worker.result()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="failed"):
                worker.result()
    assert calls == [1]


def test_worker_drops_what_was_not_begun():
    calls = []
    begun, may_end = threading.Event(), threading.Event()
    with pytest.raises(RuntimeError), Worker[object]("test") as worker:
        worker.submit(lambda: begun.set() or may_end.wait(DEADLINE))
        for number in range(10):
            worker.submit(lambda number=number: calls.append(number))
        assert begun.wait(DEADLINE)
        # It ends only after the with block has told it to stop.
        threading.Timer(0.01, may_end.set).start()
        raise RuntimeError
    assert calls == []


def test_worker_without_work_has_no_thread():
    with Worker[None]("test"):
        assert not any(thread.name == "test" for thread in threading.enumerate())


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


# The pipe

needs_splice = pytest.mark.skipif(not Pipe.is_supported, reason="Python has no splice()")


class Way:
    """A pipe between two socket pairs: the test writes to `source`, and reads from `sink`."""

    def __init__(self, timeout):
        self.source, self.entry = socket.socketpair()
        self.exit, self.sink = socket.socketpair()
        for sock in self.sockets:
            sock.settimeout(DEADLINE)
        self.entry.settimeout(timeout)
        self.exit.settimeout(timeout)
        self.pipe = Pipe()
        self.drained = []

    @property
    def sockets(self):
        return self.source, self.entry, self.exit, self.sink

    def close(self):
        self.pipe.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture(params=[None, DEADLINE], ids=["blocking", "with-timeout"])
def way(request):
    with contextlib.closing(Way(request.param)) as way:
        yield way


@needs_splice
def test_pipe(way):
    way.source.sendall(b"hello world")
    assert way.pipe.fill(way.entry, 5) == len(way.pipe) == 5
    way.pipe.drain(way.exit, way.drained.append)
    assert way.sink.recv(100) == b"hello"
    assert way.drained == [5]
    assert way.pipe.fill(way.entry, 100) == 6
    way.pipe.drain(way.exit, way.drained.append)
    assert way.sink.recv(100) == b" world"
    assert len(way.pipe) == 0


@needs_splice
@pytest.mark.parametrize("take", ["fill", "gather"])
def test_pipe_moves_much(way, take):
    data = pattern(5_000_000)
    received = bytearray()

    def read():
        while len(received) < len(data):
            received.extend(way.sink.recv(1_000_000))

    threads = [threading.Thread(target=way.source.sendall, args=(data,)), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    done = 0
    while done < len(data):
        done += getattr(way.pipe, take)(way.entry, len(data) - done)
        way.pipe.drain(way.exit, way.drained.append)
    for thread in threads:
        thread.join()
    assert received == data
    assert sum(way.drained) == len(data)


@needs_splice
@pytest.mark.parametrize("take", ["fill", "gather"])
def test_pipe_at_the_end_of_its_source(way, take):
    way.source.sendall(b"last")
    way.source.close()
    assert getattr(way.pipe, take)(way.entry, 100) == 4
    way.pipe.drain(way.exit, way.drained.append)
    assert getattr(way.pipe, take)(way.entry, 100) == 0


@needs_splice
def test_pipe_gathers_what_comes_in_pieces(way):
    data = pattern(200_000)

    def write():
        for start in range(0, len(data), 10_000):
            way.source.sendall(data[start : start + 10_000])

    thread = threading.Thread(target=write)
    thread.start()
    assert way.pipe.gather(way.entry, len(data)) == len(data)
    thread.join()


@needs_splice
def test_pipe_is_full(way):
    """Many small pieces take a page each: then the pipe holds less than it could."""
    thread = threading.Thread(target=lambda: [way.source.sendall(b"x") for _ in range(2000)])
    thread.start()
    done = 0
    while done < 2000:
        count = way.pipe.gather(way.entry, 2000 - done)
        assert 0 < count <= 2000 - done
        way.pipe.drain(way.exit, way.drained.append)
        assert way.sink.recv(count, socket.MSG_WAITALL) == b"x" * count
        done += count
    thread.join()


@needs_splice
@pytest.mark.parametrize("take", ["fill", "gather"])
@pytest.mark.parametrize("available", [0, 1])
def test_pipe_waits_in_vain(way, take, available):
    way.entry.settimeout(0.02)
    way.source.sendall(b"x" * available)
    if take == "fill" and available:
        assert way.pipe.fill(way.entry, 10) == 1
        return
    with pytest.raises(TimeoutError):
        getattr(way.pipe, take)(way.entry, 10)


@needs_splice
def test_pipe_waits_in_vain_in_the_kernel(way):
    """The time-out of a blocking socket is the kernel's."""
    way.entry.settimeout(None)
    way.entry.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 20_000))
    with pytest.raises(TimeoutError):
        way.pipe.fill(way.entry, 10)


@needs_splice
def test_pipe_to_nobody(way):
    way.source.sendall(b"x" * 10)
    way.sink.close()
    way.pipe.fill(way.entry, 10)
    with pytest.raises(BrokenPipeError):
        way.pipe.drain(way.exit, way.drained.append)
    assert way.drained == []


@needs_splice
def test_pipe_to_somebody_who_takes_nothing(way):
    way.exit.settimeout(0.02)
    way.source.setblocking(False)
    with pytest.raises(TimeoutError):
        while True:
            way.source.send(bytes(100_000))
            way.pipe.fill(way.entry, 100_000)
            way.pipe.drain(way.exit, way.drained.append)


@needs_splice
def test_progress_stops_the_pipe(way):
    def stop(count):
        raise InterruptedError

    way.source.sendall(b"x" * 10)
    way.pipe.fill(way.entry, 10)
    with pytest.raises(InterruptedError):
        way.pipe.drain(way.exit, stop)


@needs_splice
def test_pipe_is_closed_twice(way):
    way.pipe.close()
    way.pipe.close()
    assert len(way.pipe) == 0


@needs_splice
def test_small_pipe():
    """Who may not have a large pipe uses a small one."""
    pipe = Pipe(size=2**31 - 1)
    pipe.close()
