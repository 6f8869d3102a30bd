"""A certificate of our own making: made once, good for every name, verified by its own file."""

import base64
import hashlib
import os
import ssl
import subprocess
import time

import pytest
from real import certificates

from ovirt_imageio import errors, units
from ovirt_imageio.net.tls import ServerContext
from ovirt_imageio.service.serve import certificate

NAMES = ["disks.example.com", "localhost", "127.0.0.1", "::1"]


def test_made_once(tmp_path):
    first = certificate.ensure(tmp_path, NAMES)
    assert certificate.ensure(tmp_path, NAMES) == first
    assert len(list(tmp_path.iterdir())) == 1


def test_one_for_each_set_of_names(tmp_path):
    assert certificate.ensure(tmp_path, NAMES) != certificate.ensure(tmp_path, ["other.example.com"])
    assert certificate.ensure(tmp_path, NAMES) == certificate.ensure(tmp_path, NAMES[::-1])


def test_key_is_private(tmp_path):
    made = certificate.ensure(tmp_path / "state", NAMES)
    assert os.stat(made.key_file).st_mode & 0o077 == 0
    assert os.stat(os.path.dirname(made.key_file)).st_mode & 0o077 == 0


@pytest.mark.parametrize("age", [certificate.RENEWED_AFTER + 1, -units.DAY], ids=["old", "not valid yet"])
def test_replaced(tmp_path, age):
    """One that is older than we like, or that was made before the clock was set back by a day."""
    made = certificate.ensure(tmp_path, NAMES)
    before = certificate.fingerprint(made.cert_file)
    moment = time.time() - age
    os.utime(made.cert_file, (moment, moment))
    assert certificate.ensure(tmp_path, NAMES) == made
    assert certificate.fingerprint(made.cert_file) != before


@pytest.mark.parametrize("broken", ["cert_file", "key_file"])
def test_broken_one_is_replaced(tmp_path, broken):
    """The power may fail before what was written is on the disk."""
    made = certificate.ensure(tmp_path, NAMES)
    open(getattr(made, broken), "w").close()
    assert certificate.ensure(tmp_path, NAMES) == made
    ServerContext(*made)


@pytest.mark.parametrize("name", NAMES)
def test_handshake(tmp_path, name):
    """A client that trusts the file, as strictly as OpenSSL can be, accepts it for every name."""
    made = certificate.ensure(tmp_path, NAMES)
    trusting = ssl.create_default_context(cafile=made.cert_file)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ServerContext(*made)().wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.getpeercert()["subjectAltName"]


def test_fingerprint(tmp_path):
    made = certificate.ensure(tmp_path, NAMES)
    command = ["openssl", "x509", "-in", made.cert_file, "-noout", "-fingerprint", "-sha256"]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert shown.strip().rpartition("=")[2] == certificate.fingerprint(made.cert_file)


def test_pin(tmp_path):
    for made in (certificate.ensure(tmp_path, NAMES), certificates.certificate()):
        command = f"openssl x509 -in {made.cert_file} -noout -pubkey | openssl pkey -pubin -outform der"
        key = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE).stdout
        expected = base64.b64encode(hashlib.sha256(key).digest()).decode()
        assert certificate.pin(made.cert_file) == f"sha256//{expected}"


def test_no_pin(tmp_path):
    made = certificate.ensure(tmp_path, NAMES)
    path = tmp_path / "cut.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(certificate.read(made.cert_file)[:100]))
    with pytest.raises(errors.InvalidValue, match="a certificate that is complete"):
        certificate.pin(str(path))


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_no_fingerprint(tmp_path, content):
    path = tmp_path / "cert.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.InvalidValue, match="a PEM file that can be read"):
        certificate.fingerprint(str(path))


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.InvalidValue, match="or give --cert and --key"):
        certificate.ensure(tmp_path / "file" / "certificates", NAMES)


def test_no_openssl(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(errors.BackendUnavailable, match=r"cannot run openssl: No such file.*; install openssl, or"):
        certificate.ensure(tmp_path, NAMES)
    assert list(tmp_path.iterdir()) == []


def test_name_that_openssl_refuses(tmp_path):
    with pytest.raises(errors.BackendUnavailable, match="make a certificate"):
        certificate.ensure(tmp_path, ["a name, with everything:"])


def test_state_dir():
    assert str(certificate.state_dir({"XDG_STATE_HOME": "/state"})) == "/state/ovirt-imageio"
    assert str(certificate.state_dir({})).endswith("/.local/state/ovirt-imageio")
