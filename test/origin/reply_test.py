"""Answers as they come from the wire: framing, and what is refused."""

from __future__ import annotations

import socket
import threading

import pytest
from fakes.waiting import DEADLINE
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.origin.connection import BUFFER_SIZE, Peer
from ovirt_imageio.origin.reply import Reply


class Exchange:
    """The far end sends all of `data`, in pieces of `step` bytes, and closes; remembers what was released."""

    def __init__(self, data: bytes, step: int = 1024 * 1024) -> None:
        near, self._far = socket.socketpair()
        self.peer = Peer(near, DEADLINE)
        self.peer.begin("read")
        self.released: list[bool] = []
        self._thread = threading.Thread(target=self._send, args=(data, step))
        self._thread.start()

    def _send(self, data: bytes, step: int) -> None:
        try:
            for start in range(0, len(data), step):
                self._far.sendall(data[start : start + step])
        except OSError:
            pass
        finally:
            self._far.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.peer.close()
        self._thread.join()

    def reply(self, method: str = "GET") -> Reply:
        return Reply(self.peer, method, lambda peer, is_reusable: self.released.append(is_reusable))


def exchange(data: bytes, method: str = "GET", step: int = 1024 * 1024):
    """Return status, headers, body, and whether the connection can be used again."""
    with Exchange(data, step) as it:
        with it.reply(method) as reply:
            body = b"".join(reply.chunks())
        [is_reusable] = it.released
        return reply.status, reply.headers, body, is_reusable


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "data,body,is_reusable",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", False),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", b"x", True),
    ],
)
def test_framing(data, body, is_reusable, step):
    status, _, got, reusable = exchange(data, step=step)
    assert status in (200, 204)
    assert got == body
    assert reusable == is_reusable


def test_headers():
    _, headers, _, _ = exchange(
        "HTTP/1.1 200 OK\r\nA: 1\r\nb-C:  x y \r\nName: ü\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert headers == {"a": "1", "b-c": "x y", "name": "ü", "content-length": "0"}


def test_head_has_no_body():
    assert exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "HEAD")[2:] == (b"", True)


def test_refused_head_may_have_a_body():
    assert exchange(b"HTTP/1.1 405 No\r\nContent-Length: 2\r\n\r\nno", "HEAD")[2:] == (b"", False)


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ],
)
def test_truncated(data, step):
    with pytest.raises(errors.BackendUnavailable, match="lost"):
        exchange(data, step=step)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * (BUFFER_SIZE + 10),
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * (2 * BUFFER_SIZE),
    ],
)
def test_no_http(data):
    with pytest.raises(errors.BackendUntrusted, match="no HTTP"):
        exchange(data)


def test_leaving_early_reads_a_short_rest():
    with Exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as it:
        with it.reply():
            pass
        assert it.released == [True]


def test_leaving_early_drops_a_long_rest():
    size = 1024 * 1024
    with Exchange(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)) as it:
        with it.reply():
            pass
        assert it.released == [False]


def test_leaving_with_an_error_drops_it():
    with Exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as it:
        with pytest.raises(KeyError), it.reply():
            raise KeyError
        assert it.released == [False]


@given(st.binary(max_size=200), st.sampled_from(["GET", "HEAD"]))
def test_any_bytes_are_an_answer_or_refused(data, method):
    """And it does not matter in which pieces they come."""
    outcomes = []
    for step in (1000, 1):
        try:
            outcomes.append(exchange(b"HTTP/1.1 200 OK\r\n" + data, method, step))
        except errors.BackendUnavailable as e:
            outcomes.append(str(e))
    assert outcomes[0] == outcomes[1]


HEADS = st.sampled_from([b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b""])


@given(st.lists(HEADS, max_size=3), st.binary(max_size=20))
def test_any_body_is_taken_or_refused(lines, body):
    outcomes = []
    for step in (1000, 1):
        try:
            outcomes.append(exchange(b"HTTP/1.1 200 OK\r\n" + b"".join(lines) + b"\r\n" + body, "GET", step))
        except errors.BackendUnavailable as e:
            outcomes.append(str(e).partition(" bytes before")[0])
    assert outcomes[0] == outcomes[1]


def test_length_counts_down():
    with Exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as it, it.reply() as reply:
        assert reply.length == 5
        assert reply.read(3) == b"hel"
        assert reply.length == 2
        assert reply.read(10) == b"lo"
        assert reply.length == 0
        assert reply.read(1) == b""


def test_socket_is_for_bodies_of_known_length():
    with Exchange(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") as it, it.reply() as reply:
        assert reply.socket is None
