"""Answers as they come from the wire: framing, and what is refused."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from fakes.waiting import DEADLINE
from fuzz.mutations import mutated
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
    check_pieces(b"HTTP/1.1 200 OK\r\n" + b"".join(lines) + b"\r\n" + body, "GET")


ANSWERS = [
    b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/9\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\na: b\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not Found\r\nConnection: close\r\n\r\nhello",
]


@given(st.sampled_from(ANSWERS), st.sampled_from(["GET", "HEAD"]), st.data())
def test_changed_answers(answer, method, choices):
    check_pieces(mutated(answer, choices.draw), method)


def check_pieces(data: bytes, method: str) -> None:
    """Fail unless an answer is taken or refused, whatever the pieces are in which it comes."""
    outcomes = []
    for step in (1000, 1):
        try:
            outcomes.append(exchange(data, method, step))
        except errors.BackendUnavailable as e:
            outcomes.append(str(e).partition(" bytes before")[0])
    assert outcomes[0] == outcomes[1]


class Trickle:
    """The far end sends `head`, then `drop` again and again, each before the patience of the reader is over."""

    PATIENCE = 0.4

    def __init__(self, head: bytes, drop: bytes, patience: float = PATIENCE) -> None:
        near, self._far = socket.socketpair()
        self.peer = Peer(near, patience)
        self.peer.begin("read")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._send, args=(head, drop))
        self._thread.start()

    def _send(self, head: bytes, drop: bytes) -> None:
        with contextlib.suppress(OSError):
            self._far.sendall(head)
            while not self._is_over.wait(self.PATIENCE / 20):
                self._far.sendall(drop)

    def __enter__(self):
        return self.peer

    def __exit__(self, *exc_info):
        self._is_over.set()
        self.peer.close()
        self._thread.join()
        self._far.close()


def ignore(peer: Peer, is_reusable: bool) -> None:
    pass


@pytest.mark.parametrize(
    "head,drop",
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    ],
)
def test_head_that_trickles(head, drop):
    """Something always comes in time, but the whole does not."""
    with Trickle(head, drop) as peer, pytest.raises(errors.BackendTimeout):
        Reply(peer, "GET", ignore)


def test_head_that_never_ends_though_it_is_fast():
    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                far.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    near, far = socket.socketpair()
    peer = Peer(near, 0.1)
    peer.begin("read")
    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(errors.BackendTimeout):
        Reply(peer, "GET", ignore)
    peer.close()
    thread.join()
    far.close()


@pytest.mark.parametrize(
    "head,drop",
    [
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 400 Bad\r\n\r\n", b"x"),
        (b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n1", b";"),
        (b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
)
def test_short_body_that_trickles(head, drop):
    with Trickle(head, drop) as peer:
        reply = Reply(peer, "GET", ignore)
        with pytest.raises(errors.BackendTimeout):
            reply.read(1000)


def test_data_may_come_slowly():
    """A slow network is not a server that holds us: each step counts."""
    with Trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x", patience=1.5) as peer:
        view = memoryview(bytearray(100))
        assert Reply(peer, "GET", ignore).fill(view) == 100


def test_patient_request_has_no_deadline():
    with Trickle(b"", b"HTTP/1.1 102 Processing\r\n\r\n") as peer:
        peer.begin("compute the checksum", is_patient=True)
        waking = threading.Timer(3 * Trickle.PATIENCE, peer.interrupt)
        waking.start()
        with pytest.raises(errors.OperationCanceled):
            Reply(peer, "GET", ignore)
        waking.join()


def test_too_many_trailers():
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 101 + b"\r\n"
    with pytest.raises(errors.BackendUntrusted, match="trailers"):
        exchange(data)


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
