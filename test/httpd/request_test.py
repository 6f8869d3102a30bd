from __future__ import annotations

import pytest

from ovirt_imageio.httpd import head
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
