"""Reaching an image: which URL, and what is tried again."""

from __future__ import annotations

import ssl

import pytest
from fakes import ports
from fakes.origin import DiskOrigin, ScriptedOrigin
from fakes.waiting import wait_until
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.client.copy import pace
from ovirt_imageio.client.remote import Remote, plain_url


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(pace, "BACKOFF", 0.001)


@pytest.fixture
def nobody():
    """The URL of a server that does not run."""
    with ports.reserved() as port:
        yield f"http://127.0.0.1:{port}/images/x"


def test_query_is_dropped():
    assert plain_url("https://host:1/images/x?a=b#c") == "https://host:1/images/x"


def test_no_url():
    with pytest.raises(errors.InvalidValue):
        plain_url("https://[::1/images/x")
    with pytest.raises(errors.InvalidValue):
        Remote("file:///etc/passwd", None).connect()


def test_proxy_is_never_asked_when_the_server_answers():
    with DiskOrigin(b"a") as server, DiskOrigin(b"bb") as proxy:
        remote = Remote(server.url, None, proxy_url=proxy.url)
        first, second = remote.connect(), remote.open()
        assert (first.size(), second.size()) == (1, 1)
        assert proxy.requests == []
        first.close()
        second.close()


def test_proxy_is_asked_when_nobody_answers(nobody):
    with DiskOrigin(b"bb") as proxy:
        remote = Remote(nobody, None, proxy_url=proxy.url)
        first, second = remote.connect(), remote.open()
        assert (first.size(), second.size()) == (2, 2)
        first.close()
        second.close()


def test_nobody_answers_anywhere(nobody):
    with pytest.raises(errors.BackendUnavailable, match="reached"):
        Remote(nobody, None, proxy_url=nobody, retries=2).connect()


def test_refusal_is_final():
    with DiskOrigin(b"a") as server, DiskOrigin(b"b") as proxy:
        server.refusals[("OPTIONS", "")] = (403, "No such ticket", {})
        with pytest.raises(errors.OriginError):
            Remote(server.url, None, proxy_url=proxy.url, retries=5).connect()
        assert len(server.requests) == 1
        assert proxy.requests == []


def test_busy_server_is_asked_again():
    def busy(wire) -> None:
        wire.read_head()
        wire.answer(503, b"Later", "Connection: close\r\n")

    def lost(wire) -> None:
        wire.read_head()
        wire.reset()

    def good(wire) -> None:
        wire.options(size=7)

    with ScriptedOrigin(busy, lost, good) as server:
        image = Remote(server.url, None, retries=2).connect()
        assert image.size() == 7
        image.close()


def test_spare_connection_is_used_first():
    with DiskOrigin(b"a") as server:
        remote = Remote(server.url, None)
        first = remote.connect()
        remote.spare(first)
        second = remote.open()
        assert second is first
        remote.spare(second)
        remote.close()
        wait_until(lambda: not server.servers[0].connections)


def test_list_goes_on_where_it_was_lost():
    def head(wire) -> None:
        wire.options(size=30)
        wire.read_head()
        wire.send(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n")
        wire.send(b'[{"start": 0, "length": 10, "zero": false}, {"start": 10, "length": 10, "zero": true},')

    def rest(wire) -> None:
        assert "offset=" in wire.read_head()
        wire.answer(
            200,
            b'[{"start": 0, "length": 10, "zero": false}, {"start": 10, "length": 10, "zero": true},'
            b' {"start": 20, "length": 10, "zero": false}]',
        )

    with ScriptedOrigin(head, rest) as server:
        remote = Remote(server.url, None)
        image = remote.connect()
        found = list(remote.extents(image, "zero", retries=1))
        image.close()
    assert [(extent.start, extent.zero) for extent in found] == [(0, False), (10, True), (20, False)]


def test_cafile_that_is_missing():
    with pytest.raises(errors.InvalidValue, match="cafile"):
        Remote("https://localhost:1/images/x", "/no/such/file")


def test_server_that_cannot_be_trusted_never_means_the_proxy():
    made = certificates.certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert_file, made.key_file)
    stranger = certificates.self_signed("stranger").cert_file
    with DiskOrigin(b"a", context=context) as server, DiskOrigin(b"b") as proxy:
        with pytest.raises(errors.BackendUnavailable, match="certificate"):
            Remote(server.url, stranger, proxy_url=proxy.url, retries=3).connect()
        assert proxy.requests == []
        trusting = Remote(server.url, stranger, secure=False).connect()
        trusting.close()
        image = Remote(server.url, made.ca_file).connect()
        image.close()
