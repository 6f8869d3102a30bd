"""/view: the page as it is, and what a browser may do with it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.handlers.view import View, policy
from ovirt_imageio.httpd.cors import Policy
from ovirt_imageio.httpd.listener import TcpAddress
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.httpd.server import Server

STYLE = b"p { color: red }"
SCRIPT = b"\nlet x = '<b>';\n"
PAGE = b"<!doctype html><style>" + STYLE + b"</style>\n<script>" + SCRIPT + b"</script>"


def hash_of(text: bytes) -> str:
    return base64.b64encode(hashlib.sha256(text).digest()).decode()


def test_the_policy_allows_what_the_page_holds_and_nothing_else():
    directives = dict(part.split(" ", 1) for part in policy(PAGE).split("; "))
    assert directives == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hash_of(SCRIPT)}'",
        "style-src": f"'sha256-{hash_of(STYLE)}'",
        "connect-src": "'self'",
        "img-src": "data:",
        "worker-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize("page", [PAGE + PAGE, b"<style></style>"])
def test_one_script_and_one_style(page):
    with pytest.raises(ValueError):
        policy(page)


def test_get():
    application = Application([("/view", View(PAGE))], cors=Policy())
    server = Server(TcpAddress("localhost", 0), application)
    server.start()
    try:
        connection = http.client.HTTPConnection("localhost", server.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request("GET", "/view", headers={"Origin": "https://elsewhere"})
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, PAGE)
    finally:
        server.stop()
    assert response.headers["content-type"] == "text/html; charset=UTF-8"
    assert response.headers["content-security-policy"] == policy(PAGE)
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"
    # No page of another origin reads it.
    assert "access-control-allow-origin" not in response.headers
