from __future__ import annotations

from types import SimpleNamespace

import pytest

from ovirt_imageio.handlers.browser import refuse_pages
from ovirt_imageio.httpd.refusal import Refusal


def request(client="127.0.0.1", **headers):
    return SimpleNamespace(connection=SimpleNamespace(client=client), headers=headers)


GOOD = ["localhost", "localhost:54324", "LocalHost.", "127.0.0.1:54324", "127.1.2.3", "[::1]", "[::1]:54324", ""]
BAD = [
    *("rebind.example.com", "rebind.example.com:54324", "localhost.example.com", "192.0.2.1", "[2001:db8::1]:54324"),
    *("[::1", "::1", "localhost:x", "localhost, evil", "127.0.0.1.nip.io", "user@localhost", "2130706433"),
]


@pytest.mark.parametrize("host", GOOD)
def test_clients_of_this_host(host):
    refuse_pages(request(host=host))


def test_client_that_tells_no_host():
    refuse_pages(request())


@pytest.mark.parametrize("host", BAD)
def test_names_that_others_give(host):
    with pytest.raises(Refusal, match="use the name localhost") as info:
        refuse_pages(request(host=host))
    assert info.value.status == 403


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://localhost:54324", ""])
def test_pages(origin):
    with pytest.raises(Refusal, match="Pages of a browser"):
        refuse_pages(request(host="localhost", origin=origin))


def test_unix_socket():
    refuse_pages(request(client="local", host="/run/sock", origin="x"))
