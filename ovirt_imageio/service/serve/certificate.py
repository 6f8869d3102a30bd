"""A certificate of our own making, for those who have none: made once with openssl, kept for the next time.

It is its own authority: whoever has the file, or compares the fingerprint, knows whom he talks to. Knows files and the
openssl program; knows nothing of TLS connections.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ovirt_imageio import errors
from ovirt_imageio.net.pinned import format_fingerprint

__all__ = ["Certificate", "ensure", "fingerprint", "pin", "state_dir"]

DAY = 24 * 3600
# Browsers refuse more than 398 days.
LIFETIME = 365 * DAY
# One that is older is replaced, so that nobody gets one that ends tomorrow.
RENEWED_AFTER = 300 * DAY

# The tag of the version in a certificate: [0].
VERSION_TAG = 0xA0

# A configuration of our own: the one of the system may add what we say here.
OPENSSL_CONFIG = """\
[req]
distinguished_name = name
prompt = no
x509_extensions = extensions
[name]
CN = {name}
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = {alternatives}
"""


class Certificate(NamedTuple):
    """Paths of a certificate and of its key, both PEM."""

    cert_file: str
    key_file: str


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of this user for what we want to find again (XDG base directories)."""
    base = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "ovirt-imageio"


def ensure(directory: Path, names: Sequence[str]) -> Certificate:
    """Return a certificate for a server that is reached by these names; make one if there is none, or it is old.

    Raises errors.InvalidValue, errors.BackendUnavailable.
    """
    # One for each set of names: a machine that gets another name gets another certificate.
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
    home = directory / digest
    found = Certificate(str(home / "cert.pem"), str(home / "key.pem"))
    if is_fresh(found):
        return found
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=directory))
        try:
            make(scratch, names)
            shutil.rmtree(home, ignore_errors=True)
            # Complete, or not there at all: somebody else may do the same now, and theirs is as good.
            with contextlib.suppress(FileExistsError):
                scratch.rename(home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        expected = f"a folder that can be written ({error.strerror}); or give --cert and --key"
        raise errors.InvalidValue("folder for certificates", str(directory), expected) from None
    return found


def is_fresh(certificate: Certificate) -> bool:
    """Tell whether both files are there, and good for a while."""
    try:
        made = min(os.stat(path).st_mtime for path in certificate)
    except OSError:
        return False
    return time.time() - made < RENEWED_AFTER


def make(directory: Path, names: Sequence[str]) -> None:
    """Make cert.pem and key.pem in the directory."""
    config = directory / "openssl.cnf"
    alternatives = ",".join(map(alternative, names))
    # A common name has room for 64 characters; nobody looks at it.
    config.write_text(OPENSSL_CONFIG.format(name=names[0][:64], alternatives=alternatives))
    command = ["openssl", "req", "-x509", "-config", str(config), "-days", str(LIFETIME // DAY), "-sha256", "-nodes"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    hint = "install openssl, or give --cert and --key"
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError as error:
        reason = f"cannot run openssl: {error.strerror}; {hint}"
        raise errors.BackendUnavailable("make a certificate", reason) from None
    if done.returncode != 0:
        raise errors.BackendUnavailable("make a certificate", f"{done.stderr.decode(errors='replace')}; {hint}")


def alternative(name: str) -> str:
    """Return a name as certificates have it."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return f"DNS:{name}"
    return f"IP:{name}"


def fingerprint(cert_file: str) -> str:
    """Return the SHA-256 of the certificate, the way openssl and browsers show it. Raises errors.InvalidValue."""
    return format_fingerprint(read(cert_file))


def pin(cert_file: str) -> str:
    """Return the SHA-256 of the public key, the way `curl --pinnedpubkey` wants it. Raises errors.InvalidValue."""
    der = read(cert_file)
    try:
        key = public_key(der)
    except IndexError:
        raise errors.InvalidValue("certificate", cert_file, "a certificate that is complete") from None
    return "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode()


def read(cert_file: str) -> bytes:
    """Return the first certificate of a PEM file, in DER."""
    try:
        # Only the first one: the chain follows.
        text = Path(cert_file).read_text(encoding="ascii", errors="replace")
        begin, end = text.index("-----BEGIN CERTIFICATE"), text.index("-----END CERTIFICATE-----")
        return ssl.PEM_cert_to_DER_cert(text[begin:end] + "-----END CERTIFICATE-----\n")
    except (OSError, ValueError):
        raise errors.InvalidValue("certificate", cert_file, "a PEM file that can be read") from None


def public_key(der: bytes) -> bytes:
    """Return the subjectPublicKeyInfo of a certificate (RFC 5280, section 4.1). Raises IndexError."""
    # Certificate ::= SEQUENCE { tbsCertificate ::= SEQUENCE { version, serialNumber, signature, issuer, validity,
    # subject, subjectPublicKeyInfo, ... }, ... }; the version has a tag of its own, and the first one has none.
    at, _ = element(der, 0)
    at, _ = element(der, at)
    skipped = 6 if der[at] == VERSION_TAG else 5
    for _ in range(skipped):
        _, at = element(der, at)
    _, end = element(der, at)
    return der[at:end]


def element(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of a DER element begins, and where it ends."""
    length = der[at + 1]
    begin = at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[begin : begin + size], "big")
        begin += size
    if begin + length > len(der):
        raise IndexError("an element ends behind the end")
    return begin, begin + length
