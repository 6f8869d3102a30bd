"""/info with and without its slash."""

from __future__ import annotations

import pytest
from fakes.imageserver import ImageServer

from ovirt_imageio.version import __version__


@pytest.mark.parametrize("path", ["/info", "/info/"])
def test_the_version(tmp_path, path):
    with ImageServer(tmp_path) as server:
        answer = server.request("GET", path, {"Origin": "https://engine"})
    assert (answer.status, answer.json()) == (200, {"version": __version__})
    assert answer.headers["server"] == f"imageio/{__version__}"
    assert answer.headers["access-control-allow-origin"] == "*"


def test_a_preflight(tmp_path):
    with ImageServer(tmp_path) as server:
        answer = server.request(
            "OPTIONS", "/info/", {"Origin": "https://engine", "Access-Control-Request-Method": "GET"}
        )
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
