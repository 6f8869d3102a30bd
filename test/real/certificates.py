"""A certificate authority and certificates that it signed, made with openssl, once for a test session."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass

__all__ = ["Certificate", "authority", "certificate", "self_signed"]

SERVER_NAMES = "DNS:localhost,IP:127.0.0.1,IP:::1"


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate: its own, its key, and the authority that signed it."""

    cert_file: str
    key_file: str
    ca_file: str


@functools.cache
def authority() -> Certificate:
    """Return the authority that signs all certificates of the session."""
    return self_signed("ca", "imageio test authority")


@functools.cache
def certificate(name: str = "server", names: str = SERVER_NAMES) -> Certificate:
    """Return a certificate for the alternative names, localhost by default; one per name and session."""
    ca = authority()
    made = _files(name)
    with open(_path(f"{name}.ext"), "w") as extensions:
        extensions.write(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        # Python 3.13 verifies as strictly as OpenSSL can.
        extensions.write("subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
    request = _path(f"{name}.csr")
    _openssl("req", *_NEW_KEY, "-keyout", made.key_file, "-out", request, "-subj", f"/CN={name}")
    _openssl(
        *("x509", "-req", "-in", request, "-CA", ca.cert_file, "-CAkey", ca.key_file, "-CAcreateserial"),
        *("-days", "2", "-sha256", "-extfile", extensions.name, "-out", made.cert_file),
    )
    return Certificate(made.cert_file, made.key_file, ca.cert_file)


@functools.cache
def self_signed(name: str, subject: str = "localhost") -> Certificate:
    """Return a certificate that signs itself; one per name and session."""
    made = _files(name)
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", made.key_file, "-out", made.cert_file),
        *("-subj", f"/CN={subject}", "-addext", f"subjectAltName={SERVER_NAMES}", "-days", "2"),
        *("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
    )
    return made


# An elliptic curve key is made in no time.
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    # Removed when the interpreter exits.
    return tempfile.TemporaryDirectory(prefix="imageio-certificates-")


def _path(name: str) -> str:
    return os.path.join(_folder().name, name)


def _files(name: str) -> Certificate:
    return Certificate(_path(f"{name}.pem"), _path(f"{name}.key"), _path(f"{name}.pem"))


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
