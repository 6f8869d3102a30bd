"""Pinned certificates: with TLS on a socket and in memory, by every spelling of a fingerprint."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time

import pytest
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.net import tls
from ovirt_imageio.net.pinned import format_fingerprint, parse_fingerprint
from ovirt_imageio.net.plain_socket import PlainSocket
from ovirt_imageio.net.tls_socket import TLSSocket

DIGEST = bytes(range(32))
COLONS = ":".join(f"{number:02X}" for number in range(32))


@pytest.fixture(scope="module")
def made():
    return certificates.self_signed("pinned")


@pytest.fixture(scope="module")
def fingerprint(made):
    with open(made.cert_file) as file:
        return format_fingerprint(ssl.PEM_cert_to_DER_cert(file.read()))


@pytest.mark.parametrize(
    "text",
    [
        COLONS,
        COLONS.lower(),
        DIGEST.hex(),
        f" {DIGEST.hex().upper()}\n",
        f"sha256 Fingerprint={COLONS}",
        f"SHA256:{DIGEST.hex()}",
        f"sha-256:{COLONS}",
    ],
)
def test_spellings(text):
    assert parse_fingerprint(text) == DIGEST


@pytest.mark.parametrize("text", ["", "ab", COLONS[:-3], COLONS + ":00", COLONS.replace("0A", "0G"), f"sha1={COLONS}"])
def test_not_a_fingerprint(text):
    with pytest.raises(errors.InvalidValue, match="64 hexadecimal digits"):
        parse_fingerprint(text)


def test_as_openssl_prints_it():
    assert parse_fingerprint(format_fingerprint(b"data")) == hashlib.sha256(b"data").digest()


@pytest.fixture(params=["socket", "memory"])
def shake(request, made):
    """Return what shakes hands and then says "hello", and what the server got."""
    ours, theirs = socket.socketpair()
    context = tls.ServerContext(made.cert_file, made.key_file)()
    heard = []

    def serve():
        try:
            with context.wrap_socket(ours, server_side=True) as sock:
                heard.append(sock.recv(100))
        except OSError:
            heard.append(b"")

    def connect(client):
        theirs.settimeout(DEADLINE)
        if request.param == "socket":
            with client.wrap_socket(theirs, server_hostname="elsewhere") as sock:
                sock.sendall(b"hello")
        else:
            secure = TLSSocket(PlainSocket(theirs, DEADLINE), client, server_hostname="elsewhere")
            secure.handshake(time.monotonic() + DEADLINE)
            secure.send(b"hello")

    def run(client):
        try:
            connect(client)
        finally:
            theirs.close()
            thread.join(DEADLINE)
        return heard[0]

    thread = threading.Thread(target=serve)
    thread.start()
    yield run, heard
    theirs.close()
    thread.join(DEADLINE)
    ours.close()


def test_the_certificate_is_the_one(shake, fingerprint):
    run, _ = shake
    # Neither the name nor an authority is asked for.
    assert run(tls.client_context(fingerprint=fingerprint)) == b"hello"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_another_certificate(shake, fingerprint, version):
    run, heard = shake
    context = tls.client_context(fingerprint=COLONS)
    context.maximum_version = version
    with pytest.raises(ssl.SSLCertVerificationError) as error:
        run(context)
    assert fingerprint in error.value.verify_message
    # Nothing was said before.
    assert heard == [b""]


def test_pinning_wins_over_insecure(shake):
    run, heard = shake
    with pytest.raises(ssl.SSLCertVerificationError):
        run(tls.client_context(fingerprint=COLONS, insecure=True))
    assert heard == [b""]
