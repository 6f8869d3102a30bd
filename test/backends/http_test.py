"""The http backend: an image of another daemon behind the interface of every backend."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from backends.contract import Contract, Disk
from fakes.origin import DiskOrigin
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Options, Terms
from ovirt_imageio.backends.http import HttpBackend, look, open_backend
from ovirt_imageio.geometry.extent import DirtyExtent
from ovirt_imageio.origin.image import Description, Image


class OriginDisk(Disk):
    """A disk behind an origin."""

    can_grow = True

    def __init__(self, origin: DiskOrigin) -> None:
        self._origin = origin

    def open(self, *, writable=True, sparse=False):
        return HttpBackend(Image(self._origin.url), writable=writable)

    def content(self):
        return bytes(self._origin.data)

    def fill(self, data):
        self._origin.data[:] = data


class TestContract(Contract):
    @pytest.fixture
    def disk(self):
        with DiskOrigin() as origin:
            yield OriginDisk(origin)


class TestNewContract(Contract):
    """An origin of our own kind: it tells what others do not."""

    @pytest.fixture
    def disk(self):
        with DiskOrigin() as origin:
            origin.options["transfer_id"] = "x"
            yield OriginDisk(origin)


class TestOldContract(Contract):
    """An origin that can only GET and PUT."""

    @pytest.fixture
    def disk(self):
        with DiskOrigin() as origin:
            origin.options = None
            yield OriginDisk(origin)


def test_limits_are_those_of_the_origin():
    with DiskOrigin() as origin, contextlib.closing(HttpBackend(Image(origin.url))) as backend:
        assert (backend.max_readers, backend.max_writers, backend.block_size) == (8, 4, 1)


def test_trace():
    """The origin is told from the first request on of which work it is a part."""
    with DiskOrigin(b"0123456789") as origin:
        with contextlib.closing(open_backend(origin.url, Terms(Options(), traceparent="00-a"))) as backend:
            backend.readinto(0, memoryview(bytearray(1)))
            backend.trace(None)
            backend.readinto(0, memoryview(bytearray(1)))
        shown = [(method, headers.get("traceparent")) for method, _, headers in origin.requests]
    # The first GET is for the extents, which tell the size.
    assert shown == [("OPTIONS", "00-a"), *[("GET", "00-a")] * 2, ("GET", None)]


def test_look():
    with DiskOrigin(b"0123456789") as origin:
        assert look(origin.url, Options()) == Description(10, True, True, None)


def test_dirty_extents_need_a_ticket_for_them():
    with DiskOrigin(bytes(100)) as origin:
        for dirty in (True, False):
            with contextlib.closing(HttpBackend(Image(origin.url), dirty=dirty)) as backend:
                origin.requests.clear()
                if dirty:
                    assert list(backend.extents("dirty")) == [DirtyExtent(0, 100, False, False)]
                else:
                    with pytest.raises(errors.UnsupportedContext):
                        backend.extents("dirty")
                    assert origin.requests == []


@contextlib.contextmanager
def tls_origin():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate().cert_file, certificates.certificate().key_file)
    with DiskOrigin(b"0123456789", context=context) as origin:
        yield origin


def open_with(url, ca_file):
    return open_backend(url, Terms(Options(ca_file=ca_file), writable=True))


def test_options_name_the_authority():
    with tls_origin() as origin:
        with contextlib.closing(open_with(origin.url, certificates.certificate().ca_file)) as backend:
            assert backend.size() == 10
        with pytest.raises(errors.BackendUntrusted, match="certificate"):
            open_with(origin.url, certificates.self_signed("foreign").cert_file)


def test_authority_that_cannot_be_read(tmp_path, caplog):
    """That is a fault here, not one of the client, which learns nothing of files."""
    with pytest.raises(errors.BackendUntrusted, match="cannot be verified") as e:
        open_with("https://127.0.0.1:1/images/x", str(tmp_path / "missing.pem"))
    assert "missing.pem" not in str(e.value)
    assert "missing.pem" in caplog.text


@pytest.mark.parametrize("is_sparse,method", [(False, "PATCH"), (True, "PUT")])
def test_zeroes_that_are_allocated(is_sparse, method):
    """An origin cannot be told to keep the space of zeroes; so a sparse one gets them to write."""
    with DiskOrigin(b"x" * 1000) as origin:
        origin.options["sparse"] = is_sparse
        with contextlib.closing(HttpBackend(Image(origin.url))) as backend:
            backend.zero_allocated(10, 500)
            backend.zero_allocated(10, 0)
        assert origin.data == b"x" * 10 + bytes(500) + b"x" * 490
        assert [request[0] for request in origin.requests if request[0] != "OPTIONS"] == [method]


def test_closed():
    with DiskOrigin(bytes(100)) as origin:
        origin.extents["zero"] = [{"start": i, "length": 1, "zero": i % 2 == 0} for i in range(100_000)]
        backend = HttpBackend(Image(origin.url))
        extents = backend.extents()
        backend.close()
        backend.close()
        for call in (backend.size, backend.flush, backend.extents):
            with pytest.raises(errors.ClosedBackend):
                call()
        with pytest.raises(errors.BackendUnavailable):
            list(extents)
