"""A connection is made when it is needed, and made again when it broke; what goes wrong is told as errors of ours."""

from __future__ import annotations

import contextlib
import errno

import pytest
from fakes.nbdpeer import Peer

from ovirt_imageio import errors
from ovirt_imageio.backends import nbdconnection
from ovirt_imageio.backends.nbdconnection import NBDConnection, translated
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.nbd.batches import AGREEMENT
from ovirt_imageio.nbd.errors import Disconnected, RequestFailed, TimedOut
from ovirt_imageio.net.lifeline import Lifeline

SIZE = 1024**2


@contextlib.contextmanager
def serving(hangs_up=False):
    """Yield a connection to a server that reads zeroes, or hangs up at the first request, and its writes."""

    def script(call):
        call.negotiate(size=SIZE)
        if hangs_up:
            call.request()
            call.hang_up()
        else:
            call.serve(bytearray(SIZE))

    writes = UnflushedWrites()
    with Peer(script) as peer:
        connection = NBDConnection(peer.location, Lifeline())
        try:
            yield connection, writes, peer
        finally:
            connection.close(writes)


def read(connection, writes):
    with connection.request("read", writes) as nbd:
        nbd.read(0, memoryview(bytearray(512)))


def test_made_when_it_is_needed():
    with serving() as (connection, writes, peer):
        assert connection.client is None
        for _ in range(3):
            read(connection, writes)
        assert len(peer.calls) == 1
        assert not writes.is_lost


def test_made_again_when_it_broke():
    with serving(hangs_up=True) as (connection, writes, peer):
        for number in (1, 2):
            writes.note_write()
            with pytest.raises(errors.StorageError):
                read(connection, writes)
            assert len(peer.calls) == number
        assert writes.is_lost


def test_one_that_we_closed_did_not_break():
    with serving() as (connection, writes, _):
        read(connection, writes)
        writes.note_write()
        connection.client.close()
        connection.forget_closed()
        assert connection.client is None
        read(connection, writes)
        assert not writes.is_lost
        # One that lives is kept.
        connection.forget_closed()
        assert connection.client is not None


def test_close_notes_a_break():
    with serving() as (connection, writes, _):
        read(connection, writes)
        writes.note_write()
        connection.client.close()
        connection.close(writes)
        assert writes.is_lost


def test_replaced():
    with serving() as (connection, writes, _):
        read(connection, writes)
        first = connection.client
        second = connection.replace(AGREEMENT)
        assert connection.client is second
        assert not first.is_alive


def test_interrupted_just_when_it_is_connected(monkeypatch):
    """The connection came about, but no other thread could have interrupted it yet."""
    connect = nbdconnection.connect

    def connect_and_cut(*args, line, **kwargs):
        client = connect(*args, line=line, **kwargs)
        line.cut()
        return client

    monkeypatch.setattr(nbdconnection, "connect", connect_and_cut)
    with serving() as (connection, writes, _), pytest.raises(errors.StorageError):
        read(connection, writes)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (RequestFailed("write", 28, "full"), errors.NoSpace, errno.ENOSPC),
        (RequestFailed("write", 5, "bad"), errors.StorageError, errno.EIO),
        (TimedOut("late"), errors.BackendTimeout, errno.ETIMEDOUT),
        (Disconnected("gone"), errors.StorageError, errno.ENOTCONN),
    ],
    ids=["full", "bad", "late", "gone"],
)
def test_translated(error, kind, code):
    told = translated("write", error)
    assert type(told) is kind
    assert told.code == code
