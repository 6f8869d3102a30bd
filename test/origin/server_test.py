"""Which servers are trusted, and how long we wait for them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading

import pytest
from backends.contract import MIB, Bytes, Collector, Progress, pattern
from fakes import silent
from fakes.origin import DiskOrigin, ScriptedOrigin
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.net import tls
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.origin.image import Image
from ovirt_imageio.origin.server import Approach, Origin


def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    return context


def good():
    return certificates.certificate()


def foreign():
    return certificates.self_signed("foreign")


def misnamed():
    return certificates.certificate("misnamed", "DNS:elsewhere.example")


@contextlib.contextmanager
def tls_origin(certificate, data=b"0123456789"):
    with DiskOrigin(data, context=server_context(certificate)) as origin:
        yield origin


def trusting():
    return tls.client_context(good().ca_file)


def test_trusted():
    with tls_origin(good()) as origin, contextlib.closing(Image(origin.url, Approach(context=trusting()))) as image:
        assert image.size() == 10


def test_the_kernel_takes_little_before_it_may_be_sent():
    """On connections that are there, and on later ones."""

    def limit(peer):
        return peer.stream.wire.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)

    with DiskOrigin(b"a") as server, contextlib.closing(Image(server.url)) as image:
        origin = image.resource.origin
        image.limit_unsent(100_000)
        for _ in range(2):
            peer = origin.acquire("test")
            assert limit(peer) == 100_000
            origin.release(peer, False)


def test_a_unix_socket_knows_no_limit(tmp_path):
    with (
        socket.socket(socket.AF_UNIX) as listener,
        contextlib.closing(Origin("http://localhost/images/x", Approach(), Lifeline())) as origin,
    ):
        path = str(tmp_path / "socket")
        listener.bind(path)
        listener.listen()
        origin.use_unix_socket(path)
        origin.limit_unsent(100_000)
        origin.ready("test")


@pytest.mark.parametrize("certificate", [foreign, misnamed])
def test_untrusted(certificate):
    with tls_origin(certificate()) as origin:
        with pytest.raises(errors.BackendUntrusted, match="certificate"):
            Image(origin.url, Approach(context=trusting()))
        # It did not even learn what was wanted.
        assert origin.requests == []


def test_untrusted_without_a_context():
    with tls_origin(good()) as origin:
        with pytest.raises(errors.BackendUntrusted, match="certificate"):
            Image(origin.url)
        assert origin.requests == []


def test_certificate_that_was_replaced_while_we_were_connected():
    """Every new connection verifies again."""
    context = server_context(good())
    with (
        DiskOrigin(b"0123456789", context=context) as origin,
        contextlib.closing(Image(origin.url, Approach(context=trusting()))) as image,
    ):
        context.load_cert_chain(foreign().cert_file, foreign().key_file)
        origin.drop_connections()
        with pytest.raises(errors.BackendUntrusted, match="certificate"):
            image.readinto(0, memoryview(bytearray(5)))


def test_plain_server_where_tls_is_expected():
    with DiskOrigin(b"0123456789") as origin, pytest.raises(errors.BackendUntrusted, match="does not speak TLS"):
        Image(origin.url.replace("http:", "https:"), Approach(context=trusting()))


def test_tls_server_where_plain_is_expected():
    with tls_origin(good()) as origin, pytest.raises(errors.BackendUnavailable):
        Image(origin.url.replace("https:", "http:"), Approach(read_timeout=DEADLINE))


def test_handshake_that_stalls():
    with ScriptedOrigin(lambda wire: wire.stall()) as origin, pytest.raises(errors.BackendTimeout):
        Image(origin.url.replace("http:", "https:"), Approach(context=trusting(), connect_timeout=0.1))


def test_answer_that_stalls():
    with ScriptedOrigin(lambda wire: wire.stall()) as origin, pytest.raises(errors.BackendTimeout):
        Image(origin.url, Approach(read_timeout=0.1))


def test_streams_over_tls():
    data = pattern(3 * MIB)
    with (
        tls_origin(good(), bytes(4 * MIB)) as origin,
        contextlib.closing(Image(origin.url, Approach(context=trusting()))) as image,
    ):
        image.receive_from(Bytes(data), 5, len(data), Progress())
        sink = Collector()
        image.send_to(sink, 5, len(data), Progress())
        assert sink.data == data
        assert origin.data[5 : 5 + len(data)] == data


@pytest.mark.parametrize("available", [MIB, MIB + 5000])
def test_short_upload_over_tls_is_written_as_far_as_it_came(available):
    data = pattern(available)
    with (
        tls_origin(good(), bytes(4 * MIB)) as origin,
        contextlib.closing(Image(origin.url, Approach(context=trusting()))) as image,
    ):
        progress = Progress()
        with pytest.raises(errors.PartialContent):
            image.receive_from(Bytes(data), 0, 3 * MIB, progress)
        assert origin.data[:available] == data
        assert progress.total == available


def test_interrupted_before_it_is_used():
    with DiskOrigin(b"0123456789") as server:
        origin = Origin(server.url, Approach(), Lifeline())
        origin.interrupt()
        with pytest.raises(errors.OperationCanceled):
            origin.request("open", "OPTIONS")
        origin.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("is_full", [False, True], ids=["no answer", "no connection"])
@pytest.mark.parametrize("through_tunnel", [False, True], ids=["direct", "tunnel"])
def test_interrupted_while_it_opens(scheme, is_full, through_tunnel):
    """Nothing can interrupt an image that is being opened, but for the line that it was given."""
    line = Lifeline()
    with silent.tcp(is_full=is_full) as server:
        thread = threading.Thread(target=lambda: (server.wait_for_client(), line.cut()))
        thread.start()
        tunnel = server.address if through_tunnel else None
        url = f"{scheme}://127.0.0.1:{server.port}/images/x"
        with pytest.raises(errors.OperationCanceled):
            Image(
                f"{scheme}://127.0.0.1:{server.port}/images/x", Approach(context=trusting(), tunnel=tunnel), line=line
            )
        thread.join()
        with pytest.raises(OSError):
            Image(url, Approach(context=trusting()), line=line)


def test_interrupted_while_it_connects_again():
    """Neither does it try another way then."""
    with (
        DiskOrigin(b"0123456789") as first,
        contextlib.closing(Image(first.url, Approach(context=trusting()))) as image,
        tempfile.TemporaryDirectory() as folder,
        silent.unix(f"{folder}/sock", is_full=True),
    ):
        image.resource.origin.use_unix_socket(f"{folder}/sock")
        thread = threading.Thread(target=image.interrupt)
        thread.start()
        with pytest.raises(errors.OperationCanceled):
            image.flush()
        thread.join()


def test_interrupt_over_tls():
    """The bytes of an interrupted upload never leave in clear text."""
    with (
        tls_origin(good(), bytes(4 * MIB)) as origin,
        contextlib.closing(Image(origin.url, Approach(context=trusting()))) as image,
    ):
        calls = []

        def progress(count):
            calls.append(count)
            if len(calls) == 1:
                thread = threading.Thread(target=image.interrupt)
                thread.start()
                thread.join()

        with pytest.raises(errors.OperationCanceled):
            image.receive_from(Bytes(pattern(3 * MIB)), 0, 3 * MIB, progress)
