"""Streams move every byte to its place, by slot and by pipe, and leave the connection usable whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading

import pytest
from fakes.nbdpeer import Peer
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.nbd import client, streaming
from ovirt_imageio.nbd.client import PIECE, WINDOW
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.errors import ConnectionDead, Disconnected, RequestFailed, TimedOut
from ovirt_imageio.nbd.streaming import SMALL, Streamer
from ovirt_imageio.nbd.wire import Command, Mode
from ovirt_imageio.net.timeouts import set_timeout
from ovirt_imageio.relay import Pipe
from ovirt_imageio.relay.buffers import Pool

SIZE = 5 * PIECE + 12345

# Python 3.9 has one for sockets.
TIMEOUT = (TimeoutError, BlockingIOError)

WAYS = ["slot", pytest.param("pipe", marks=pytest.mark.skipif(not Pipe.is_supported, reason="Python has no splice()"))]


class SocketEnd:
    """A sink and a source: one end of a socket pair; the test has the other one."""

    def __init__(self, sock, is_plain):
        self._sock = sock
        self._is_plain = is_plain
        self.spliced = 0

    @property
    def socket(self):
        return self._sock if self._is_plain else None

    def advance(self, count):
        self.spliced += count

    def write(self, view):
        self._sock.sendall(view)

    def readinto(self, view):
        return self._sock.recv_into(view)


class Far(threading.Thread):
    """Reads or writes the other end."""

    def __init__(self, sock, data=None, step=PIECE):
        super().__init__()
        self._sock = sock
        self._data = data
        self._step = step
        self.received = bytearray()
        self.start()

    def run(self):
        if self._data is None:
            while data := self._sock.recv(PIECE):
                self.received += data
        else:
            with contextlib.suppress(ConnectionError):
                for start in range(0, len(self._data), self._step):
                    self._sock.sendall(self._data[start : start + self._step])
            self._sock.shutdown(socket.SHUT_WR)


class Scene:
    """A streamer, its client, and a pair of sockets."""

    def __init__(self, nbd, way):
        self.nbd = nbd
        self.streamer = Streamer()
        near, self.far = socket.socketpair()
        set_timeout(near, DEADLINE)
        self.far.settimeout(DEADLINE)
        self.near = near
        self.end = SocketEnd(near, way == "pipe")
        self.progress = []

    def send(self, offset, length, progress=None):
        """Send a range; return what came out."""
        reader = Far(self.far)
        try:
            self.streamer.send(self.nbd, self.end, offset, length, progress or self.progress.append)
        finally:
            with contextlib.suppress(OSError):
                self.near.shutdown(socket.SHUT_WR)
            reader.join()
            self.received = bytes(reader.received)
        return self.received

    def receive(self, data, offset, length=None, progress=None, step=PIECE):
        """Write a range."""
        writer = Far(self.far, data, step)
        try:
            length = len(data) if length is None else length
            self.streamer.receive(self.nbd, self.end, offset, length, progress or self.progress.append)
        finally:
            # What is not wanted any more must not block the writer.
            while self.near.recv(PIECE):
                pass
            writer.join()

    def check_connection(self, disk):
        """The connection works, in the right place of its stream."""
        assert self.nbd.is_alive
        view = memoryview(bytearray(1000))
        self.nbd.read(5, view)
        assert view == disk[5:1005]

    def close(self):
        self.streamer.close()
        self.near.close()
        self.far.close()


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def disk():
    return bytearray(os.urandom(SIZE))


@pytest.fixture(autouse=True)
def even(monkeypatch):
    """All pieces have the same length."""
    monkeypatch.setattr(client, "OPENING", 2 * SIZE)


@pytest.fixture(params=["even", "opening"])
def pieces(request, even, monkeypatch):
    """So they have, or the first one of a long move is larger."""
    if request.param == "opening":
        monkeypatch.setattr(client, "OPENING", 2 * PIECE)


@contextlib.contextmanager
def scene(script, way, **options):
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(Peer(script))
        nbd = stack.enter_context(connect(peer.location, **options))
        yield stack.enter_context(contextlib.closing(Scene(nbd, way)))


def serving(disk, **options):
    def script(call):
        call.negotiate(size=len(disk), **options)
        call.serve(disk)

    return script


def piece_of(disk, request):
    return disk[request.offset : request.offset + request.length]


# Good servers

RANGES = [
    (0, SIZE),
    (0, 1),
    (100, SMALL - 1),
    (100, SMALL),
    (12345, 2 * PIECE),
    (PIECE - 1, 2),
    (SIZE - 1, 1),
    (7, 0),
]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("offset,length", RANGES)
def test_send(way, disk, mode, offset, length):
    with scene(serving(disk, mode=mode), way) as s:
        assert s.send(offset, length) == disk[offset : offset + length]
        assert sum(s.progress) == length
        s.check_connection(disk)
        if way == "pipe":
            assert s.end.spliced == (length if length >= SMALL else 0)


def requested(disk, lengths):
    """A server that notes the lengths of reads and writes."""

    def script(call):
        call.negotiate(size=SIZE)
        while True:
            request = call.request()
            lengths.append(request.length)
            if request.kind == Command.READ:
                call.data(request, request.offset, piece_of(disk, request), done=True)
            else:
                call.done(request)

    return script


def test_first_piece_of_a_long_move(way, disk, monkeypatch):
    """Once in the life of a connection, so that qemu keeps its memory."""
    monkeypatch.setattr(client, "OPENING", 2 * PIECE)
    odd = SIZE - 5 * PIECE
    lengths = []
    with scene(requested(disk, lengths), way) as s:
        s.send(0, 2 * PIECE - 1)
        assert lengths == [PIECE, PIECE - 1]
        s.progress.clear()
        s.receive(bytes(SIZE), 0)
        assert lengths[2:] == [2 * PIECE, *[PIECE] * 3, odd]
        assert s.progress == [PIECE] * 5 + [odd]
    lengths.clear()
    with scene(requested(disk, lengths), way) as s:
        assert s.send(0, SIZE) == disk
        assert lengths == [2 * PIECE, *[PIECE] * 3, odd]
        assert max(s.progress) <= PIECE


def test_first_piece_is_read_alone(way, disk, monkeypatch):
    """Smaller ones would come before it, and would have to be kept."""
    monkeypatch.setattr(client, "OPENING", 2 * PIECE)

    def script(call):
        call.negotiate(size=SIZE)
        opening = call.request()
        # What comes now would be lost.
        call.pause(0.05)
        call.data(opening, 0, disk[:PIECE])
        others = call.requests(WINDOW - 1)
        call.data(opening, PIECE, disk[PIECE : 2 * PIECE], done=True)
        for request in others:
            call.data(request, request.offset, piece_of(disk, request), done=True)
        call.serve(disk)

    with scene(script, way) as s:
        assert s.send(0, SIZE) == disk
        s.check_connection(disk)


def test_chunks_of_the_first_piece_in_reverse(way, disk, monkeypatch):
    monkeypatch.setattr(client, "OPENING", 2 * PIECE)

    def script(call):
        call.negotiate(size=SIZE)
        opening = call.request()
        call.data(opening, PIECE, disk[PIECE : 2 * PIECE])
        call.data(opening, 0, disk[:PIECE], done=True)
        call.serve(disk)

    with scene(script, way) as s:
        assert s.send(0, SIZE) == disk


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("direction", ["send", "receive"])
def test_slots_come_back(disk, direction, monkeypatch):
    """Replies in order need one slot at a time; what was written is not needed any more."""
    pool = Pool(PIECE)
    monkeypatch.setattr(streaming, "pool", pool)
    taken = []
    monkeypatch.setattr(pool, "take", lambda: taken.append(Pool.take(pool)) or taken[-1])
    with scene(serving(disk), "slot") as s:
        s.send(0, SIZE) if direction == "send" else s.receive(disk, 0)
    slots = {ctypes.addressof(ctypes.c_char.from_buffer(slot)) for slot in taken}
    opening = client.OPENING // PIECE if client.OPENING < SIZE else 1
    assert len(slots) == (1 if direction == "send" else opening)


def test_first_piece_is_the_whole_window_of_writes(way, disk, monkeypatch):
    """It needs as much memory as all others together."""
    monkeypatch.setattr(client, "OPENING", WINDOW * PIECE)

    def script(call):
        call.negotiate(size=SIZE)
        opening = call.request()
        assert opening.length == WINDOW * PIECE
        # What comes now would be lost.
        call.pause(0.05)
        call.done(opening)
        call.serve(disk)

    with scene(script, way) as s:
        s.receive(bytes(SIZE), 0)
        s.check_connection(disk)


def test_a_server_may_want_small_pieces_only(way, disk):
    lengths = []

    def script(call):
        call.negotiate(size=SIZE, blocks=(1, 4096, PIECE // 2))
        while sum(lengths) < SIZE:
            request = call.request()
            lengths.append(request.length)
            call.data(request, request.offset, piece_of(disk, request), done=True)

    with scene(script, way) as s:
        assert s.send(0, SIZE) == disk
    assert max(lengths) == PIECE // 2


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("step", [10_000, PIECE])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("offset,length", RANGES)
def test_receive(way, disk, mode, offset, length, step):
    data = os.urandom(length)
    expected = disk[:offset] + data + disk[offset + length :]
    with scene(serving(disk, mode=mode), way) as s:
        s.receive(data, offset, step=step)
        assert disk == expected
        assert sum(s.progress) == length
        s.check_connection(disk)
        if way == "pipe":
            # The first piece of a long move does not fit into a pipe.
            opening = client.OPENING - offset % PIECE if length >= client.OPENING else 0
            assert s.end.spliced == (length - opening if length >= SMALL else 0)


def test_streams_follow_one_another(way, disk):
    """Slots and pipe are used again."""
    with scene(serving(disk), way) as s:
        for turn in range(3):
            s.streamer.send(s.nbd, s.end, turn, 1000, s.progress.append)
            assert s.far.recv(1000, socket.MSG_WAITALL) == disk[turn : turn + 1000]
            s.far.sendall(bytes([turn]) * 100_000)
            s.streamer.receive(s.nbd, s.end, turn, 100_000, s.progress.append)
            assert disk[turn : turn + 100_000] == bytes([turn]) * 100_000


def test_requests_end_at_multiples_of_a_piece(way, disk):
    requests = []

    def script(call):
        call.negotiate(size=SIZE)
        while True:
            requests.append(call.request())
            if requests[-1].kind == Command.READ:
                call.data(requests[-1], requests[-1].offset, piece_of(disk, requests[-1]), done=True)
            else:
                call.done(requests[-1])

    with scene(script, way) as s:
        s.send(100, 2 * PIECE)
    with scene(script, way) as s:
        s.receive(bytes(2 * PIECE), 100)
    expected = [(100, PIECE - 100), (PIECE, PIECE), (2 * PIECE, 100)]
    for kind in (Command.READ, Command.WRITE):
        assert [(r.offset, r.length) for r in requests if r.kind == kind] == expected


def test_replies_in_reverse(way, disk):
    def script(call):
        call.negotiate(size=SIZE)
        for request in reversed(call.requests(WINDOW)):
            call.data(request, request.offset, piece_of(disk, request), done=True)
        call.serve(disk)

    with scene(script, way) as s:
        assert s.send(0, SIZE) == disk


def test_interleaved_chunks_and_holes(way, disk):
    """Chunks of two replies alternate, those of the second one are early, some come out of order, some are holes."""
    disk[PIECE + 1000 : PIECE + 3000] = bytes(2000)
    disk[500:700] = bytes(200)

    def script(call):
        call.negotiate(size=SIZE)
        first, second = call.requests(2)
        call.data(second, PIECE, disk[PIECE : PIECE + 1000])
        call.data(first, 0, disk[:500])
        call.hole(second, PIECE + 1000, 2000)
        call.hole(first, 500, 200)
        call.data(first, 1000, disk[1000:PIECE])
        call.data(second, PIECE + 3000, disk[PIECE + 3000 : 2 * PIECE], done=True)
        call.data(first, 700, disk[700:1000], done=True)

    with scene(script, way) as s:
        assert s.send(0, 2 * PIECE) == disk[: 2 * PIECE]
        assert sum(s.progress) == 2 * PIECE


def test_writes_end_in_reverse(way, disk):
    """Progress counts from the beginning: what is done has no gap."""

    def script(call):
        call.negotiate(size=SIZE)
        for request in reversed(call.requests(3)):
            call.done(request)

    with scene(script, way) as s:
        s.receive(bytes(3 * PIECE), 0)
        assert s.progress == [PIECE] * 3


@pytest.mark.usefixtures("pieces")
def test_send_of_one_hole(way):
    def script(call):
        call.negotiate(size=SIZE)
        while True:
            request = call.request()
            call.hole(request, request.offset, request.length, done=True)

    with scene(script, way) as s:
        assert s.send(0, SIZE) == bytes(SIZE)


# Sources and sinks that fail


@pytest.mark.parametrize("available", [0, 1, 1000, PIECE, PIECE + 70_000])
def test_source_ends_early(way, disk, available):
    """What came is written, all of it, and nothing else."""
    data = os.urandom(available)
    expected = data + disk[available:]
    with scene(serving(disk), way) as s:
        with pytest.raises(errors.PartialContent) as e:
            s.receive(data, 0, 3 * PIECE)
        assert (e.value.requested, e.value.available) == (3 * PIECE, available)
        assert sum(s.progress) == available
        assert disk == expected
        s.check_connection(disk)


@pytest.mark.usefixtures("pieces")
def test_source_stands_still(way, disk):
    with scene(serving(disk), way) as s:
        set_timeout(s.near, 0.05)
        s.far.sendall(b"x" * 1000)
        with pytest.raises(TIMEOUT):
            s.streamer.receive(s.nbd, s.end, 0, SIZE, s.progress.append)
        s.check_connection(disk)


def test_source_fails_after_a_part(disk):
    """What was read before a source failed is written and counted."""

    class Failing:
        socket = None
        left = 2

        def readinto(self, view):
            if self.left == 0:
                raise ConnectionResetError("gone")
            self.left -= 1
            view[:] = b"x" * len(view)
            return len(view)

    with scene(serving(disk), "slot") as s:
        with pytest.raises(ConnectionResetError, match="gone"):
            s.streamer.receive(s.nbd, Failing(), 0, SIZE, s.progress.append)
        assert s.progress == [PIECE] * 2
        assert disk[: 2 * PIECE] == b"x" * 2 * PIECE
        s.check_connection(disk)


@pytest.mark.usefixtures("pieces")
def test_sink_is_gone(way, disk):
    with scene(serving(disk), way) as s:
        s.far.close()
        with pytest.raises(ConnectionError):
            s.streamer.send(s.nbd, s.end, 0, SIZE, s.progress.append)
        assert s.progress == []
        s.check_connection(disk)


@pytest.mark.usefixtures("pieces")
def test_sink_takes_nothing(way, disk):
    with scene(serving(disk), way) as s:
        set_timeout(s.near, 0.05)
        with pytest.raises(TIMEOUT):
            s.streamer.send(s.nbd, s.end, 0, SIZE, s.progress.append)
        s.check_connection(disk)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("direction", ["send", "receive"])
@pytest.mark.parametrize("after", [1, PIECE + 1, SIZE])
def test_canceled(way, disk, direction, after):
    done = 0

    def progress(count):
        nonlocal done
        done += count
        if done >= after:
            raise errors.OperationCanceled

    with scene(serving(disk), way) as s:
        with pytest.raises(errors.OperationCanceled):
            if direction == "send":
                s.send(0, SIZE, progress)
            else:
                s.receive(bytes(disk), 0, progress=progress)
        s.check_connection(disk)
        # And the next stream begins with nothing that the last one left.
        s.close()
        s.__init__(s.nbd, way)
        assert s.send(10, 2 * PIECE) == disk[10 : 10 + 2 * PIECE]


# Servers that fail


def test_read_fails(way, disk):
    """What came before the bad piece leaves, and nothing after it."""

    def script(call):
        call.negotiate(size=SIZE)
        requests = call.requests(WINDOW)
        call.data(requests[0], 0, piece_of(disk, requests[0]), done=True)
        requests.append(call.request())
        call.error(requests[1], 5, b"bad sector")
        for request in requests[2:]:
            call.data(request, request.offset, piece_of(disk, request), done=True)
        call.serve(disk)

    with scene(script, way) as s:
        with pytest.raises(RequestFailed, match="bad sector"):
            s.send(0, SIZE)
        assert s.received == disk[:PIECE]
        s.check_connection(disk)


def test_write_fails(way, disk):
    def script(call):
        call.negotiate(size=SIZE)
        first, second = call.requests(2)
        call.done(first)
        call.error(second, 28)
        while (request := call.request()).kind == Command.WRITE:
            call.done(request)
        call.data(request, request.offset, piece_of(disk, request), done=True)
        call.serve(disk)

    with scene(script, way) as s:
        with pytest.raises(RequestFailed, match="No space left"):
            s.receive(bytes(SIZE), 0)
        assert s.progress in ([], [PIECE])
        s.check_connection(disk)


@pytest.mark.parametrize(
    "misbehave,expected,timeout",
    [
        (lambda call: call.hang_up(), Disconnected, DEADLINE),
        (lambda call: call.wait_for_hangup(), TimedOut, 0.2),
        (lambda call: call.send(b"garbage" * 100), ConnectionDead, DEADLINE),
    ],
)
@pytest.mark.parametrize("sent", [0, 100, PIECE, PIECE + 100])
def test_server_dies_in_payload(way, disk, sent, misbehave, expected, timeout):
    def script(call):
        call.negotiate(size=SIZE)
        first, second = call.requests(2)
        left = sent
        for request in (first, second):
            header = call.chunk_header(request, 1, 8 + request.length, done=True)
            part = piece_of(disk, request)[:left]
            if part:
                call.send(header + request.offset.to_bytes(8, "big") + part)
            left -= len(part)
        misbehave(call)
        call.hang_up()

    with scene(script, way, reply_timeout=timeout) as s:
        with pytest.raises(expected):
            s.send(0, SIZE)
        assert s.received[:sent] == disk[: len(s.received[:sent])]
        assert not s.nbd.is_alive


@pytest.mark.parametrize("misbehave", [lambda call: call.hang_up(), lambda call: call.wait_for_hangup()])
def test_server_dies_during_upload(way, misbehave):
    def script(call):
        call.negotiate(size=SIZE)
        call.request()
        misbehave(call)

    with scene(script, way, reply_timeout=0.2) as s:
        with pytest.raises(ConnectionDead):
            s.receive(bytes(SIZE), 0)
        assert not s.nbd.is_alive


@pytest.mark.parametrize("direction", ["send", "receive"])
def test_interrupt(way, direction):
    """Whatever waits for the server fails at once."""
    is_waiting = threading.Event()

    def script(call):
        call.negotiate(size=SIZE)
        call.request()
        is_waiting.set()
        call.wait_for_hangup()

    with scene(script, way) as s:
        interrupter = threading.Thread(target=lambda: is_waiting.wait() and s.nbd.interrupt())
        interrupter.start()
        with pytest.raises(ConnectionDead):
            if direction == "send":
                s.send(0, SIZE)
            else:
                s.receive(bytes(SIZE), 0)
        interrupter.join()
        assert not s.nbd.is_alive
