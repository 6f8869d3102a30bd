from __future__ import annotations

import pytest

from ovirt_imageio.httpd import head
from ovirt_imageio.httpd.peer import Peer
from ovirt_imageio.httpd.refusal import Refusal
from ovirt_imageio.httpd.request import Request


def make(data: bytes) -> Request:
    return Request(head.parse(data), None, None)


def test_request():
    request = make(b"PUT /images/a%20b?flush=n&flush=y&x HTTP/1.1\r\nContent-Range: bytes 0-1/*")
    assert request.method == "PUT"
    assert request.path == "/images/a b"
    assert request.query == {"flush": "y", "x": ""}
    assert request.query is request.query
    assert request.version == (1, 1)
    assert request.headers.get("content-range") == "bytes 0-1/*"
    assert request.keeps_alive


def test_old_client():
    request = make(b"GET / HTTP/1.0")
    assert request.query == {}
    assert not request.keeps_alive


def test_bad_path():
    with pytest.raises(Refusal):
        make(b"GET /%00 HTTP/1.1")


def test_caller():
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parsed = head.parse(f"GET / HTTP/1.1\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01".encode())
    request = Request(parsed, None, Peer(None, "192.0.2.7"))
    assert request.traceparent == f"00-{trace}-00f067aa0ba902b7-01"
    assert request.caller == f"192.0.2.7 trace={trace}"


def test_caller_with_a_hostile_trace():
    parsed = head.parse(b"GET / HTTP/1.1\r\ntraceparent: 00-transfer=forged")
    request = Request(parsed, None, Peer(None, "192.0.2.7"))
    assert (request.traceparent, request.caller) == (None, "192.0.2.7")
