"""A client speaks raw bytes to a connection: good ones, bad ones, and too few."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading

import pytest
from fakes import toy
from fakes.kernelsocket import FakeTLS
from fakes.raw_client import RawClient
from fakes.sockets import split_at
from fakes.waiting import DEADLINE
from hypothesis import given, settings
from hypothesis import strategies as st

from ovirt_imageio.httpd.connection import Connection
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.refusal import Refusal
from ovirt_imageio.httpd.stream import open_stream
from ovirt_imageio.net.kernel_tls import KernelTLSSocket

GOOD = b"GET /echo/a HTTP/1.1\r\n\r\n"

# Time-outs that a test runs into are short, all others are long.
LONG = Limits(linger_timeout=DEADLINE)


@contextlib.contextmanager
def talking(app=None, limits=LONG, serve=None, before=None, ahead=b""):
    """Serve one connection in a thread, yield its client; what it sends `ahead` cannot come too late."""
    ours, theirs = socket.socketpair()
    theirs.sendall(ahead)
    connection = Connection(open_stream(ours, limits.io_timeout), "local", limits)
    if before is not None:
        before(connection)

    def run():
        if serve is None:
            connection.serve(app or toy.application())
        else:
            serve(connection)
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    with RawClient(theirs) as client:
        client.connection = connection
        client.thread = thread
        yield client
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_keep_alive():
    with talking() as client:
        for _ in range(3):
            assert client.ask(GOOD).json["path"] == "/echo/a"
        assert client.put("/echo/a", b"hello").json == {"size": 5}
        assert client.ask(GOOD).status == 200


def test_pipelined():
    put = b"PUT /echo/b HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"
    chunked = b"PUT /echo/b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with talking() as client:
        client.send((GOOD + put + chunked) * 100 + GOOD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        for _ in range(100):
            assert client.answer().json["path"] == "/echo/a"
            assert client.answer().json == {"size": 5}
            assert client.answer().json == {"size": 5}
        assert client.answer().closes
        assert client.is_closed()


@pytest.mark.parametrize(
    "data, closes",
    [
        (b"GET /echo/a HTTP/1.1\r\nconnection: close\r\n\r\n", True),
        (b"GET /echo/a HTTP/1.0\r\n\r\n", True),
        (b"GET /echo/a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
        (b"GET /echo/a HTTP/1.1\r\nHost: a\r\n\r\n", False),
    ],
)
def test_close(data, closes):
    with talking() as client:
        assert client.ask(data).status == 200
        if closes:
            assert client.is_closed()
        else:
            assert client.ask(data).headers.get("connection") == ("keep-alive" if b"1.0" in data else None)


def test_requests_after_the_last_one_do_not_hide_its_answer():
    # What we do not read would make the kernel reset the connection, and the client lose the answer.
    with talking() as client:
        client.send(b"GET /echo/a HTTP/1.1\r\nconnection: close\r\n\r\n" + GOOD * 20000)
        assert client.answer().status == 200
        assert client.is_closed()


ACCEPTED = {
    "no host": b"GET /echo/a HTTP/1.1\r\n\r\n",
    "absolute form": b"GET http://host:1/echo/a HTTP/1.1\r\nHost: host:1\r\n\r\n",
    "leading empty line": b"\r\nGET /echo/a HTTP/1.1\r\n\r\n",
    "leading empty lines": b"\r\n\r\n\r\n\r\nGET /echo/a HTTP/1.1\r\n\r\n",
    "99 fields": b"GET /echo/a HTTP/1.1\r\n" + b"a: b\r\n" * 99 + b"\r\n",
    "authorization": b"GET /echo/a HTTP/1.1\r\nAuthorization: Bearer x\r\nCookie: a=b\r\nPUT: /\r\n\r\n",
    "escaped slash": b"GET /echo%2fa HTTP/1.1\r\n\r\n",
    "http 1.2": b"GET /echo/a HTTP/1.2\r\n\r\n",
    "unknown expectation": b"GET /echo/a HTTP/1.1\r\nExpect: nothing\r\n\r\n",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    with talking() as client:
        assert client.ask(ACCEPTED[name]).json["path"] == "/echo/a"
        assert client.ask(GOOD).status == 200


@pytest.mark.parametrize("path", ["/echo/%2e%2e/x", "/echo/../x", "/echo/..%2f..%2fetc"])
def test_dots_are_only_characters(path):
    with talking() as client:
        assert ".." in client.get(path).json["path"]


def put(fields: bytes, body: bytes = b"") -> bytes:
    return b"PUT /echo/a HTTP/1.1\r\n" + fields + b"\r\n" + body


REFUSED = {
    "garbage": (b"garbage\r\n\r\n", 400),
    "binary": (bytes(range(256)), 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "old protocol": (b"GET /echo/a\r\n\r\n", 400),
    "http2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "http3": (b"GET / HTTP/3\r\n\r\n", 505),
    "bare line feeds": (b"GET / HTTP/1.1\n\n", 400),
    "long request line": (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
    "long request line that does not end": (b"GET /" + b"x" * 5000, 414),
    "long header line": (b"GET / HTTP/1.1\r\na: " + b"x" * 65536 + b"\r\n\r\n", 431),
    "100 headers": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
    "endless header line": (b"GET / HTTP/1.1\r\na: " + b"x" * 300_000, 431),
    "endless header": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000, 431),
    "folded header": (b"GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n", 400),
    "blank before colon": (put(b"content-length : 5\r\n", b"hello"), 400),
    "two lengths": (put(b"content-length: 5\r\ncontent-length: 6\r\n", b"hello"), 400),
    "two equal lengths": (put(b"content-length: 5\r\nContent-Length: 5\r\n", b"hello"), 400),
    "length and coding": (put(b"content-length: 5\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "length with sign": (put(b"content-length: +5\r\n", b"hello"), 400),
    "negative length": (put(b"content-length: -5\r\n", b"hello"), 400),
    "length is no number": (put(b"content-length: x\r\n", b"hello"), 400),
    "unknown coding": (put(b"transfer-encoding: gzip\r\n", b"hello"), 501),
    "chunks in 1.0": (put(b"transfer-encoding: chunked\r\n", b"0\r\n\r\n").replace(b"1.1", b"1.0"), 400),
    "bad chunk size": (put(b"transfer-encoding: chunked\r\n", b"x\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk beyond its size": (put(b"transfer-encoding: chunked\r\n", b"5\r\nhello!\r\n0\r\n\r\n"), 400),
    "NUL in path": (b"GET /a%00b HTTP/1.1\r\n\r\n", 400),
    "body over the limit": (put(b"content-length: 9999999\r\n", b"x" * 3_000_000), 413),
    "refused before the body": (put(b"content-length: 9000000\r\n", b"x" * 9_000_000).replace(b"PUT", b"POST"), 403),
    "body that is not read": (put(b"content-length: 50\r\n", GOOD * 2).replace(b"PUT", b"PATCH"), 200),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    # The client gets to read why, even while it sends; then the connection is closed, and nothing else was answered.
    data, status = REFUSED[name]
    with talking() as client:
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        answer = client.answer()
        assert answer.status == status
        assert answer.closes
        assert client.is_closed()
        sender.join()
        if status != 200:
            assert re.fullmatch(r"[^\n]{3,200}\n", answer.text)
            assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        assert list(answer.headers)[:2] == ["server", "date"]


REPEATED = [data for data, status in REFUSED.values() if status != 200 and len(data) < 2000] + list(ACCEPTED.values())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(REPEATED), st.lists(st.integers(1, 200), max_size=5))
def test_pieces_make_no_difference(data, cuts):
    def answers(pieces):
        with talking() as client:
            for piece in pieces:
                # The other end may have refused what came so far.
                with contextlib.suppress(BrokenPipeError):
                    client.send(piece)
            with contextlib.suppress(OSError):
                client.end()
            received = client.read_to_end()
            return re.findall(rb"HTTP/1.1 [0-9]{3}", received)

    assert answers(split_at(data, cuts)) == answers([data])


def test_bytewise():
    with talking() as client:
        for piece in b"\r\nPUT /echo/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":
            client.send(bytes([piece]))
        assert client.answer().json == {"size": 5}
        assert client.ask(GOOD).status == 200


def test_continue_is_sent_only_to_who_is_welcome():
    expect = b"content-length: 5\r\nexpect: 100-continue\r\n"
    with talking() as client:
        assert client.ask(put(expect)).status == 100
        assert client.ask(b"hello").json == {"size": 5}
        answer = client.ask(put(expect).replace(b"PUT", b"POST"))
        assert (answer.status, answer.text, answer.closes) == (403, "No such ticket\n", True)
        assert client.is_closed()


@pytest.mark.parametrize("end", ["half close", "close"])
@pytest.mark.parametrize(
    "data", [b"", b"\r\n", b"G", b"GET / HTTP/1.1\r\n", put(b"content-length: 5\r\n", b"he"), GOOD, put(b"te: x\r\n")]
)
def test_client_disappears(data, end):
    with talking() as client:
        client.send(data)
        if end == "close":
            client.close()
            return
        client.end()
        if b"length" in data:
            answer = client.answer()
            assert (answer.status, answer.closes) == (400, True)
            assert "got only 2" in answer.text
        elif data.endswith(b"\r\n\r\n"):
            assert client.answer().status == 200
        assert client.is_closed()


def test_client_disappears_during_a_download():
    with talking() as client:
        client.send(b"GET /stream?size=100000000 HTTP/1.1\r\n\r\n")
        client.read_exactly(1000)
        client.close()


def test_error_after_the_start_closes_short(caplog):
    with talking() as client:
        client.send(b"GET /stream?size=100&stop=50 HTTP/1.1\r\n\r\n" + GOOD)
        received = client.read_to_end()
        assert b"content-length: 100\r\n" in received
        assert received.endswith(b"\r\n\r\n" + b"x" * 50)
    assert "cut short" in caplog.text


def test_error_within_chunks_closes_short():
    with talking() as client:
        client.send(b"GET /stream?size=100&stop=50&length=n HTTP/1.1\r\n\r\n")
        assert client.read_to_end().endswith(b"\r\n32\r\n" + b"x" * 50 + b"\r\n")


def test_chunked_response():
    with talking() as client:
        assert client.get("/stream?size=200000&length=n").body == b"x" * 200000
        assert client.ask(GOOD).status == 200
        client.send(b"GET /stream?size=200000&length=n HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        assert client.answer().body == b"x" * 200000


def test_header_deadline():
    limits = Limits(header_timeout=0.1, linger_timeout=DEADLINE)
    with talking(limits=limits) as client:
        trickle = threading.Event()

        def drip():
            client.send(b"GET / HTTP/1.1\r\na:")
            with contextlib.suppress(OSError):
                while not trickle.wait(0.02):
                    client.send(b"b")

        thread = threading.Thread(target=drip)
        thread.start()
        answer = client.answer()
        trickle.set()
        thread.join()
        assert (answer.status, answer.closes) == (408, True)
        assert client.is_closed()


def test_header_deadline_leaves_the_timeout_alone():
    with talking(limits=Limits(header_timeout=DEADLINE, linger_timeout=DEADLINE)) as client:
        timeout = client.connection._stream.timeout
        client.send(GOOD[:10])
        assert client.ask(GOOD[10:]).status == 200
        assert client.connection._stream.timeout == timeout


@pytest.mark.parametrize("fields", [b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"])
def test_body_stalls(fields):
    limits = Limits(io_timeout=0.05, linger_timeout=DEADLINE)
    with talking(limits=limits, ahead=put(fields, b"3")) as client:
        answer = client.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert client.is_closed()


@pytest.mark.parametrize("request_first", [False, True])
def test_idle(request_first):
    limits = Limits(idle_timeout=0.1, linger_timeout=DEADLINE)
    with talking(limits=limits, ahead=GOOD if request_first else b"") as client:
        if request_first:
            assert client.answer().status == 200
        assert client.is_closed()


def test_idle_but_needed():
    asked = threading.Semaphore(0)
    is_enough = threading.Event()

    def is_needed():
        asked.release()
        return not is_enough.is_set()

    def before(connection):
        connection.stay_while(lambda: False)
        connection.stay_while(is_needed)

    with talking(limits=Limits(idle_timeout=0.1, linger_timeout=DEADLINE), before=before) as client:
        for _ in range(2):
            assert asked.acquire(timeout=DEADLINE)
        assert client.ask(GOOD).status == 200
        is_enough.set()
        assert client.is_closed()


def test_set_timeout():
    def before(connection):
        connection.set_timeout(0)
        connection.set_timeout(0.05)

    with talking(before=before, ahead=put(b"content-length: 5\r\n", b"hel")) as client:
        assert client.answer().status == 408


def test_abort():
    gate = toy.Gate()
    with talking(toy.application(("/gate", gate))) as client:
        client.send(b"GET /gate HTTP/1.1\r\n\r\n")
        assert gate.entered.wait(DEADLINE)
        gate.connection.abort()
        assert gate.connection.is_aborted
        gate.opened.set()
        assert client.is_closed()


def test_abort_wakes_a_reader():
    with talking() as client:
        client.send(put(b"content-length: 5\r\nexpect: 100-continue\r\n"))
        assert client.answer().status == 100
        client.connection.abort()
        assert client.is_closed()


def test_on_close(caplog):
    called = []

    def fail():
        called.append("second")
        raise RuntimeError("in a callback")

    def before(connection):
        connection.on_close(lambda: called.append("first"))
        connection.on_close(fail)

    with talking(before=before) as client:
        client.end()
        client.thread.join(DEADLINE)
    assert called == ["second", "first"]
    assert "in a callback" in caplog.text


def test_on_close_does_not_wait_for_who_lingers():
    called = threading.Event()
    with talking(before=lambda connection: connection.on_close(called.set)) as client:
        assert client.ask(put(b"content-length: 5\r\n").replace(b"PUT", b"POST")).status == 403
        assert called.wait(DEADLINE)
        assert client.thread.is_alive()


def test_worn_keys_end_the_connection():
    """The answer that is sent with the last of them tells the client to connect anew."""

    def wear(connection):
        stream = connection._stream
        stream._channel = KernelTLSSocket(FakeTLS(stream.wire.sock), 0x303, limit=2)

    with talking(before=wear) as client:
        assert [client.ask(GOOD).headers.get("connection") for _ in range(3)] == [None, None, "close"]


def test_stopping_ends_after_the_response():
    gate = toy.Gate()
    with talking(toy.application(("/gate", gate))) as client:
        client.send(b"GET /gate HTTP/1.1\r\n\r\n" + GOOD)
        assert gate.entered.wait(DEADLINE)
        assert client.connection.is_busy
        client.connection.is_stopping = True
        gate.opened.set()
        assert client.answer().text == "open\n"
        assert client.is_closed()


def test_refuse():
    refusal = Refusal(503, "Come back later", {"retry-after": "5"})
    with talking(serve=lambda connection: connection.refuse(refusal)) as client:
        answer = client.ask(GOOD)
        assert (answer.status, answer.text, answer.closes) == (503, "Come back later\n", True)
        assert answer.headers["retry-after"] == "5"
        assert client.is_closed()


def test_identity():
    with talking() as first, talking() as second:
        assert second.connection.id > first.connection.id
        assert first.connection.client == "local"


def test_secrets_are_not_logged(caplog):
    caplog.set_level(logging.DEBUG)
    with talking() as client:
        assert client.get("/secret").status == 404
        assert client.get("/echo/secret", method="POST").status == 403
    with talking() as client:
        client.ask(b"GET /secret secret HTTP/1.1\r\n\r\n")
    assert "404" in caplog.text
    assert "403" in caplog.text
    assert "400" in caplog.text
    assert "secret" not in caplog.text


def test_clock():
    with talking() as client:
        client.ask(GOOD)
        client.end()
        client.thread.join(DEADLINE)
        assert str(client.connection.clock).startswith("[dispatch 1 ops, ")


@pytest.mark.parametrize(
    "data",
    [
        b"HEAD / HTTP/1.1\r\nno colon\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"HEAD / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"HEAD / HTTP/1.1\nhost: a\r\n",
        b"\r\nHEAD /" + b"a" * 5000,
    ],
)
def test_refused_head_has_no_body(data):
    with talking() as client:
        client.send(data)
        client.end()
        received = client.read_to_end()
        head, end, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 4")
        assert b"content-length: " in head
        assert (end, body) == (b"\r\n\r\n", b"")


def test_what_cannot_be_answered_is_refused_in_the_words_that_are_asked_for():
    """The fields could be read, the length of the body could not."""
    with talking() as client:
        answer = client.ask(b"PUT / HTTP/1.1\r\naccept: application/problem+json\r\ncontent-length: x\r\n\r\n")
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert answer.json["detail"] == "Content-Length is not one decimal number"


@pytest.mark.parametrize("data", [b"\n" + GOOD, b"\r" + GOOD, b"\r\n\n" + GOOD, b"\r\r\n" + GOOD])
def test_half_an_empty_line_before_a_request(data):
    for pieces in ([data], [data[start : start + 1] for start in range(len(data))]):
        with talking() as client:
            for piece in pieces:
                with contextlib.suppress(OSError):
                    client.send(piece)
            assert client.answer().status == 400


def test_empty_lines_byte_by_byte():
    with talking() as client:
        for start in range(len(b"\r\n\r\n" + GOOD)):
            client.send((b"\r\n\r\n" + GOOD)[start : start + 1])
        assert client.answer().status == 200
