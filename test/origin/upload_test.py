"""An upload, over a pair of sockets: what is sent, and what counts when it ends in one of its ways."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
from backends.contract import MIB, Bytes, Progress
from fakes.waiting import DEADLINE

from ovirt_imageio.origin.connection import Lost, Peer
from ovirt_imageio.origin.upload import STEP, CountedBody, Refused, Upload, Zeroes

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Pair:
    """An upload, and the far end of its connection; `released` tells whether that can be used again."""

    def __init__(self, **options: Any) -> None:
        near, self.far = socket.socketpair()
        self.far.settimeout(DEADLINE)
        self.peer = Peer(near, DEADLINE)
        self.peer.begin("write")
        self.released: list[bool] = []
        self.upload = Upload(self.peer, lambda peer, is_reusable: self.released.append(is_reusable), **options)

    def received(self) -> bytes:
        """Return what came until now."""
        return self.far.recv(MIB)

    def close(self) -> None:
        self.peer.close()
        self.far.close()


@pytest.fixture
def plain():
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture
def chunked():
    pair = Pair(is_chunked=True)
    yield pair
    pair.close()


class Poor(socket.socket):
    """A socket for which the system has no memory to send."""

    def send(self, *_: object) -> int:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


def test_server_does_not_wait_for_what_cannot_be_sent():
    """Both sides waited for each other, until a time-out: the server for the body, and we for its answer."""
    near, far = socket.socketpair()
    with far, Poor(fileno=near.detach()) as poor:
        far.settimeout(DEADLINE)
        peer = Peer(poor, DEADLINE)
        peer.begin("write")
        with Upload(peer, lambda peer, is_reusable: peer.close()) as upload:
            with pytest.raises(Refused):
                upload.write(memoryview(b"data"))
            assert far.recv(1) == b""


def test_known_length(plain):
    with plain.upload as upload:
        upload.write(memoryview(b"ab"))
        upload.write(memoryview(b"c"))
        upload.end()
        assert plain.received() == b"abc"
        plain.far.sendall(OK)
        with upload.reply() as reply:
            assert reply.status == 200
    assert plain.released == [True]


@pytest.mark.parametrize(
    "pieces,sent",
    [
        ([], b"0\r\n\r\n"),
        ([b"a"], b"1\r\na\r\n0\r\n\r\n"),
        ([b"", b"a", b""], b"1\r\na\r\n0\r\n\r\n"),
        ([b"x" * 16, b"yz"], b"10\r\n" + b"x" * 16 + b"\r\n2\r\nyz\r\n0\r\n\r\n"),
    ],
)
def test_chunks(chunked, pieces, sent):
    with chunked.upload as upload:
        for piece in pieces:
            upload.write(memoryview(piece))
        upload.end()
        assert chunked.received() == sent
        chunked.far.sendall(OK)
        with upload.reply() as reply:
            assert reply.status == 200
    assert chunked.released == [True]


@pytest.mark.parametrize("step", ["write", "end"])
def test_answer_before_the_end(chunked, step):
    with chunked.upload as upload:
        upload.write(memoryview(b"ab"))
        chunked.far.sendall(b"HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull")
        with pytest.raises(Refused):
            upload.write(memoryview(b"c")) if step == "write" else upload.end()
        with upload.reply() as reply:
            assert (reply.status, reply.read(10)) == (507, b"full")


def test_server_that_leaves(plain):
    plain.far.close()
    with plain.upload as upload:
        with pytest.raises(Refused):
            upload.write(memoryview(bytes(10 * MIB)))
        with pytest.raises(Lost):
            upload.reply()
    assert plain.released == [False]


def test_given_up(plain):
    with plain.upload as upload:
        upload.write(memoryview(b"ab"))
    assert plain.released == [False]


def test_cut(plain):
    with plain.upload as upload:
        upload.write(memoryview(b"ab"))
        plain.far.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: 3\r\n\r\nbad")
        with upload.cut() as reply:
            assert reply.status == 400
        assert plain.received() == b"ab"
        # The end.
        assert plain.received() == b""


# --- What counts ---


def send(pair: Pair, source: Bytes, length: int, progress: Progress, *, stored: bool = False) -> CountedBody:
    body = CountedBody(progress)
    with body:
        body.send(pair.upload, source, memoryview(bytearray(b"first")), length)
        if stored:
            body.stored = body.sent
    return body


def test_what_is_stored_counts(plain):
    progress = Progress()
    assert send(plain, Bytes(b"second"), 11, progress, stored=True).sent == 11
    assert plain.received() == b"firstsecond"
    assert progress.calls == [5, 5, 1]


def test_what_is_not_stored_is_taken_back(plain):
    progress = Progress()
    send(plain, Bytes(b"second"), 11, progress)
    assert progress.calls == [5, 5, 1, -11]


def test_source_that_ends_early(plain):
    assert send(plain, Bytes(b"2nd"), 100, Progress(), stored=True).sent == 8


def test_no_more_is_taken_than_fits(plain):
    source = Bytes(b"second")
    assert send(plain, source, 7, Progress(), stored=True).sent == 7
    assert source.readinto(memoryview(bytearray(10))) == 4


def test_source_that_fails(plain):
    progress = Progress()
    with pytest.raises(ConnectionResetError):
        send(plain, Bytes(b"2", error=ConnectionResetError()), 100, progress)
    assert progress.total == 0


def test_zeroes():
    view = memoryview(bytearray(b"x" * STEP))
    assert Zeroes().readinto(view) == STEP
    assert view == bytes(STEP)
