"""Replies look as the protocol document draws them, and leave together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ovirt_imageio.nbd.outbox import OUTBOX, Answer, Outbox
from ovirt_imageio.nbd.requests import Request
from ovirt_imageio.nbd.wire import Mode
from ovirt_imageio.net.stream import Data

READ = Request(0, 0, 7, 512, 4, 0)

SIMPLE = bytes.fromhex("67446698")
STRUCTURED = bytes.fromhex("668e33ef")
EXTENDED = bytes.fromhex("6e8a278c")
COOKIE = bytes.fromhex("0000000000000007")
OFFSET = bytes.fromhex("0000000000000200")


class Sent:
    """A channel that keeps what is sent, as one piece for each call."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def send_parts(self, parts: Sequence[Data]) -> None:
        self.pieces.append(b"".join(parts))


def make(mode: Mode) -> tuple[Outbox, Sent]:
    channel = Sent()
    return Outbox(channel, mode), channel


DONE = {
    Mode.SIMPLE: SIMPLE + bytes(4) + COOKIE,
    Mode.STRUCTURED: STRUCTURED + bytes.fromhex("0001 0000") + COOKIE + bytes(4),
    Mode.EXTENDED: EXTENDED + bytes.fromhex("0001 0000") + COOKIE + OFFSET + bytes(8),
}

ERROR = bytes.fromhex("0000001c 0002") + b"no"

FAILED = {
    Mode.SIMPLE: SIMPLE + bytes.fromhex("0000001c") + COOKIE,
    Mode.STRUCTURED: STRUCTURED + bytes.fromhex("0001 8001") + COOKIE + bytes.fromhex("00000008") + ERROR,
    Mode.EXTENDED: EXTENDED + bytes.fromhex("0001 8001") + COOKIE + OFFSET + bytes.fromhex("0000000000000008") + ERROR,
}

DATA = {
    Mode.SIMPLE: SIMPLE + bytes(4) + COOKIE + b"data",
    Mode.STRUCTURED: STRUCTURED + bytes.fromhex("0001 0001") + COOKIE + bytes.fromhex("0000000c") + OFFSET + b"data",
    Mode.EXTENDED: EXTENDED
    + bytes.fromhex("0001 0001")
    + COOKIE
    + OFFSET
    + bytes.fromhex("000000000000000c")
    + OFFSET
    + b"data",
}


@pytest.mark.parametrize("mode", Mode)
def test_small_replies_leave_together(mode):
    outbox, channel = make(mode)
    outbox.done(READ)
    outbox.fail(READ, 28, "no")
    outbox.room_for_data(READ)[:] = b"data"
    outbox.data(READ)
    assert channel.pieces == []
    outbox.send()
    assert channel.pieces == [DONE[mode] + FAILED[mode] + DATA[mode]]
    outbox.send()
    assert len(channel.pieces) == 1


def test_a_full_outbox():
    outbox, _ = make(Mode.STRUCTURED)
    count = 0
    while not outbox.is_full:
        outbox.done(READ)
        count += 1
    assert count == -(-OUTBOX // 20)


def test_a_long_message_is_cut():
    outbox, channel = make(Mode.STRUCTURED)
    outbox.fail(READ, 5, "x" * 5000)
    outbox.send()
    assert len(channel.pieces[0]) == 20 + 6 + 1024


def test_status():
    outbox, channel = make(Mode.STRUCTURED)
    outbox.status(READ, 3, [(512, 0), (1024, 2)], True)
    assert outbox.is_full
    outbox.send()
    head = STRUCTURED + bytes.fromhex("0001 0005") + COOKIE + bytes.fromhex("00000014 00000003")
    assert channel.pieces == [head + bytes.fromhex("00000200 00000000 00000400 00000002")]


def test_extended_status():
    outbox, channel = make(Mode.EXTENDED)
    outbox.status(READ, 3, [(2**40, 2)], False)
    outbox.send()
    head = EXTENDED + bytes.fromhex("0000 0006") + COOKIE + OFFSET + bytes.fromhex("0000000000000018")
    body = bytes.fromhex("00000003 00000001 0000010000000000 0000000000000002")
    assert channel.pieces == [head + body]


def test_an_answer_in_pieces():
    outbox, channel = make(Mode.STRUCTURED)
    answer = Answer(outbox, READ, False)
    answer.write(memoryview(b"da"))
    answer.write(memoryview(b"ta"))
    size = bytes.fromhex("0000000a")
    assert channel.pieces == [
        STRUCTURED + bytes.fromhex("0000 0001") + COOKIE + size + OFFSET + b"da",
        STRUCTURED + bytes.fromhex("0001 0001") + COOKIE + size + bytes.fromhex("0000000000000202") + b"ta",
    ]


def test_a_simple_answer_has_one_header():
    outbox, channel = make(Mode.SIMPLE)
    answer = Answer(outbox, READ, True)
    answer.write(memoryview(b"da"))
    answer.write(memoryview(b"ta"))
    assert channel.pieces == [SIMPLE + bytes(4) + COOKIE + b"da", b"ta"]
