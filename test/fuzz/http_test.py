"""What our server accepts, h11 accepts with the same meaning: nothing can be hidden from one of two readers."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

import h11
import pytest
from fuzz.http_inputs import INPUTS
from fuzz.mutations import mutated
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.httpd import head
from ovirt_imageio.httpd.connection import Connection
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.refusal import Refusal
from ovirt_imageio.httpd.stream import open_stream

LIMIT = 100_000

# Where we are more tolerant, on purpose, what h11 says: empty lines before a request, requests without Host, UTF-8 that
# is not escaped, and blanks before an extension of a chunk (RFC 9112, 7.1.1). We ignore trailers that would tell where
# the body ends, as RFC 9110, 6.5.1, wants; h11 refuses some of them. And h11 always closes after a request of HTTP/1.0;
# we do not if the client asks for that.
TOLERATED = (
    "HTTP/1.0: it wants to close",
    *("head: no request line received", "head: Missing mandatory Host", "head: illegal request line"),
    *("body: illegal chunk header", "body: Only Transfer-Encoding", "body: multiple Transfer-Encoding"),
    *("body: bad Content-Length", "body: conflicting Content-Length"),
)


class Heard(NamedTuple):
    """A request, as one of the readers understood it."""

    method: str
    target: tuple[str, str]
    headers: dict[str, str]
    body: bytes


def ask_us(data: bytes) -> tuple[list[Heard], bytes]:
    """Return the requests that our server found in what a client sent before it left, and its answers."""
    heard = []

    def handle(request, response):
        try:
            body = request.body.read(LIMIT)
        except Refusal as refusal:
            response.close = True
            response.send_text(refusal.text, refusal.status)
            return
        target = (request.path, request.query_string)
        heard.append(Heard(request.method, target, joined(request.headers.items()), body))
        response.send()

    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        connection = Connection(open_stream(ours, 5), "local", Limits())
        connection.serve(handle)
        connection.close()
        with theirs.makefile("rb") as answers:
            return heard, answers.read()


def ask_h11(data: bytes) -> tuple[list[Heard], str]:
    """Return the requests that h11 finds there, and why it finds no more: where it was, and what it says."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1024**2)
    connection.receive_data(data)
    connection.receive_data(b"")
    heard = []
    try:
        while True:
            place = "head"
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                return heard, "the end"
            place = "body"
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
            target = head.split_target(request.target.decode())
            heard.append(Heard(request.method.decode(), target, joined(request.headers), body))
            connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                return heard, f"HTTP/{request.http_version.decode()}: it wants to close"
            connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return heard, f"{place}: {error}"


def joined(fields) -> dict[str, str]:
    """Return header fields, those of one name joined by commas; without those that framed the body."""
    result: dict[str, str] = {}
    for name, value in fields:
        name, value = (text if isinstance(text, str) else text.decode("latin-1") for text in (name, value))
        result[name] = f"{result[name]}, {value}" if name in result else value
    # h11 shows what it made of them.
    return {name: value for name, value in result.items() if name not in ("content-length", "transfer-encoding")}


def compare(data: bytes) -> None:
    """Fail unless h11 finds each request that we found, up to where we are more tolerant."""
    ours, answers = ask_us(data)
    theirs, reason = ask_h11(data)
    assert b" 500 " not in answers
    assert answers.startswith(b"HTTP/1.1 ") or not answers
    for index, heard in enumerate(ours):
        if index == len(theirs):
            assert reason.startswith(TOLERATED), f"h11 refuses what we accept: {reason}: {heard}"
            return
        assert heard == theirs[index]


FIELDS = st.sampled_from(
    [
        *(b"Host: a", b"Host: b", b"Content-Length: 5", b"Content-Length: 0", b"content-length: 5, 5", b"a: b", b"A:b"),
        *(b"Content-Length: 05", b"Content-Length: +5", b"Content-Length : 5", b"Content-Length: 5 ", b"a: b\rc: d"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: chunked, chunked"),
        *(b"Transfer-Encoding: identity", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: x\0chunked"),
        *(b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: nbd", b" folded: yes"),
        *(
            b"Expect: 100-continue",
            b"a\xff: b",
            b"b: \xff",
            b"",
            b"Host: a\nContent-Length: 5",
            b"Trailer: Content-Length",
        ),
    ]
)
LINES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"PUT /images/1?flush=y HTTP/1.1", b"HEAD /a%20b HTTP/1.1", b"POST http://a/b HTTP/1.1"),
        *(
            b"PUT / HTTP/1.0",
            b"PUT / HTTP/1.2",
            b"OPTIONS * HTTP/1.1",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"get / http/1.1",
        ),
        *(b"PUT / HTTP/1.1\n", b"", b"CONNECT a:1 HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1"),
    ]
)
BODIES = st.sampled_from(
    [
        *(
            b"",
            b"hello",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"0\r\n\r\n",
            b"5;x=y\r\nhello\r\n0\r\n\r\n",
            b"0\r\na: b\r\n\r\n",
        ),
        *(
            b"5 ;x\r\nhello\r\n0\r\n\r\n",
            b"05\r\nhello\r\n00\r\n\r\n",
            b"5\nhello\n0\n\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
        ),
        *(
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\nhello",
            b"5\r\nhello\r\n0\r\n\n",
            b"5 \r\nhello\r\n0 \r\n\r\n",
        ),
    ]
)
REQUESTS = st.builds(
    lambda line, host, fields, body: b"\r\n".join([line, *([b"Host: a"] if host else []), *fields, b"", b""]) + body,
    LINES,
    st.sampled_from([True, True, True, False]),
    st.lists(FIELDS, max_size=3),
    BODIES,
)


@given(st.lists(REQUESTS, min_size=1, max_size=3).map(b"".join))
def test_requests(data):
    compare(data)


@given(st.lists(REQUESTS, min_size=1, max_size=3).map(b"".join), st.data())
def test_changed_requests(data, choices):
    compare(mutated(data, choices.draw))


@given(st.binary(max_size=200))
def test_any_bytes(data):
    compare(data)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name):
    """What was found before keeps its verdict: the statuses of our answers."""
    data, statuses, count = INPUTS[name]
    _, answers = ask_us(data)
    assert [int(status) for status in re.findall(rb"HTTP/1.1 ([0-9]{3}) ", answers)] == statuses
    assert len(ask_h11(data)[0]) == count
    compare(data)
