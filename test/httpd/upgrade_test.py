"""After 101 the bytes belong to another protocol, and the connection still knows when to end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes.sockets import ScriptedSocket, timeout

from ovirt_imageio import errors
from ovirt_imageio.httpd.peer import Peer
from ovirt_imageio.httpd.stream import open_stream
from ovirt_imageio.httpd.upgrade import Upgraded
from ovirt_imageio.net import eager


@pytest.fixture(autouse=True)
def idle() -> Iterator[None]:
    """Do not count as a thread that works for ever: a connection ends its work when it closes."""
    yield
    eager.end_work()


def make(*pieces):
    stream = open_stream(ScriptedSocket(pieces), 1)
    peer = Peer(stream, "local")
    return Upgraded(stream, peer), peer, stream


def receive(method, size=10):
    view = memoryview(bytearray(size))
    return bytes(view[: method(view)])


def test_what_came_with_the_head_is_first():
    upgraded, _, stream = make(b"more")
    stream.ahead = b"ahead"
    assert receive(upgraded.wait) == b"ahead"
    assert receive(upgraded.readinto) == b"more"
    assert receive(upgraded.wait) == b""


def test_send():
    upgraded, _, stream = make()
    upgraded.send_parts([b"one", memoryview(b"two")])
    assert stream.wire.sock.sent == b"onetwo"


def test_an_idle_client_stays_while_it_is_needed():
    upgraded, peer, _ = make(timeout, timeout, b"data")
    answers = [True, False]
    peer.stay_while(lambda: answers.pop(0))
    assert receive(upgraded.wait) == b""
    assert receive(upgraded.wait) == b"data"


def test_a_client_that_stops_amid_a_request_is_not_idle():
    upgraded, peer, _ = make(timeout)
    peer.stay_while(lambda: True)
    with pytest.raises(OSError):
        receive(upgraded.readinto)


def test_a_client_that_waits_is_not_busy():
    seen = []

    class Looking(ScriptedSocket):
        def recv_into(self, view, *arguments):
            seen.append(peer.is_busy)
            return super().recv_into(view, *arguments)

    stream = open_stream(Looking([b"data"]), 1)
    peer = Peer(stream, "local")
    peer.is_busy = True
    assert receive(Upgraded(stream, peer).wait) == b"data"
    assert seen == [False]
    assert peer.is_busy


def test_stop():
    upgraded, peer, _ = make(b"data")
    peer.is_stopping = True
    assert receive(upgraded.wait) == b""
    assert receive(upgraded.readinto) == b"data"


def test_abort_is_no_end():
    """A ticket that was removed is told apart from a client that left."""
    upgraded, _, stream = make()
    stream.is_interrupted = True
    with pytest.raises(errors.OperationCanceled):
        receive(upgraded.wait)
