"""Batches: every reply finds its request, whatever comes together; what is no reply ends the connection."""

from __future__ import annotations

import contextlib
import os
import random

import pytest
from fakes.nbdpeer import Peer

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.batches import AGREEMENT, BUFFER, MAX_LENGTH
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.errors import Disconnected, ProtocolError, RequestFailed
from ovirt_imageio.nbd.wire import Command, CommandFlag, Mode

KIB = 1024
SIZE = 4 * BUFFER


@contextlib.contextmanager
def batches(script):
    with Peer(script) as peer, connect(peer.location, like=AGREEMENT) as nbd:
        assert nbd.export.mode is Mode.SIMPLE
        yield nbd.batches()


def serving(disk):
    def script(call):
        call.negotiate(size=len(disk), mode=Mode.SIMPLE)
        call.serve(disk)

    return script


def answering(answer, count=1):
    """A script: take requests, and answer them so."""

    def script(call):
        call.negotiate(size=SIZE, mode=Mode.SIMPLE)
        answer(call, *call.requests(count))

    return script


def test_reads_of_all_lengths():
    dice = random.Random(1)
    disk = bytearray(os.urandom(SIZE))
    ranges = [(dice.randrange(SIZE - MAX_LENGTH), dice.choice([1, 500, 64 * KIB, MAX_LENGTH])) for _ in range(100)]
    with batches(serving(disk)) as requests:
        for item in ranges:
            requests.read(item, *item)
        requests.send()
        seen = []
        while len(requests):
            for (start, length), view in requests.receive():
                assert view == disk[start : start + length]
                seen.append((start, length))
    assert seen == ranges


def test_writes_and_zeroes():
    disk = bytearray(os.urandom(SIZE))
    data = memoryview(os.urandom(SIZE))
    with batches(serving(disk)) as requests:
        for start in range(0, SIZE, 64 * KIB):
            requests.write(start, start, data[start : start + 64 * KIB])
        requests.zero("zero", 10, 100, CommandFlag.NONE)
        requests.send()
        done = []
        while len(requests):
            done += requests.receive()
    assert [item for item, _ in done] == [*range(0, SIZE, 64 * KIB), "zero"]
    assert not any(len(view) for _, view in done)
    assert disk == bytes(data[:10]) + bytes(100) + bytes(data[110:])


def test_flags_of_zeroes():
    seen = []

    def answer(call, request):
        seen.append(request)
        call.done(request)

    with batches(answering(answer)) as requests:
        requests.zero(1, 10, 100, CommandFlag.NO_HOLE)
        requests.send()
        requests.receive()
    assert [(r.kind, r.flags, r.offset, r.length) for r in seen] == [
        (Command.WRITE_ZEROES, CommandFlag.NO_HOLE, 10, 100)
    ]


def test_replies_in_any_order():
    def answer(call, *asked):
        for request in reversed(asked):
            call.simple(request, 0, bytes([request.offset]) * request.length)

    with batches(answering(answer, 3)) as requests:
        for number in range(3):
            requests.read(number, number, 100 + number)
        requests.send()
        found = {}
        while len(requests):
            found.update((item, bytes(view)) for item, view in requests.receive())
    assert found == {0: b"\0" * 100, 1: b"\1" * 101, 2: b"\2" * 102}


@pytest.mark.parametrize("step", [1, 3, 15, 17])
def test_replies_in_pieces(step):
    def answer(call, *asked):
        magic = wire.SIMPLE_REPLY_MAGIC
        data = b"".join(wire.SIMPLE_REPLY.pack(magic, 0, request.cookie) + b"x" * request.length for request in asked)
        for start in range(0, len(data), step):
            call.send(data[start : start + step])

    with batches(answering(answer, 3)) as requests:
        for number in range(3):
            requests.read(number, 0, 10)
        requests.send()
        found = []
        while len(requests):
            found += [(item, bytes(view)) for item, view in requests.receive()]
    assert found == [(number, b"x" * 10) for number in range(3)]


def test_error():
    with batches(answering(lambda call, request: call.simple(request, 28))) as requests:
        requests.write(1, 0, memoryview(b"data"))
        requests.send()
        with pytest.raises(RequestFailed) as error:
            requests.receive()
    assert (error.value.code, error.value.command) == (28, str(Command.WRITE))


@pytest.mark.parametrize(
    "answer",
    [
        lambda call, request: call.simple(request._replace(cookie=77)),
        lambda call, request: call.data(request, 0, b"x" * 10, done=True),
        lambda call, request: call.send(b"HTTP/1.1 200 OK\r\n\r\n"),
        lambda call, request: (call.simple(request, 0, b"x" * 10), call.simple(request, 0, b"x" * 10)),
    ],
    ids=["unknown", "structured", "another protocol", "twice"],
)
def test_what_is_no_reply(answer):
    with batches(answering(answer)) as requests:
        requests.read(1, 0, 10)
        requests.send()
        with pytest.raises(ProtocolError):
            for _ in range(2):
                requests.receive()


def test_server_that_leaves():
    with batches(answering(lambda call, request: call.send(b"x" * 5))) as requests:
        requests.read(1, 0, 10)
        requests.send()
        with pytest.raises(Disconnected):
            requests.receive()
