from __future__ import annotations

import pytest

from ovirt_imageio.httpd import cors
from ovirt_imageio.httpd.head import Headers

VERBS = ("OPTIONS", "GET", "PUT")


def answer(policy=None, **fields):
    request = Headers({name.replace("_", "-"): value for name, value in fields.items()})
    return (policy or cors.Policy()).headers(request, VERBS)


def test_no_browser():
    assert answer() == {}
    assert answer(range="bytes=0-1") == {}


def test_simple_request():
    headers = answer(origin="https://engine")
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-max-age"] == "86400"
    assert "access-control-allow-methods" not in headers
    assert "vary" not in headers
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"Content-Range", "ETag", "Content-Disposition", "Accept-Ranges"} <= set(exposed)


def test_preflight():
    headers = answer(origin="https://engine", access_control_request_method="PUT", access_control_request_headers="x")
    assert headers == {
        "access-control-allow-origin": "*",
        "access-control-allow-headers": "*",
        "access-control-allow-methods": "OPTIONS,GET,PUT",
        "access-control-max-age": "86400",
    }


@pytest.mark.parametrize("name", ["access_control_request_method", "access_control_request_headers"])
def test_each_header_is_answered_alone(name):
    headers = answer(**{name: "x"})
    assert headers[name.replace("_", "-").replace("request", "allow").replace("method", "methods").rstrip("s") + "s"]
    assert "access-control-allow-origin" not in headers


def test_list_of_origins():
    policy = cors.Policy(origins=("https://engine", "https://other"), request_headers=("authorization", "content-type"))
    headers = answer(policy, origin="https://engine", access_control_request_headers="authorization")
    assert headers["access-control-allow-origin"] == "https://engine"
    assert headers["access-control-allow-headers"] == "authorization,content-type"
    assert headers["vary"] == "Origin"


def test_origin_not_on_the_list():
    headers = answer(cors.Policy(origins=("https://engine",)), origin="https://evil")
    assert "access-control-allow-origin" not in headers
    assert headers["vary"] == "Origin"
