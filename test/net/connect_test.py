"""Connect to listening sockets, and to what does not answer."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from fakes import silent
from fakes.waiting import DEADLINE

from ovirt_imageio.net.connect import connect
from ovirt_imageio.net.lifeline import Lifeline


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture(params=["path", "abstract"])
def unix_address(request, tmp_path):
    if request.param == "path":
        return str(tmp_path / "sock")
    return "\0imageio-connect-test-" + str(tmp_path)[-60:]


@contextlib.contextmanager
def listen_unix(address, backlog=1):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(address)
        sock.listen(backlog)
        yield sock


def check(client, listener):
    """The two are connected."""
    server, _ = listener.accept()
    with client, server:
        client.sendall(b"hello")
        assert server.recv(5) == b"hello"


def test_tcp(listener):
    client = connect(listener.getsockname(), DEADLINE)
    assert client.gettimeout() == DEADLINE
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    check(client, listener)


def test_tcp_tries_every_address(listener, monkeypatch):
    host, port = listener.getsockname()
    resolve = socket.getaddrinfo
    with socket.socket() as closed:
        closed.bind((host, 0))
        silent_port = closed.getsockname()[1]
        found = resolve(host, silent_port, type=socket.SOCK_STREAM) + resolve(host, port, type=socket.SOCK_STREAM)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        check(connect(("two.example", port), DEADLINE), listener)


def test_tcp_refused():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            connect(closed.getsockname(), DEADLINE)


def test_tcp_unknown_host():
    with pytest.raises(OSError):
        connect(("no-such-host.invalid", 1), DEADLINE)


def test_tcp_silent():
    """The queue of a listener that never accepts gets full; then the kernel answers no more."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        with pytest.raises(TimeoutError):
            for _ in range(10):
                stack.enter_context(connect(listener.getsockname(), 0.05))


def cut_soon(line, call):
    """Call in a thread, and cut the line while that waits; return the error."""
    raised = []

    def run():
        try:
            call().close()
        except OSError as e:
            raised.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    # It may not wait yet: whenever it begins to, it must not go on.
    line.cut()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    return raised[0]


def test_tcp_is_cut():
    line = Lifeline()
    with silent.tcp(is_full=True) as server:
        assert not isinstance(cut_soon(line, lambda: connect(server.address, 10 * DEADLINE, line)), TimeoutError)


def test_tcp_is_cut_while_it_waits():
    """Not before it began, nor between two addresses: in the middle of the wait."""

    class Line(Lifeline):
        @contextlib.contextmanager
        def holding(self, sock):
            with super().holding(sock):
                threading.Thread(target=self.cut).start()
                yield

    line = Line()
    with silent.tcp(is_full=True) as server, pytest.raises(ConnectionAbortedError):
        connect(server.address, 10 * DEADLINE, line)


def test_cut_before(listener, tmp_path):
    line = Lifeline()
    assert not line.is_cut
    line.cut()
    line.cut()
    assert line.is_cut
    with pytest.raises(ConnectionAbortedError):
        connect(listener.getsockname(), DEADLINE, line)
    with listen_unix(str(tmp_path / "sock")), pytest.raises(ConnectionAbortedError):
        connect(str(tmp_path / "sock"), DEADLINE, line)


def test_unix_is_cut(unix_address):
    line = Lifeline()
    with contextlib.ExitStack() as stack:
        stack.enter_context(silent.unix(unix_address, is_full=True))
        error = cut_soon(line, lambda: connect(unix_address, 10 * DEADLINE, line))
    assert isinstance(error, ConnectionAbortedError)


def test_unix(unix_address):
    with listen_unix(unix_address) as listener:
        client = connect(unix_address, DEADLINE)
        assert client.gettimeout() == DEADLINE
        check(client, listener)


def test_unix_refused(tmp_path):
    path = str(tmp_path / "sock")
    with pytest.raises(FileNotFoundError):
        connect(path, DEADLINE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as closed:
        closed.bind(path)
        with pytest.raises(ConnectionRefusedError):
            connect(path, DEADLINE)


def test_unix_silent(unix_address):
    with contextlib.ExitStack() as stack:
        stack.enter_context(listen_unix(unix_address))
        with pytest.raises(TimeoutError):
            for _ in range(10):
                stack.enter_context(connect(unix_address, 0.05))


def test_unix_waits_for_a_busy_server(unix_address):
    """A full queue is no error: there will be room."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen_unix(unix_address, backlog=0))
        stack.enter_context(connect(unix_address, DEADLINE))
        late = []
        thread = threading.Thread(target=lambda: late.append(connect(unix_address, DEADLINE)))
        thread.start()
        stack.enter_context(listener.accept()[0])
        stack.enter_context(listener.accept()[0])
        thread.join()
        stack.enter_context(late[0])
