from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
import warnings
from pathlib import Path

import pytest
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.net import tls


@pytest.fixture(scope="module")
def made():
    return certificates.certificate()


def shake(server, client, name="localhost"):
    """Shake hands; return the client's socket. Raises what the client raises."""
    ours, theirs = socket.socketpair()
    failures = []

    def serve():
        try:
            with server.wrap_socket(ours, server_side=True) as sock:
                sock.recv(1)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        theirs.settimeout(DEADLINE)
        with client.wrap_socket(theirs, server_hostname=name) as sock:
            return sock.version(), sock.cipher()[0], sock.selected_alpn_protocol()
    finally:
        theirs.close()
        thread.join(DEADLINE)
        ours.close()


def test_trusted(made):
    version, _, protocol = shake(tls.ServerContext(made.cert_file, made.key_file)(), tls.client_context(made.ca_file))
    assert (version, protocol) == ("TLSv1.3", "http/1.1")


def test_not_trusted(made):
    server = tls.ServerContext(made.cert_file, made.key_file)()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, tls.client_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, tls.client_context(made.ca_file), "elsewhere")


def test_insecure(made):
    server = tls.ServerContext(made.cert_file, made.key_file)()
    assert shake(server, tls.client_context(insecure=True), "elsewhere")


def limited(made, version):
    """Return a client that knows only one version, and takes any cipher for it."""
    context = tls.client_context(made.ca_file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        # Not every Python has this warning.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version
        context.maximum_version = version
    return context


def test_tls12_has_forward_secrecy(made):
    server = tls.ServerContext(made.cert_file, made.key_file)()
    version, cipher, _ = shake(server, limited(made, ssl.TLSVersion.TLSv1_2))
    assert version == "TLSv1.2"
    assert "DHE" in cipher
    weak = limited(made, ssl.TLSVersion.TLSv1_2)
    weak.set_ciphers("ECDHE+AES:AES:!AESGCM:!AESCCM")
    with pytest.raises(ssl.SSLError):
        shake(server, weak)


def test_old_versions(made):
    strict = tls.ServerContext(made.cert_file, made.key_file)()
    loose = tls.ServerContext(made.cert_file, made.key_file, enable_tls1_1=True)()
    with pytest.raises(OSError):
        shake(strict, limited(made, ssl.TLSVersion.TLSv1_1))
    version, *_ = shake(loose, limited(made, ssl.TLSVersion.TLSv1_1))
    assert version == "TLSv1.1"
    with pytest.raises(OSError):
        shake(loose, limited(made, ssl.TLSVersion.TLSv1))
    version, *_ = shake(loose, tls.client_context(made.ca_file))
    assert version == "TLSv1.3"


def test_client_certificate(made):
    server = tls.ServerContext(made.cert_file, made.key_file)()
    server.load_verify_locations(made.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    client = tls.client_context(made.ca_file, cert_file=made.cert_file, key_file=made.key_file)
    assert shake(server, client)


def write(path, *sources):
    path.write_text("".join(Path(source).read_text() for source in sources))
    return str(path)


def test_certificate_and_key_in_one_file(made, tmp_path):
    both = write(tmp_path / "both.pem", made.cert_file, made.key_file)
    assert tls.client_context(made.ca_file, cert_file=both)


def test_follow(made, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write(cert, made.cert_file)
    write(key, made.key_file)
    server = tls.ServerContext(str(cert), str(key))
    before = server()
    assert not server.follow()
    assert server() is before
    write(tmp_path / "new", made.cert_file)
    os.replace(tmp_path / "new", cert)
    assert server.follow()
    assert server() is not before
    # Not whole yet: then it is told once, and the next change is tried.
    before = server()
    key.write_text("half")
    with pytest.raises(errors.ConfigError):
        server.follow()
    assert not server.follow()
    assert server() is before
    # While it is replaced, or out of reach, nothing is told.
    key.unlink()
    assert not server.follow()
    write(key, made.key_file)
    assert server.follow()


def test_reload(made, tmp_path):
    cert = tmp_path / "cert.pem"
    key = tmp_path / "key.pem"
    write(cert, made.cert_file)
    write(key, made.key_file)
    server = tls.ServerContext(str(cert), str(key))
    before = server()
    assert server() is before
    server.reload()
    assert server() is not before
    # A bad file changes nothing.
    before, expires = server(), server.expires
    assert expires > time.time()
    key.unlink()
    with pytest.raises(errors.ConfigError):
        server.reload()
    assert server() is before
    assert server.expires == expires


def refused(action, section="tls"):
    with pytest.raises(errors.ConfigError) as info:
        action()
    assert info.value.section == section
    return info.value.name, str(info.value)


def test_missing_files(made, tmp_path):
    missing = str(tmp_path / "missing.pem")
    name, text = refused(lambda: tls.ServerContext(missing, made.key_file))
    assert name == "cert_file"
    assert missing[:60] in text
    assert "no such file" in text
    assert refused(lambda: tls.ServerContext(made.cert_file, missing))[0] == "key_file"
    assert refused(lambda: tls.ServerContext(made.cert_file, str(tmp_path)))[0] == "key_file"
    assert refused(lambda: tls.client_context(missing), "")[0] == "ca_file"
    assert refused(lambda: tls.client_context(made.ca_file, cert_file=missing), "")[0] == "cert_file"


def test_section_that_names_the_files(made):
    """The error names the key that is wrong."""
    refused(lambda: tls.ServerContext("/none", made.key_file, section="other"), "other")
    refused(lambda: tls.client_context("/none", section="other"), "other")
    refused(lambda: tls.client_context(made.ca_file, cert_file="/none", section="other"), "other")
    name, text = refused(lambda: tls.kept_client_context("/none", section="backend_http"), "backend_http")
    assert name == "ca_file"
    assert text.startswith("[backend_http] ca_file = '/none': expected")


def test_key_of_another_certificate(made):
    other = certificates.self_signed("other")
    name, text = refused(lambda: tls.ServerContext(made.cert_file, other.key_file))
    assert name == "key_file"
    assert made.cert_file in text


def test_files_that_are_no_pem(made, tmp_path):
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\0garbage")
    assert refused(lambda: tls.ServerContext(str(garbage), made.key_file))[0] == "cert_file"
    assert refused(lambda: tls.ServerContext(made.cert_file, str(garbage)))[0] == "key_file"
    assert refused(lambda: tls.client_context(str(garbage)), "")[0] == "ca_file"


def test_context_is_kept_until_the_file_changes(made, tmp_path):
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(Path(made.ca_file).read_bytes())
    first = tls.kept_client_context(str(ca_file))
    assert tls.kept_client_context(str(ca_file)) is first
    os.utime(ca_file, (0, 0))
    assert tls.kept_client_context(str(ca_file)) is not first
    ca_file.unlink()
    # Every time: it may be there again.
    for _ in range(2):
        assert refused(lambda: tls.kept_client_context(str(ca_file)), "")[0] == "ca_file"
    assert tls.kept_client_context() is tls.kept_client_context()


def test_damaged_certificate(made, tmp_path):
    damaged = tmp_path / "damaged.pem"
    damaged.write_text(Path(made.cert_file).read_text().replace("M", "!", 1))
    assert refused(lambda: tls.ServerContext(str(damaged), made.key_file))[0] == "cert_file"


def test_a_certificate_that_is_taken_away_while_it_is_loaded(made, tmp_path, monkeypatch):
    """The daemon looks for a new one by itself: that must not end it."""
    monkeypatch.setattr(tls, "check_file", lambda name, path, section: None)
    gone = str(tmp_path / "gone.pem")
    assert refused(lambda: tls.ServerContext(gone, made.key_file))[0] == "cert_file"


def test_key_with_password(made, tmp_path):
    # No password is asked for.
    locked = str(tmp_path / "locked.key")
    subprocess.run(
        ["openssl", "pkey", "-in", made.key_file, "-aes128", "-passout", "pass:secret", "-out", locked],
        check=True,
        capture_output=True,
    )
    name, text = refused(lambda: tls.ServerContext(made.cert_file, locked))
    assert name == "key_file"
    assert "without a password" in text
