"""A pipe in the kernel: between sockets, and from a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
import threading

import pytest
from backends.contract import pattern
from fakes.plainsocket import PlainSink
from fakes.waiting import DEADLINE

from ovirt_imageio import relay
from ovirt_imageio.net.timeouts import set_timeout, unsent
from ovirt_imageio.relay import Pipe
from ovirt_imageio.relay.pipe import GET_PIPE_SIZE

needs_splice = pytest.mark.skipif(not Pipe.is_supported, reason="Python has no splice()")


class Way:
    """A pipe between two socket pairs: the test writes to `source`, and reads from `sink`."""

    def __init__(self):
        self.source, self.entry = socket.socketpair()
        self.exit, self.sink = socket.socketpair()
        for sock in self.sockets:
            set_timeout(sock, DEADLINE)
        self.pipe = Pipe()
        self.drained = []

    def take(self, how, count):
        """Fill the pipe, or gather; return how much there is."""
        if how == "fill":
            return self.pipe.fill(self.entry, count)
        taken = []
        done = self.pipe.gather(self.entry, count, taken.append)
        assert sum(taken) == done
        return done

    @property
    def sockets(self):
        return self.source, self.entry, self.exit, self.sink

    def close(self):
        self.pipe.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def way():
    with contextlib.closing(Way()) as way:
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
        done += way.take(take, len(data) - done)
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
    assert way.take(take, 100) == 4
    way.pipe.drain(way.exit, way.drained.append)
    assert way.take(take, 100) == 0


@needs_splice
def test_pipe_gathers_what_comes_in_pieces(way):
    data = pattern(200_000)

    def write():
        for start in range(0, len(data), 10_000):
            way.source.sendall(data[start : start + 10_000])

    thread = threading.Thread(target=write)
    thread.start()
    assert way.take("gather", len(data)) == len(data)
    thread.join()


@needs_splice
def test_pipe_is_full(way):
    """Many small pieces take a page each: then the pipe holds less than it could."""
    thread = threading.Thread(target=lambda: [way.source.sendall(b"x") for _ in range(2000)])
    thread.start()
    done = 0
    while done < 2000:
        count = way.take("gather", 2000 - done)
        assert 0 < count <= 2000 - done
        way.pipe.drain(way.exit, way.drained.append)
        assert way.sink.recv(count, socket.MSG_WAITALL) == b"x" * count
        done += count
    thread.join()


@needs_splice
@pytest.mark.parametrize("take", ["fill", "gather"])
@pytest.mark.parametrize("available", [0, 1])
def test_pipe_waits_in_vain(way, take, available):
    set_timeout(way.entry, 0.02)
    way.source.sendall(b"x" * available)
    if take == "fill" and available:
        assert way.pipe.fill(way.entry, 10) == 1
        return
    with pytest.raises(TimeoutError):
        way.take(take, 10)


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
    set_timeout(way.exit, 0.02)
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
def test_both_ends_of_a_pipe_are_closed_though_one_fails(monkeypatch):
    closed = []

    def fail_after(end):
        closed.append(end)
        close(end)
        raise InterruptedError

    close = os.close
    pipe = Pipe()
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail_after)
        with pytest.raises(InterruptedError):
            pipe.close()
    assert len(closed) == 2


@needs_splice
def test_small_pipe(way):
    """A pipe that the kernel refuses to enlarge keeps the size that pipes have, and moves bytes in smaller steps."""
    data = pattern(200_000)
    ends = os.pipe()
    usual = fcntl.fcntl(ends[0], GET_PIPE_SIZE)
    for end in ends:
        os.close(end)
    with contextlib.closing(Pipe(size=-1)) as pipe, tempfile.TemporaryFile() as file:
        assert pipe.capacity == usual
        file.write(data)
        file.flush()
        done = 0
        while done < len(data):
            count = pipe.load(file.fileno(), done, len(data) - done)
            assert 0 < count <= usual
            pipe.drain(way.exit, way.drained.append)
            assert way.sink.recv(count, socket.MSG_WAITALL) == data[done : done + count]
            done += count


@pytest.fixture
def sink():
    with PlainSink() as sink:
        yield sink


@needs_splice
@pytest.mark.parametrize("offset", [0, 512, 65536, 1024**2 - 4096])
@pytest.mark.parametrize("length", [0, 1, 100_000, 1024**2, 3 * 1024**2 + 512])
def test_splice_ahead(tmp_path, sink, offset, length):
    data = pattern(offset + length)
    path = tmp_path / "file"
    path.write_bytes(data)
    told = []
    with path.open("rb") as file:

        def load(pipe, start, size):
            return pipe.load(file.fileno(), start, size)

        assert relay.splice_ahead(load, offset, length, sink, told.append) == length
    assert sum(told) == sink.advanced == length
    assert max(told, default=0) <= 1024**2
    assert sink.received() == data[offset:]


@needs_splice
@pytest.mark.parametrize("available", [0, 1, 1024**2, 1024**2 + 1])
def test_splice_ahead_of_a_file_that_ends(tmp_path, sink, available):
    path = tmp_path / "file"
    path.write_bytes(b"x" * available)
    with path.open("rb") as file:
        done = relay.splice_ahead(lambda pipe, *piece: pipe.load(file.fileno(), *piece), 0, 5 * 1024**2, sink, len_of)
    assert done == available


def len_of(count):
    assert count > 0


@needs_splice
def test_splice_ahead_of_a_file_that_fails(sink):
    def load(pipe, offset, length):
        if offset:
            raise OSError(5, "Input/output error")
        with open("/dev/zero", "rb") as zeroes:
            return pipe.load(zeroes.fileno(), 0, length)

    before = threading.active_count()
    with pytest.raises(OSError, match="Input/output"):
        relay.splice_ahead(load, 0, 5 * 1024**2, sink, len_of)
    assert threading.active_count() == before


@needs_splice
def test_progress_stops_splice_ahead(sink):
    def stop(count):
        raise KeyError(count)

    with open("/dev/zero", "rb") as zeroes, pytest.raises(KeyError):
        relay.splice_ahead(lambda pipe, *piece: pipe.load(zeroes.fileno(), *piece), 0, 5 * 1024**2, sink, stop)


@needs_splice
def test_capacity(way):
    assert way.pipe.capacity in (64 * 1024, 1024 * 1024)


@needs_splice
def test_a_reader_who_is_slow_but_steady_is_waited_for(way, monkeypatch):
    """It takes less in one time-out than the kernel wants to be free before it calls the socket writable."""
    data = pattern(512 * 1024)
    splice = os.splice
    refused = []
    received = bytearray()

    def reluctant(source, target, count, **options):
        """Two of three times there is no room, and time runs out; meanwhile the reader takes a bit."""
        before = unsent(way.exit)
        if target != way.exit.fileno() or not before or len(refused) % 3 == 2:
            refused.append(False)
            return splice(source, target, count, **options)
        refused.append(True)
        while unsent(way.exit) >= before:
            received.extend(way.sink.recv(4096))
        raise BlockingIOError

    monkeypatch.setattr(os, "splice", reluctant)
    feeder = threading.Thread(target=way.source.sendall, args=(data,))
    feeder.start()
    done = 0
    while done < len(data):
        done += way.take("fill", min(64 * 1024, len(data) - done))
        way.pipe.drain(way.exit, way.drained.append)
    feeder.join()
    assert any(refused)
    assert sum(way.drained) == len(data)
    assert received == data[: len(received)]
