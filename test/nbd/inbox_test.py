"""Requests come in any pieces, and are found whole; payloads are what follows them."""

from __future__ import annotations

import struct

import pytest

from ovirt_imageio.nbd.errors import ClientFault
from ovirt_imageio.nbd.inbox import INBOX, SMALL, Inbox, Payload
from ovirt_imageio.nbd.wire import Mode


class Pieces:
    """A channel on which these pieces come, one with each call."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.waits = 0

    def wait(self, view: memoryview) -> int:
        self.waits += 1
        return self.readinto(view)

    def readinto(self, view: memoryview) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        part, rest = piece[: len(view)], piece[len(view) :]
        if rest:
            self._pieces.insert(0, rest)
        view[: len(part)] = part
        return len(part)


def header(command: int, length: int = 512) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, 0, command, 7, 0, length)


def test_a_header_in_two_pieces():
    channel = Pieces(header(0)[:10], header(0)[10:])
    inbox = Inbox(channel)
    assert inbox.find(Mode.STRUCTURED) is None
    assert inbox.wait()
    assert inbox.find(Mode.STRUCTURED) is None
    assert inbox.wait()
    found = inbox.find(Mode.STRUCTURED)
    assert found is not None and found.cookie == 7
    # The first one waits for a request, however long; what has begun must go on.
    assert channel.waits == 1


def test_the_end():
    assert not Inbox(Pieces()).wait()
    inbox = Inbox(Pieces(b"x"))
    assert inbox.wait()
    with pytest.raises(ClientFault):
        inbox.wait()


def test_gather_what_is_here_and_what_comes():
    inbox = Inbox(Pieces(b"abc", b"def"))
    inbox.wait()
    assert inbox.holds(3) and not inbox.holds(4)
    assert bytes(inbox.gather(2)) == b"ab"
    assert inbox.take(3) == b"cde"
    assert inbox.take_all() == b"f"
    with pytest.raises(ClientFault):
        inbox.take(1)


def test_more_than_the_buffer_passes_through():
    data = bytes(range(256)) * (3 * INBOX // 256)
    inbox = Inbox(Pieces(data))
    inbox.wait()
    found = b"".join(inbox.take(SMALL) for _ in range(3 * INBOX // SMALL))
    assert found == data


def test_skip():
    inbox = Inbox(Pieces(bytes(3 * SMALL) + b"next"))
    inbox.skip(3 * SMALL)
    assert inbox.take(4) == b"next"


def test_payload():
    inbox = Inbox(Pieces(b"abc", b"def!"))
    inbox.wait()
    payload = Payload(inbox, 6)
    view = memoryview(bytearray(10))
    assert [payload.readinto(view) for _ in range(3)] == [3, 3, 0]
    assert payload.left == 0
    assert inbox.take(1) == b"!"


def test_a_payload_that_is_cut():
    payload = Payload(Inbox(Pieces(b"abc")), 6)
    view = memoryview(bytearray(10))
    assert payload.readinto(view) == 3
    with pytest.raises(ClientFault):
        payload.readinto(view)
