"""A connection to an HTTP server, over a pair of sockets."""

from __future__ import annotations

import select
import socket
import threading
import weakref

import pytest
from backends.contract import pattern
from fakes.garbage import uncollected
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.origin.connection import BUFFER_SIZE, Lost, Peer


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    peer = Peer(near, DEADLINE)
    peer.begin("read")
    yield peer, far
    peer.close()
    far.close()


def hurried(pair):
    """Make the peer lose its patience at once."""
    peer, far = pair
    peer._timeout = 0.01
    peer.begin("read")
    return peer, far


def test_read_until(pair):
    peer, far = pair
    far.sendall(b"one\r\n\r\ntwo\r\n\r\nrest")
    assert peer.read_until(b"\r\n\r\n") == b"one"
    assert peer.read_until(b"\r\n\r\n") == b"two"
    view = memoryview(bytearray(10))
    assert peer.readinto(view) == 4
    assert view[:4] == b"rest"


@pytest.mark.parametrize("cut", range(1, 9))
def test_read_until_in_two_pieces(pair, cut):
    peer, far = pair
    data = b"head\r\n\r\nx"
    far.sendall(data[:cut])
    results = []
    thread = threading.Thread(target=lambda: results.append(peer.read_until(b"\r\n\r\n")))
    thread.start()
    far.sendall(data[cut:])
    thread.join()
    assert results == [b"head"]
    view = memoryview(bytearray(1))
    assert peer.readinto(view) == 1
    assert view == b"x"


def test_read_until_has_a_limit(pair):
    peer, far = pair
    thread = threading.Thread(target=lambda: far.sendall(b"x" * (2 * BUFFER_SIZE)))
    thread.start()
    with pytest.raises(errors.BackendUntrusted, match="no HTTP"):
        peer.read_until(b"\r\n")
    thread.join()


@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_readinto(pair, size):
    peer, far = pair
    data = bytes(range(256)) * 4
    far.sendall(data)
    far.shutdown(socket.SHUT_WR)
    got = bytearray()
    view = memoryview(bytearray(size))
    while count := peer.readinto(view):
        got += view[:count]
    assert got == data


@pytest.mark.parametrize("first", [0, 1, 99])
def test_fill(pair, first):
    peer, far = pair
    data = bytes(range(256)) * 1000
    far.sendall(b"head\r\n" + data[:first])
    assert peer.read_until(b"\r\n") == b"head"
    thread = threading.Thread(target=far.sendall, args=(data[first:] + b"more",))
    thread.start()
    view = memoryview(bytearray(len(data)))
    assert peer.fill(view) == len(data)
    assert view == data
    thread.join()
    assert peer.readinto(memoryview(bytearray(10))) == 4


def test_fill_to_the_end(pair):
    peer, far = pair
    far.sendall(b"half")
    far.close()
    assert peer.fill(memoryview(bytearray(100_000))) == 4
    assert peer.fill(memoryview(bytearray(100_000))) == 0


def test_fill_takes_too_long(pair):
    peer, far = hurried(pair)
    far.sendall(b"half")
    with pytest.raises(errors.BackendTimeout):
        peer.fill(memoryview(bytearray(100_000)))


def test_end_before_mark(pair):
    peer, far = pair
    far.sendall(b"half")
    far.close()
    with pytest.raises(Lost) as e:
        peer.read_until(b"\r\n")
    assert not e.value.is_unheard


def test_end_at_once(pair):
    peer, far = pair
    far.close()
    with pytest.raises(Lost) as e:
        peer.read_until(b"\r\n")
    assert e.value.is_unheard


def test_send_to_nobody(pair):
    peer, far = pair
    far.close()
    with pytest.raises(Lost) as e:
        peer.send(b"x")
    assert e.value.is_unheard


def test_send_large(pair):
    peer, far = pair
    data = pattern(3 * 1024 * 1024)
    thread = threading.Thread(target=peer.send, args=(memoryview(data),))
    thread.start()
    received = bytearray()
    while len(received) < len(data):
        received += far.recv(1024 * 1024)
    thread.join()
    assert received == data


def test_send_unless_heard(pair):
    """More than fits on the way: who only sends would wait for ever."""
    peer, far = pair
    answered = threading.Thread(target=lambda: (select.select([far], [], [], DEADLINE), far.sendall(b"no\r\n")))
    answered.start()
    assert peer.send_unless_heard(bytes(64 * 1024**2)) is False
    answered.join()
    assert peer.read_until(b"\r\n") == b"no"
    assert peer.lost("x").is_unheard is False


def test_send_unless_heard_to_a_reader(pair):
    peer, far = pair
    data = bytes(range(256)) * 32 * 1024
    received = bytearray()

    def receive():
        while len(received) < len(data):
            received.extend(far.recv(1024**2))

    reader = threading.Thread(target=receive)
    reader.start()
    assert peer.send_unless_heard(data) is True
    reader.join()
    assert received == data


def test_send_unless_heard_to_one_who_spoke_before(pair):
    peer, far = pair
    far.sendall(b"one two ")
    assert peer.read_until(b" ") == b"one"
    assert peer.send_unless_heard(b"data") is False


def test_send_unless_heard_to_one_who_stalls(pair):
    peer, _ = hurried(pair)
    with pytest.raises(errors.BackendTimeout, match="does not answer in time"):
        peer.send_unless_heard(bytes(64 * 1024**2))


def test_send_unless_heard_to_nobody(pair):
    peer, far = pair
    far.close()
    assert peer.send_unless_heard(b"data") is False
    with pytest.raises(Lost):
        peer.read_until(b" ")


def test_timeouts(pair):
    peer, _ = hurried(pair)
    with pytest.raises(errors.BackendTimeout):
        peer.read_until(b"\r\n")
    with pytest.raises(errors.BackendTimeout):
        peer.readinto(memoryview(bytearray(100_000)))
    with pytest.raises(errors.BackendTimeout):
        peer.send(bytes(100 * 1024 * 1024))


def test_patience(pair):
    peer, far = hurried(pair)
    peer.begin("checksum", is_patient=True)
    timer = threading.Timer(0.1, far.sendall, [b"x\r\n"])
    timer.start()
    assert peer.read_until(b"\r\n") == b"x"
    timer.join()


def test_has_input(pair):
    peer, far = pair
    assert not peer.has_input()
    far.sendall(b"x\r\n")
    assert peer.has_input()
    assert peer.has_input()
    assert peer.read_until(b"\r\n") == b"x"
    assert not peer.has_input()
    far.close()
    assert peer.has_input()


def test_interrupt(pair):
    peer, _ = pair
    raised = []

    def work():
        try:
            peer.readinto(memoryview(bytearray(100_000)))
        except errors.Error as e:
            raised.append(type(e))

    thread = threading.Thread(target=work)
    thread.start()
    peer.interrupt()
    thread.join(DEADLINE)
    assert raised == [errors.OperationCanceled]
    with pytest.raises(errors.OperationCanceled):
        peer.send(b"x")
    with pytest.raises(errors.OperationCanceled):
        peer.read_until(b"\r\n")


def test_plain_socket_only_while_nothing_is_buffered(pair):
    peer, far = pair
    assert peer.socket is not None
    far.sendall(b"a\r\nb")
    peer.read_until(b"\r\n")
    assert peer.socket is None
    peer.readinto(memoryview(bytearray(1)))
    assert peer.socket is not None


def test_end_requests(pair):
    peer, far = pair
    peer.end_requests()
    assert far.recv(10) == b""
    far.sendall(b"answer\r\n")
    assert peer.read_until(b"\r\n") == b"answer"


def test_end_requests_to_nobody(pair):
    peer, far = pair
    far.close()
    peer.close()
    with pytest.raises(Lost):
        peer.end_requests()


def test_nothing_is_left_for_the_collector():
    ours, theirs = socket.socketpair()
    with ours, theirs, uncollected():
        reference = weakref.ref(Peer(ours, DEADLINE))
        assert reference() is None
