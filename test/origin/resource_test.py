"""The requests about an image: how a way to the origin is found, and which answers are refused."""

from __future__ import annotations

import contextlib

import pytest
from fakes import ports
from fakes.origin import TICKET_ID, DiskOrigin, ScriptedOrigin
from fakes.waiting import wait_until
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.net.tls import ServerContext, client_context
from ovirt_imageio.origin.resource import ImageResource
from ovirt_imageio.origin.server import Approach

DIGITS = b"0123456789"


@contextlib.contextmanager
def opened(origin):
    resource = opening(origin.url)
    with contextlib.closing(resource.origin):
        yield resource


def opening(url):
    resource = ImageResource(url, Approach(), Lifeline())
    with contextlib.ExitStack() as stack:
        stack.callback(resource.origin.close)
        resource.negotiate()
        stack.pop_all()
    return resource


def read(resource):
    with resource.get(0, len(DIGITS)) as reply:
        return reply.read(100)


def test_limits_are_those_of_the_origin():
    with DiskOrigin() as origin, opened(origin) as resource:
        assert (resource.abilities.max_readers, resource.abilities.max_writers, resource.abilities.block_size) == (
            8,
            4,
            1,
        )


def test_bad_port():
    with pytest.raises(errors.InvalidValue, match="port"):
        opening("http://127.0.0.1:port/images/x")


def test_no_server_listens():
    with ports.reserved() as port, pytest.raises(errors.BackendUnavailable, match="cannot be reached"):
        opening(f"http://127.0.0.1:{port}/images/x")


@pytest.mark.parametrize("host", ["host.invalid", "x" * 70, "a..b"])
def test_no_such_host(host):
    with pytest.raises(errors.BackendUnavailable, match="cannot be reached"):
        opening(f"http://{host}/images/x")


# --- The same host ---


def test_unix_socket(tmp_path):
    with DiskOrigin(b"0123456789", unix_socket=str(tmp_path / "sock")) as origin, opened(origin) as resource:
        assert origin.methods() == ["OPTIONS", "OPTIONS"]
        tcp, unix = origin.servers
        assert read(resource) == DIGITS
        # No connection is left on TCP, as soon as the thread there notices.
        wait_until(lambda: not tcp.connections)
        origin.drop_connections()
        assert read(resource) == DIGITS
        assert len(unix.connections) == 1
        assert not tcp.connections


def test_a_unix_socket_is_near(tmp_path):
    """However long the handshake took, on the connection before."""
    made = certificates.self_signed("resource")
    tls = ServerContext(made.cert_file, made.key_file)()
    approach = Approach(context=client_context(made.ca_file))
    with DiskOrigin(DIGITS, context=tls, unix_socket=str(tmp_path / "sock")) as origin:
        resource = ImageResource(origin.url, approach, Lifeline())
        with contextlib.closing(resource.origin):
            resource.negotiate()
            assert len(origin.servers[1].connections) == 1
            assert resource.round_trip == 0


def test_unix_socket_that_does_not_answer(tmp_path, caplog):
    with DiskOrigin(b"0123456789") as origin:
        origin.options["unix_socket"] = str(tmp_path / "missing")
        with opened(origin) as resource:
            assert read(resource) == DIGITS
        assert "Unix socket" in caplog.text


def test_unix_socket_of_somebody_else(tmp_path, caplog):
    path = str(tmp_path / "sock")
    with DiskOrigin(b"other", unix_socket=path) as other, DiskOrigin(b"0123456789") as origin:
        other.refusals["OPTIONS", ""] = (403, "No such ticket", {})
        origin.options["unix_socket"] = path
        with opened(origin) as resource:
            assert resource.find_length() == 10
        assert "Cannot use the Unix socket" in caplog.text


def test_unix_socket_that_goes_away(tmp_path, caplog):
    with DiskOrigin(b"0123456789", unix_socket=str(tmp_path / "sock")) as origin, opened(origin) as resource:
        (tmp_path / "sock").unlink()
        origin.drop_connections()
        assert read(resource) == DIGITS
        assert "going on over TCP" in caplog.text


@pytest.mark.parametrize("name", [7, "", None, ["x"]])
def test_nonsense_instead_of_a_unix_socket(name):
    with DiskOrigin(b"0123456789") as origin:
        origin.options["unix_socket"] = name
        with opened(origin) as resource:
            assert resource.find_length() == 10


# --- What the origin answers ---


@pytest.mark.parametrize(
    "method,suffix", [("OPTIONS", ""), ("GET", ""), ("PUT", ""), ("PATCH", ""), ("GET", "/extents")]
)
@pytest.mark.parametrize("status", [400, 403, 416, 500, 503])
def test_refusal_is_quoted(method, suffix, status):
    with DiskOrigin(bytes(100)) as origin:
        origin.options["size"] = 100
        origin.refusals[method, suffix] = (
            status,
            f"No such ticket {TICKET_ID}:\n gone\n",
            {"Content-Range": "bytes */7"},
        )
        with pytest.raises(errors.OriginError) as e, opened(origin) as resource:
            if method == "PUT":
                resource.put(0, memoryview(b"x"))
            elif method == "PATCH":
                resource.flush()
            elif suffix:
                resource.list("zero")
            else:
                resource.get(0, 10)
        assert e.value.status == status
        assert str(e.value) == "No such ticket (ticket): gone"
        assert e.value.content_range == "bytes */7"


def test_refusal_without_words():
    with DiskOrigin(bytes(100)) as origin:
        origin.refusals["OPTIONS", ""] = (403, "", {"Content-Range": "nonsense"})
        with pytest.raises(errors.OriginError, match="status 403") as e:
            opening(origin.url)
        assert e.value.content_range is None


def test_refusal_with_many_words():
    with DiskOrigin(bytes(100)) as origin:
        origin.refusals["OPTIONS", ""] = (403, "ü" * 100_000, {})
        with pytest.raises(errors.OriginError) as e:
            opening(origin.url)
        assert len(str(e.value)) <= 512


@pytest.mark.parametrize("status", [201, 302, 304])
def test_unexpected_status(status):
    with DiskOrigin(bytes(100)) as origin:
        origin.refusals["OPTIONS", ""] = (status, "x" if status != 304 else "", {"Location": "http://elsewhere/"})
        with pytest.raises(errors.StorageError, match="unexpected status"):
            opening(origin.url)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 X\r\nContent-Range: bytes 5-14/*\r\nContent-Encoding: z\r\nContent-Length: 10\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
        b"HTTP/1.1 206 OK\r\nContent-Length: 9\r\n\r\n012345678",
        b"HTTP/1.1 206 OK\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/100\r\n\r\n0123456789",
        b"HTTP/1.1 206 OK\r\nContent-Length: 10\r\nContent-Range: bytes x-y/100\r\n\r\n0123456789",
        b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
        b"HTTP/1.1 206 OK\r\n\r\n0123456789",
    ],
)
def test_another_range_than_asked_for(answer):
    def script(wire):
        wire.options(size=100)
        wire.read_head()
        wire.send(answer)

    with ScriptedOrigin(script) as origin, opened(origin) as resource, pytest.raises(errors.StorageError):
        resource.get(5, 10)


# --- Checksums ---


def test_checksum_is_computed_by_the_origin():
    with DiskOrigin(bytes(100)) as origin, opened(origin) as resource:
        assert resource.checksum("sha1", 4096) == "abc123"
        assert origin.requests[-1][1].endswith("/checksum?algorithm=sha1&block_size=4096")


def test_checksum_with_an_algorithm_that_the_origin_has_not():
    with DiskOrigin(bytes(100)) as origin:
        origin.refusals["GET", "/checksum"] = (400, "no such algorithm", {})
        with opened(origin) as resource:
            assert resource.checksum("sha1", 4096) is None


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"checksum": "%s", "block_size": 4096}', b'{"checksum": "ab"}'])
def test_checksum_that_is_none(answer):
    def script(wire):
        wire.options()
        wire.read_head()
        wire.answer(200, answer)

    with ScriptedOrigin(script) as origin, opened(origin) as resource, pytest.raises(errors.StorageError):
        resource.checksum("sha1", 4096)
