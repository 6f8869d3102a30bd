"""The client keeps several requests under way, survives what servers refuse, and gives up on those that misbehave."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from pathlib import Path

import pytest
from fakes.nbdpeer import FLAGS, Peer
from fakes.scripts import load
from fakes.waiting import DEADLINE

from ovirt_imageio.nbd import client, errors, status
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.wire import Command, CommandFlag, ExportFlag, Mode

KIB = 1024
MIB = 1024 * KIB
SIZE = 8 * MIB

HOSTILE = sorted(Path(__file__).parent.joinpath("hostile").glob("*.py"))


@contextlib.contextmanager
def connected(script, **options):
    with Peer(script) as peer, connect(peer.location, **options) as nbd:
        yield nbd


def serving(disk, **options):
    """A script: a good server of a disk in memory."""

    def script(call):
        call.negotiate(size=len(disk), **options)
        call.serve(disk)

    return script


def recording(requests, **options):
    """A script: a good server of zeroes that remembers what was asked for."""

    def script(call):
        call.negotiate(**options)
        while True:
            request = call.request()
            requests.append(request)
            if request.kind == Command.READ:
                call.hole(request, request.offset, request.length, done=True)
            elif request.kind != Command.DISCONNECT:
                call.done(request)

    return script


def buffer(size):
    return memoryview(bytearray(size))


class Leaking:
    """A pipe whose bytes cannot be sent, for a reason that is not the server's."""

    def drain(self, *_: object) -> None:
        raise MemoryError


def test_reply_to_a_command_that_was_not_sent_is_not_awaited():
    """It was awaited until the server was late: for minutes here, longer than the time-out of the test."""
    with connected(serving(bytearray(SIZE)), reply_timeout=1000) as nbd:
        command = client.SentCommand(Command.WRITE, 0, 4, memoryview(b"data"))
        with pytest.raises(MemoryError), nbd.settled():
            nbd.submit_pipe(command, Leaking())
        assert not nbd.probe()


# Good servers


@pytest.mark.parametrize("mode", list(Mode))
def test_read_and_write(mode):
    disk = bytearray(os.urandom(SIZE))
    with connected(serving(disk, mode=mode)) as nbd:
        assert nbd.export.size == SIZE
        view = buffer(3 * MIB)
        nbd.read(12345, view)
        assert view == disk[12345 : 12345 + len(view)]
        data = os.urandom(2 * MIB)
        nbd.write(777, memoryview(data))
        nbd.flush()
        assert disk[777 : 777 + len(data)] == data
        nbd.zero(1000, MIB)
        assert not any(disk[1000 : 1000 + MIB])


def test_read_and_write_nothing():
    requests = []
    with connected(recording(requests)) as nbd:
        nbd.read(100, buffer(0))
        nbd.write(100, buffer(0))
        nbd.zero(100, 0)
    assert [request.kind for request in requests] == [Command.DISCONNECT]


@pytest.mark.parametrize("offset,length", [(0, 1), (0, 3 * MIB), (100, 3 * MIB), (client.PIECE - 1, 2)])
def test_pieces(offset, length):
    requests = []
    with connected(recording(requests, size=SIZE)) as nbd:
        nbd.read(offset, buffer(length))
    requests.pop()
    assert requests[0].offset == offset
    assert sum(request.length for request in requests) == length
    assert max(request.length for request in requests) <= client.PIECE
    for request, following in zip(requests, requests[1:]):
        assert request.offset + request.length == following.offset
        assert following.offset % client.PIECE == 0


def test_pieces_respect_the_server():
    requests = []
    with connected(recording(requests, blocks=(1, 4096, 16 * KIB))) as nbd:
        nbd.read(0, buffer(100 * KIB))
        nbd.write(0, buffer(100 * KIB))
    assert max(request.length for request in requests) == 16 * KIB


def test_a_window_of_requests_is_under_way():
    """The server sees as many requests as fit the window before it answers one, and may answer in any order."""
    disk = bytearray(os.urandom(SIZE))

    def script(call):
        call.negotiate(size=SIZE)
        window = call.requests(client.WINDOW)
        for request in reversed(window):
            call.data(request, request.offset, disk[request.offset : request.offset + request.length], done=True)
        call.serve(disk)

    with connected(script) as nbd:
        view = buffer(SIZE)
        nbd.read(0, view)
        assert view == disk


def test_interleaved_chunks():
    disk = bytearray(os.urandom(2 * client.PIECE))

    def script(call):
        call.negotiate(size=len(disk))
        requests = call.requests(2)
        step = 64 * KIB
        for start, request in itertools.product(reversed(range(0, client.PIECE, step)), requests):
            offset = request.offset + start
            call.data(request, offset, disk[offset : offset + step], done=start == 0)

    with connected(script) as nbd:
        view = buffer(len(disk))
        nbd.read(0, view)
        assert view == disk


def test_holes():
    def script(call):
        call.negotiate()
        request = call.request()
        call.hole(request, 10, 20)
        call.data(request, 0, b"x" * 10)
        call.data(request, 30, b"y" * 10, done=True)

    with connected(script) as nbd:
        view = memoryview(bytearray(b"?" * 40))
        nbd.read(0, view)
        assert view == b"x" * 10 + bytes(20) + b"y" * 10


@pytest.mark.parametrize("mode,flag", [(Mode.STRUCTURED, 0), (Mode.EXTENDED, CommandFlag.PAYLOAD_LENGTH)])
def test_flags(mode, flag):
    requests = []
    with connected(recording(requests, mode=mode)) as nbd:
        nbd.write(0, memoryview(b"x"))
        nbd.write(0, memoryview(b"x"), fua=True)
        nbd.zero(0, 10)
        nbd.zero(0, 10, punch_hole=False)
        nbd.read(0, buffer(1))
    flags = [(request.kind, request.flags) for request in requests]
    assert flags == [
        (Command.WRITE, flag),
        (Command.WRITE, CommandFlag.FUA | flag),
        (Command.WRITE_ZEROES, 0),
        (Command.WRITE_ZEROES, CommandFlag.NO_HOLE),
        (Command.READ, 0),
        (Command.DISCONNECT, 0),
    ]


def test_what_the_server_does_not_offer_is_done_another_way():
    requests = []
    with connected(recording(requests, size=2 * MIB, flags=ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH)) as nbd:
        nbd.write(0, memoryview(b"x"), fua=True)
        nbd.zero(100, MIB)
    kinds = [request.kind for request in requests]
    assert kinds[:2] == [Command.WRITE, Command.FLUSH]
    assert {*kinds[2:-1]} == {Command.WRITE}
    assert b"".join(request.payload for request in requests[2:-1]) == bytes(MIB)


def test_nothing_to_flush():
    requests = []
    with connected(recording(requests, flags=ExportFlag.HAS_FLAGS)) as nbd:
        nbd.flush()
    assert [request.kind for request in requests] == [Command.DISCONNECT]


def test_large_zero_is_split():
    requests = []
    with connected(recording(requests, size=2**40)) as nbd:
        nbd.zero(0, 5 * 1024**3)
    assert sum(request.length for request in requests) == 5 * 1024**3
    assert max(request.length for request in requests) == client.MAX_ZERO


def test_block_status():
    def script(call):
        call.negotiate(contexts=["base:allocation", "qemu:allocation-depth"])
        request = call.request()
        call.status(request, [(100, 0)], 0, done=False)
        call.status(request, [(1000, 1)], 1)

    with connected(script) as nbd:
        assert nbd.block_status(0, 1000) == {0: bytes([0, 0, 0, 100, 0, 0, 0, 0]), 1: bytes([0, 0, 3, 232, 0, 0, 0, 1])}


def test_goodbye():
    requests = []
    with connected(recording(requests)) as nbd:
        nbd.close()
        nbd.close()
        assert not nbd.is_alive
        with pytest.raises(errors.Disconnected):
            nbd.read(0, buffer(1))
    assert [request.kind for request in requests] == [Command.DISCONNECT]


def test_probe():
    hung_up = threading.Event()
    may_end = threading.Event()

    def script(call):
        call.negotiate()
        assert may_end.wait(DEADLINE)
        call.hang_up()
        hung_up.set()

    with connected(script) as nbd:
        assert nbd.probe()
        may_end.set()
        assert hung_up.wait(DEADLINE)
        assert not nbd.probe()
        assert not nbd.is_alive


# Requests that fail


def test_no_context():
    with connected(recording([], contexts=[])) as nbd, pytest.raises(errors.Unsupported):
        nbd.block_status(0, 1000)


def test_read_only():
    with connected(recording([], flags=FLAGS | ExportFlag.READ_ONLY)) as nbd:
        for use in (lambda: nbd.write(0, memoryview(b"x")), lambda: nbd.zero(0, 1)):
            with pytest.raises(errors.Unsupported, match="the export is read-only"):
                use()
        nbd.flush()
        nbd.read(0, buffer(10))


@pytest.mark.parametrize("mode", [Mode.SIMPLE, Mode.STRUCTURED, Mode.EXTENDED])
def test_a_failed_request_leaves_the_connection(mode):
    disk = bytearray(os.urandom(SIZE))

    def fail(call, request):
        if mode is Mode.SIMPLE:
            call.simple(request, 5)
        else:
            call.error(request, 5, b"bad sector")

    def script(call):
        call.negotiate(size=SIZE, mode=mode)
        first, second, third, fourth = call.requests(4)
        fail(call, second)
        for request in (first, third, fourth):
            content = disk[request.offset : request.offset + request.length]
            if mode is Mode.SIMPLE:
                call.simple(request, 0, content)
            else:
                call.data(request, request.offset, content, done=True)
        call.serve(disk)

    with connected(script) as nbd:
        with pytest.raises(errors.RequestFailed) as e:
            nbd.read(0, buffer(SIZE))
        assert e.value.code == 5
        assert nbd.is_alive
        view = buffer(MIB)
        nbd.read(100, view)
        assert view == disk[100 : 100 + MIB]


def test_no_space():
    def script(call):
        call.negotiate()
        call.error(call.request(), 28, b"disk full")

    with connected(script) as nbd:
        with pytest.raises(errors.RequestFailed) as e:
            nbd.write(0, memoryview(b"x"))
        assert str(e.value) == "NBD write failed: disk full (No space left on device)"
        assert nbd.is_alive


def test_settled_throws_away_what_is_under_way():
    disk = bytearray(os.urandom(SIZE))
    with connected(serving(disk)) as nbd:
        with pytest.raises(ZeroDivisionError), nbd.settled():
            for start in (0, MIB):
                nbd.submit(client.SentCommand(Command.READ, start, 1000))
            raise ZeroDivisionError
        assert nbd.is_alive
        view = buffer(1000)
        nbd.read(5, view)
        assert view == disk[5:1005]


def test_an_interrupt_of_the_keyboard_closes():
    with connected(serving(bytearray(SIZE))) as nbd:
        with pytest.raises(KeyboardInterrupt), nbd.settled():
            nbd.submit(client.SentCommand(Command.READ, 0, 1000))
            raise KeyboardInterrupt
        assert not nbd.is_alive


# Connections that die


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_hostile_server(path):
    """Any way to misbehave ends in the error that says so, soon, and leaves a closed connection."""
    hostile = load(path)
    # Read before the range has a before.
    offset = 4096 + 100
    # Short only where the time-out is what this is about: others have time to misbehave.
    is_slow = hostile.EXPECTED is errors.TimedOut
    timeout = getattr(hostile, "TIMEOUT", 0.2 if is_slow else DEADLINE)

    def use(location):
        with connect(location, connect_timeout=timeout, reply_timeout=timeout) as nbd:
            nbd.read(offset, buffer(1000))
            list(status.zero_extents(nbd, offset, 1000))
            nbd.flush()

    with Peer(hostile.script) as peer, pytest.raises(hostile.EXPECTED, match=hostile.MESSAGE):
        use(peer.location)


def test_hostile_servers_are_found():
    assert len(HOSTILE) > 25


def test_truncated_at_each_byte():
    """A server that goes away at any byte of a whole conversation is a server that went away."""
    for limit in itertools.count():
        left = limit

        def script(call, limit=limit):
            send = call.send

            def send_some(data):
                nonlocal left
                send(data[:left])
                left -= len(data)
                if left < 0:
                    call.hang_up()

            call.send = send_some
            call.negotiate()
            request = call.request()
            call.data(request, request.offset, b"abc")
            call.hole(request, request.offset + 3, 7, done=True)
            request = call.request()
            call.status(request, [(1000, 3)])
            call.wait_for_hangup()

        with Peer(script) as peer:
            try:
                with connect(peer.location) as nbd:
                    nbd.read(0, buffer(10))
                    assert len(list(status.zero_extents(nbd, 0, 1000))) == 1
            except errors.Disconnected:
                continue
        break
    assert limit > 200


def test_interrupt():
    is_waiting = threading.Event()

    def script(call):
        call.negotiate()
        call.request()
        is_waiting.set()
        call.wait_for_hangup()

    with connected(script) as nbd:
        interrupter = threading.Thread(target=lambda: is_waiting.wait() and nbd.interrupt())
        interrupter.start()
        with pytest.raises(errors.Disconnected):
            nbd.read(0, buffer(10))
        interrupter.join()
        assert not nbd.is_alive


@pytest.mark.parametrize(("size", "lengths"), [(SIZE, [client.OPENING]), (client.OPENING - 1, [])])
def test_warm_up(size, lengths):
    requests = []
    with connected(recording(requests, size=size)) as nbd:
        nbd.warm_up()
        nbd.read(0, buffer(512))
    assert [r.length for r in requests if r.kind == Command.READ] == [*lengths, 512]
