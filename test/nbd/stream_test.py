"""The stream sends and receives all of it or fails, and fails in time."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.garbage import uncollected
from fakes.waiting import DEADLINE
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.nbd.errors import Disconnected, TimedOut
from ovirt_imageio.nbd.stream import ServerStream
from ovirt_imageio.relay import Pipe

SPLICE = pytest.mark.skipif(not Pipe.is_supported, reason="Python has no splice()")

LARGE = 20 * 1024 * 1024


@pytest.fixture
def pair():
    """A stream, and the socket of the server."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE)
    stream = ServerStream(ours, DEADLINE)
    with theirs:
        yield stream, theirs
    stream.close()


def buffer(size):
    return memoryview(bytearray(size))


def receive_all(sock, size):
    data = bytearray()
    while len(data) < size:
        data += sock.recv(size - len(data))
    return bytes(data)


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_send_all(pair, size):
    stream, server = pair
    parts = [os.urandom(size) for _ in range(100)]
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(receive_all, server, 100 * size)
        stream.send_all(parts)
        assert job.result(DEADLINE) == b"".join(parts)


def test_receive_some(pair):
    stream, server = pair
    server.sendall(b"header")
    view = buffer(100)
    assert stream.receive_some(view) == 6
    assert view[:6] == b"header"
    server.close()
    with pytest.raises(Disconnected):
        stream.receive_some(view)


def test_gather(pair):
    stream, server = pair
    server.sendall(b"reply")
    assert stream.gather() == b"reply"
    assert stream.gather() == b"reply"
    stream.drop(2)
    view = buffer(3)
    stream.receive(view)
    assert view == b"ply"
    server.close()
    assert stream.gather() == b""
    with pytest.raises(Disconnected):
        stream.receive(view)


def test_send(pair):
    stream, server = pair
    stream.send(b"header")
    stream.send(b"header", memoryview(b"payload"))
    assert receive_all(server, 19) == b"headerheaderpayload"


@SPLICE
def test_receive_through_a_pipe(pair):
    stream, server = pair
    pipe = Pipe()
    with contextlib.closing(pipe):
        server.sendall(b"payload")
        assert stream.receive_pipe(pipe, 4) == len(pipe) == 4
        near, far = socket.socketpair()
        with near, far:
            pipe.drain(near, lambda count: None)
            assert far.recv(10) == b"payl"
        view = buffer(3)
        stream.receive(view)
        assert view == b"oad"
        server.close()
        with pytest.raises(Disconnected, match="closed the connection"):
            stream.receive_pipe(pipe, 4)


@SPLICE
def test_send_from_a_pipe(pair):
    stream, server = pair
    pipe = Pipe()
    with contextlib.closing(pipe), contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(sock) for sock in socket.socketpair())
        far.sendall(b"payload")
        pipe.fill(near, 7)
        stream.send_pipe(b"header", pipe)
    assert receive_all(server, 13) == b"headerpayload"


def test_small_replies_over_tcp_are_acknowledged_at_once():
    """A server that sends one small packet, and waits for its acknowledgement before the next one, is not slow."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        ours = socket.create_connection(listener.getsockname())
        stream = ServerStream(ours, DEADLINE)
        stack.callback(stream.close)
        server = stack.enter_context(listener.accept()[0])
        for _ in range(100):
            stream.send(b"request")
            assert receive_all(server, 7) == b"request"
            server.sendall(b"1")
            server.sendall(b"2")
            stream.receive(buffer(1))
            # Without help the kernel would wait 40 ms, from the second turn on.
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
            stream.receive(buffer(1))


def test_send_more_than_fits(pair):
    stream, server = pair
    payload = os.urandom(LARGE)
    received = []
    thread = threading.Thread(target=lambda: received.append(receive_all(server, LARGE + 6)))
    thread.start()
    stream.send(b"header", memoryview(payload))
    thread.join()
    assert received == [b"header" + payload]


def test_receive_what_comes_in_pieces(pair):
    stream, server = pair
    data = os.urandom(LARGE)
    thread = threading.Thread(target=server.sendall, args=(data,))
    thread.start()
    view = buffer(LARGE)
    stream.receive(view)
    thread.join()
    assert view == data


@given(st.binary(max_size=100), st.data())
def test_receive_any_split(data, draw):
    ours, server = socket.socketpair()
    stream = ServerStream(ours, DEADLINE)
    with server, contextlib.closing(stream):
        server.sendall(data)
        received = b""
        while len(received) < len(data):
            view = buffer(draw.draw(st.integers(1, len(data) - len(received))))
            stream.receive(view)
            received += bytes(view)
    assert received == data


@pytest.mark.parametrize("come", [0, 1, 9])
def test_the_server_hangs_up(pair, come):
    stream, server = pair
    server.sendall(b"x" * come)
    server.close()
    with pytest.raises(Disconnected, match="closed the connection"):
        stream.receive(buffer(10))


def test_nobody_takes_what_we_send(pair):
    stream, server = pair
    server.close()
    with pytest.raises(Disconnected, match="did not take a request: Broken pipe"):
        stream.send(b"x")


@pytest.mark.parametrize("come", [0, 1, 9])
def test_the_server_is_silent(pair, come):
    stream, server = pair
    stream.set_timeout(0.02)
    server.sendall(b"x" * come)
    with pytest.raises(TimedOut, match=r"did not answer within 0\.02 seconds"):
        stream.receive(buffer(10))


def test_the_server_takes_nothing(pair):
    stream, _ = pair
    stream.set_timeout(0.02)
    with pytest.raises(TimedOut, match="did not take a request"):
        stream.send(b"header", buffer(LARGE))


def test_is_ready(pair):
    stream, server = pair
    assert not stream.is_ready()
    server.sendall(b"x")
    assert stream.is_ready()
    stream.receive(buffer(1))
    assert not stream.is_ready()
    server.close()
    assert stream.is_ready()


def test_interrupt(pair):
    stream, _ = pair
    failures = []

    def wait():
        try:
            stream.receive(buffer(10))
        except Disconnected as e:
            failures.append(e)

    thread = threading.Thread(target=wait)
    thread.start()
    stream.interrupt()
    thread.join()
    assert len(failures) == 1


def test_close(pair):
    stream, server = pair
    stream.close()
    stream.close()
    stream.interrupt()
    assert server.recv(1) == b""
    with pytest.raises(Disconnected):
        stream.receive(buffer(1))


def test_a_plain_socket(pair):
    stream, _ = pair
    assert stream.is_plain
    assert stream.timeout == DEADLINE


def test_nothing_is_left_for_the_collector():
    ours, theirs = socket.socketpair()
    with ours, theirs, uncollected():
        reference = weakref.ref(ServerStream(ours, DEADLINE))
        assert reference() is None
