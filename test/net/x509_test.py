"""Certificates are read as openssl reads them, and anything else is refused."""

import calendar
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real import certificates

from ovirt_imageio.net import x509


@pytest.fixture(params=["cert_file", "ca_file"])
def cert_file(request):
    return getattr(certificates.certificate(), request.param)


def der(cert_file):
    return x509.first_certificate(Path(cert_file).read_text())


def openssl(*command, data=None):
    return subprocess.run(["openssl", *command], input=data, check=True, stdout=subprocess.PIPE).stdout


def test_first_certificate(cert_file):
    assert der(cert_file) == openssl("x509", "-in", cert_file, "-outform", "der")


def test_public_key(cert_file):
    pem = openssl("x509", "-in", cert_file, "-noout", "-pubkey")
    assert x509.public_key(der(cert_file)) == openssl("pkey", "-pubin", "-outform", "der", data=pem)


def test_not_after(cert_file):
    text = openssl("x509", "-in", cert_file, "-noout", "-enddate").decode().strip().partition("=")[2]
    assert x509.not_after(der(cert_file)) == calendar.timegm(time.strptime(text, "%b %d %H:%M:%S %Y %Z"))


@pytest.mark.parametrize(
    "tag, text, moment",
    [
        (0x17, b"491231235959Z", (2049, 12, 31, 23, 59, 59)),
        (0x17, b"500101000000Z", (1950, 1, 1, 0, 0, 0)),
        (0x18, b"20500101000000Z", (2050, 1, 1, 0, 0, 0)),
        # "No well-defined expiration date", RFC 5280, 4.1.2.5.
        (0x18, b"99991231235959Z", (9999, 12, 31, 23, 59, 59)),
    ],
)
def test_times(tag, text, moment):
    assert x509.not_after(made(tag, text)) == calendar.timegm(moment)


@pytest.mark.parametrize("text", [b"", b"tomorrow", b"201301000000Z", b"2050010100000\xff"])
def test_no_time(text):
    with pytest.raises(ValueError):
        x509.not_after(made(0x18, text))


def made(tag, text):
    """Return as much of a certificate, without a version, as it takes to find its end."""
    serial, signature, issuer = (sequence(b"", kind) for kind in (0x02, 0x30, 0x30))
    validity = sequence(sequence(b"700101000000Z", 0x17) + sequence(text, tag))
    return sequence(sequence(serial + signature + issuer + validity))


def sequence(content, tag=0x30):
    return bytes([tag, len(content)]) + content


@pytest.mark.parametrize(
    "head, size", [(b"\x30\x00", 0), (b"\x30\x7f", 127), (b"\x30\x81\x80", 128), (b"\x30\x82\x01\x00", 256)]
)
def test_element(head, size):
    """From 128 bytes on a length has bytes of its own, and how many comes before them: X.690, 8.1.3."""
    assert x509.element(head + bytes(size), 0) == (len(head), len(head) + size)


def test_cut_certificate(cert_file):
    whole = der(cert_file)
    for length in range(len(whole)):
        for read in (x509.public_key, x509.not_after):
            with pytest.raises(ValueError):
                read(whole[:length])


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nx"])
def test_no_certificate(text):
    with pytest.raises(ValueError):
        x509.first_certificate(text)


@given(st.binary())
def test_any_bytes(data):
    for read in (x509.public_key, x509.not_after):
        try:
            read(data)
        except ValueError:
            continue
