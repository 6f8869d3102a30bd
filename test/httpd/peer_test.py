"""A connection, as a handler knows it."""

from __future__ import annotations

import socket

import pytest

from ovirt_imageio import errors
from ovirt_imageio.httpd.peer import SHORTEST_TIMEOUT, Peer
from ovirt_imageio.httpd.stream import open_stream


@pytest.fixture
def sockets():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def stream(sockets):
    return open_stream(sockets[0], 1)


@pytest.fixture
def peer(stream):
    return Peer(stream, "client")


def test_identity(stream, peer):
    other = Peer(stream, "other")
    assert other.id > peer.id
    assert (peer.client, other.client) == ("client", "other")
    assert not peer.is_stopping


def test_activity(sockets, stream, peer):
    before = peer.activity()
    assert peer.activity() == before
    sockets[1].sendall(b"hello")
    assert stream.receive() == b"hello"
    assert peer.activity() != before


def test_has_left(sockets, peer):
    assert not peer.has_left()
    sockets[1].sendall(b"hello")
    sockets[1].close()
    assert peer.has_left()


def test_abort(stream, peer):
    assert not peer.is_aborted
    peer.abort()
    assert peer.is_aborted
    with pytest.raises(errors.OperationCanceled):
        stream.receive()


@pytest.mark.parametrize("seconds, timeout", [(5, 5), (0, SHORTEST_TIMEOUT)])
def test_set_timeout(stream, peer, seconds, timeout):
    peer.set_timeout(seconds)
    assert stream.timeout == timeout


def test_stay_while(peer):
    assert not peer.is_needed()
    peer.stay_while(lambda: False)
    assert not peer.is_needed()
    peer.stay_while(lambda: True)
    assert peer.is_needed()


def test_closers_are_called_once(peer, caplog):
    called = []
    peer.on_close(lambda: called.append("first"))
    peer.on_close(lambda: 1 / 0)
    peer.on_close(lambda: called.append("last"))
    peer.call_closers()
    peer.call_closers()
    assert called == ["last", "first"]
    assert "Cannot clean up connection" in caplog.text
