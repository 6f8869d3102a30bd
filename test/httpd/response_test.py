from __future__ import annotations

import json
import re

import pytest
from fakes.clock import FakeClock
from fakes.sockets import ScriptedSocket

from ovirt_imageio.httpd import head, response
from ovirt_imageio.httpd.body import open_body
from ovirt_imageio.httpd.peer import Peer
from ovirt_imageio.httpd.refusal import Refusal
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.httpd.stream import open_stream
from ovirt_imageio.measure.clock import Clock
from ovirt_imageio.version import __version__


@pytest.fixture
def sock():
    return ScriptedSocket()


def make(sock, data=b"GET / HTTP/1.1"):
    stream = open_stream(sock, 1)
    parsed = head.parse(data)
    return Response(Request(parsed, open_body(parsed, stream), Peer(stream, "local")), stream)


def lines(sock):
    """Return the lines of the head but server and date, which come first, and the body."""
    first, rest = sock.sent.split(b"\r\n\r\n", 1)
    status, server, date, *others = first.decode().split("\r\n")
    assert server == f"server: imageio/{__version__}"
    assert re.fullmatch(r"date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)
    return [status, *others], rest


def test_send(sock):
    answer = make(sock)
    answer.headers["x-name"] = "\u05e9"
    assert not answer.is_started
    answer.send(206, b"body", "text/css")
    assert answer.is_started
    assert answer.is_complete
    assert answer.status == 206
    assert not answer.close
    answer.finish()
    assert lines(sock) == (
        ["HTTP/1.1 206 Partial Content", "content-length: 4", "content-type: text/css", "x-name: \u05e9"],
        b"body",
    )
    assert len(sock.writes) == 1


@pytest.mark.parametrize("status", [200, 204])
def test_empty_responses_have_a_length(sock, status):
    make(sock).send(status)
    assert lines(sock)[0][1:] == ["content-length: 0"]


def test_text_and_json(sock):
    make(sock).send_text("caf\u00e9", 400)
    assert lines(sock)[0][1:] == ["content-length: 6", "content-type: text/plain; charset=UTF-8"]
    assert sock.sent.endswith("caf\u00e9\n".encode())
    sock.writes.clear()
    make(sock).send_json({"a": "\u05e9"})
    assert lines(sock) == (
        ["HTTP/1.1 200 OK", "content-length: 16", "content-type: application/json"],
        b'{"a": "\\u05e9"}\n',
    )


def test_finish_sends_an_empty_response(sock):
    make(sock).finish()
    assert lines(sock) == (["HTTP/1.1 200 OK", "content-length: 0"], b"")


def test_start_with_length(sock):
    answer = make(sock)
    sink = answer.start(206, 4)
    assert not answer.is_started
    assert not answer.is_complete
    sink.write(memoryview(b"bo"))
    assert answer.is_started
    assert not answer.is_complete
    sink.write(memoryview(b"dy"))
    assert answer.is_complete
    assert lines(sock) == (
        ["HTTP/1.1 206 Partial Content", "content-length: 4", "content-type: application/octet-stream"],
        b"body",
    )
    assert len(sock.writes) == 2


@pytest.mark.parametrize("length", [4, None])
def test_error_before_the_first_byte(sock, length):
    answer = make(sock)
    answer.start(206, length)
    answer.headers.clear()
    answer.send_text("No such disk", 404)
    answer.finish()
    assert lines(sock)[0][:2] == ["HTTP/1.1 404 Not Found", "content-length: 13"]
    assert answer.is_complete


def test_start_without_length(sock):
    answer = make(sock)
    answer.start(content_type="application/json").write(memoryview(b"[]"))
    assert not answer.is_complete
    answer.finish()
    assert answer.is_complete
    assert lines(sock) == (
        ["HTTP/1.1 200 OK", "content-type: application/json", "transfer-encoding: chunked"],
        b"2\r\n[]\r\n0\r\n\r\n",
    )


def test_start_without_length_for_an_old_client(sock):
    answer = make(sock, b"GET / HTTP/1.0\r\nConnection: keep-alive")
    answer.start().write(memoryview(b"[]"))
    answer.finish()
    assert answer.close
    assert lines(sock)[0][-1] == "connection: close"
    assert sock.sent.endswith(b"\r\n\r\n[]")


@pytest.mark.parametrize("use", ["send", "start", "start without length"])
def test_head(sock, use):
    answer = make(sock, b"HEAD / HTTP/1.1")
    assert not answer.has_body
    if use == "send":
        answer.send(200, b"body")
    else:
        answer.start(200, 4 if use == "start" else None).write(memoryview(b"body"))
    answer.finish()
    assert answer.is_complete
    fields, body = lines(sock)
    assert body == b""
    assert ("content-length: 4" in fields) == (use != "start without length")


@pytest.mark.parametrize(
    "request_head, close, field",
    [
        (b"GET / HTTP/1.1", False, None),
        (b"GET / HTTP/1.1\r\nConnection: close", True, "connection: close"),
        (b"GET / HTTP/1.0", True, "connection: close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", False, "connection: keep-alive"),
        (b"PUT / HTTP/1.1\r\nContent-Length: 5", True, "connection: close"),
        (b"PUT / HTTP/1.1\r\nContent-Length: 0", False, None),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked", True, "connection: close"),
    ],
)
def test_keep_alive(sock, request_head, close, field):
    answer = make(sock, request_head)
    answer.send()
    assert answer.close == close
    assert [line for line in lines(sock)[0] if line.startswith("connection")] == ([field] if field else [])


def test_handler_closes(sock):
    answer = make(sock)
    answer.close = True
    answer.send()
    assert "connection: close" in lines(sock)[0]


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\0b"])
def test_no_injection(sock, value):
    answer = make(sock)
    answer.headers["x-name"] = value
    with pytest.raises(ValueError, match="line break"):
        answer.send()
    assert sock.sent == b""
    # So that the error can be sent.
    assert not answer.is_started


def test_http_date():
    assert response.http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert response.http_date(951782400) == "Tue, 29 Feb 2000 00:00:00 GMT"


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_says_when_to_come_back(sock, status):
    answer = make(sock)
    answer.send_text("busy", status)
    assert f"retry-after: {response.RETRY_AFTER}" in lines(sock)[0]


def test_handler_knows_better_when_to_come_back(sock):
    answer = make(sock)
    answer.headers["retry-after"] = "77"
    answer.send_text("busy", 503)
    assert [line for line in lines(sock)[0] if line.startswith("retry-after")] == ["retry-after: 77"]


def test_refusal_is_text(sock):
    make(sock).send_refusal(Refusal(404, "No such thing"))
    assert lines(sock) == (
        ["HTTP/1.1 404 Not Found", "content-length: 14", "content-type: text/plain; charset=UTF-8"],
        b"No such thing\n",
    )


def test_refusal_is_problem_details(sock):
    make(sock, b"GET / HTTP/1.1\r\nAccept: application/problem+json").send_refusal(Refusal(404, "No such thing"))
    (status, _, kind), body = lines(sock)
    assert (status, kind) == ("HTTP/1.1 404 Not Found", "content-type: application/problem+json")
    assert json.loads(body)["detail"] == "No such thing"


def test_refusal_of_head_has_no_body(sock):
    make(sock, b"HEAD / HTTP/1.1\r\nAccept: application/problem+json").send_refusal(Refusal(404, "No such thing"))
    assert lines(sock)[1] == b""


@pytest.mark.parametrize(
    "seconds, timing",
    [
        (0.0123, ["server-timing: dispatch;dur=12.300, write;dur=12.300, write.flush;dur=12.300"]),
        (0.0009, []),
    ],
    ids=["worth telling", "fast"],
)
def test_timing_is_that_of_this_request(sock, seconds, timing):
    now = FakeClock()
    answer = make(sock)
    clock = answer._request.connection.clock = Clock(now)
    with clock.run("zero"):
        now.advance(1)
    clock.start("connection")
    clock.mark()
    with clock.run("dispatch"):
        with clock.run("write"), clock.run("write.flush"):
            now.advance(seconds)
        answer.send()
    assert lines(sock)[0][2:] == timing


def test_what_has_no_parts_has_no_timing(sock):
    answer = make(sock)
    with answer._request.connection.clock.run("dispatch"):
        answer.send()
    assert lines(sock)[0] == ["HTTP/1.1 200 OK", "content-length: 0"]
