"""Reaching an image: which URL, and what is tried again."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from bench.relay import Distance, relayed
from fakes import ports
from fakes.origin import DiskOrigin, ScriptedOrigin
from fakes.waiting import wait_until
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.client.copy import pace
from ovirt_imageio.client.copy.reach import NEAR, reach
from ovirt_imageio.client.remote import Remote, address, plain_url
from ovirt_imageio.net.pinned import format_fingerprint
from ovirt_imageio.net.tls import ServerContext


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
    assert plain_url("https://::1:1/images/x?a=b#c") == "https://[::1]:1/images/x"


def test_no_url():
    with pytest.raises(errors.InvalidValue) as error:
        plain_url("https://[::1/images/secret")
    assert "secret" not in str(error.value)
    with pytest.raises(errors.InvalidValue):
        Remote("file:///etc/passwd", None).connect()


def test_a_server_that_is_near_is_asked_on_each_connection():
    with DiskOrigin(b"a") as server:
        remote = Remote(server.url, None)
        with contextlib.closing(remote.connect()), contextlib.closing(remote.open()):
            assert remote.reach == NEAR
            assert server.methods() == ["OPTIONS", "OPTIONS"]


def test_a_server_that_is_far_is_asked_once():
    """It is behind a relay, which the kernel takes for the server."""
    made = certificates.self_signed("client")
    context = ServerContext(made.cert_file, made.key_file)()
    with DiskOrigin(b"a", context=context) as server, relayed(server.port, Distance(0.1)) as far:
        server.options["transfer_id"] = "x"
        remote = Remote(server.url.replace(f":{server.port}/", f":{far}/"), made.ca_file)
        with contextlib.closing(remote.connect()) as first, contextlib.closing(remote.open()) as second:
            assert first.round_trip >= 0.1
            assert remote.reach == reach(first.round_trip) != NEAR
            assert server.methods() == ["OPTIONS"]
            assert (first.size(), second.size()) == (1, 1)


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
    place = nobody.split("/")[2]
    with pytest.raises(
        errors.BackendUnavailable, match=f"^Cannot open the image: {place} cannot be reached: Connection"
    ):
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


def test_a_server_that_is_far_gets_connections_ahead():
    with DiskOrigin(b"a") as server:
        remote = Remote(server.url, None)
        with contextlib.closing(remote.connect()) as first:
            remote.reach = reach(0.1)
            remote.prepare(2)
            wait_until(lambda: len(server.servers[0].connections) == 3)
            others = [remote.open() for _ in range(3)]
            assert len({first, *others}) == 4
            # One more than there were ahead.
            assert len(server.servers[0].connections) == 4
            for image in others:
                image.close()
        remote.close()


def test_connections_ahead_that_nobody_needs_are_closed():
    with DiskOrigin(b"a") as server:
        remote = Remote(server.url, None)
        with contextlib.closing(remote.connect()):
            remote.reach = reach(0.1)
            remote.prepare(2)
            wait_until(lambda: len(server.servers[0].connections) == 3)
            remote.close()
            wait_until(lambda: len(server.servers[0].connections) == 1)


def test_a_server_that_is_near_gets_no_connections_ahead():
    with DiskOrigin(b"a") as server:
        remote = Remote(server.url, None)
        with contextlib.closing(remote.connect()):
            remote.prepare(2)
            with contextlib.closing(remote.open()):
                assert len(server.servers[0].connections) == 2
        remote.close()


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


@pytest.fixture
def pinned():
    """Yield a server whose certificate no authority signed, and the fingerprint of that."""
    made = certificates.self_signed("client")
    with open(made.cert_file) as file:
        fingerprint = format_fingerprint(ssl.PEM_cert_to_DER_cert(file.read()))
    with DiskOrigin(b"a", context=ServerContext(made.cert_file, made.key_file)()) as server:
        yield server, fingerprint


def test_fingerprint(pinned):
    server, fingerprint = pinned
    for text in (fingerprint, fingerprint.replace(":", "").lower()):
        with contextlib.closing(Remote(server.url, None, fingerprint=text).connect()) as image:
            assert image.size() == 1


def test_another_fingerprint(pinned):
    server, fingerprint = pinned
    with pytest.raises(errors.BackendUntrusted) as error:
        Remote(server.url, None, fingerprint="00" * 32, retries=5).connect()
    place = server.url.split("/")[2]
    assert f"the certificate of {place} cannot be trusted: its SHA-256 fingerprint is {fingerprint}" in str(error.value)
    assert server.requests == []


@pytest.mark.parametrize("beside", [{"cafile": "/ca.pem"}, {"secure": False}])
def test_fingerprint_is_enough(beside):
    with pytest.raises(ValueError, match="neither a cafile nor secure=False"):
        Remote("https://h/images/x", **{"cafile": None, "fingerprint": "00" * 32, **beside})


def test_bad_fingerprint():
    with pytest.raises(errors.InvalidValue, match="Invalid fingerprint 'ab': expected the SHA-256"):
        Remote("https://h/images/x", None, fingerprint="ab")


@pytest.mark.parametrize(
    ("url", "text"), [("https://h/x", "h:443"), ("http://[::1]/x", "[::1]:80"), ("https://h:1/x", "h:1")]
)
def test_address(url, text):
    assert address(url) == text


def test_an_empty_url():
    """A variable of a script that is not set is told, not taken for a proxy."""
    with pytest.raises(errors.InvalidValue, match="expected https://HOST"):
        Remote("", None, proxy_url="https://localhost:1/images/x")
