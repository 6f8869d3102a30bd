"""A certificate of our own making, for users that have none: made once with openssl, kept for the next time.

It is its own authority: a client that has the file, or compares the fingerprint, knows that it talks to us. Knows
files and the openssl program; knows nothing of TLS connections.
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

from ovirt_imageio import errors, units
from ovirt_imageio.net import x509
from ovirt_imageio.net.pinned import format_fingerprint

__all__ = ["Certificate", "ensure", "fingerprint", "pin", "state_dir"]

# Browsers refuse more than 398 days.
LIFETIME = 365 * units.DAY
# One that is older is replaced, so that no client gets one that ends tomorrow.
RENEWED_AFTER = 300 * units.DAY

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
            # Complete, or not there at all: another process may do the same now, and its certificate is as good.
            with contextlib.suppress(FileExistsError):
                scratch.rename(home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        expected = f"a folder that can be written ({error.strerror}); or give --cert and --key"
        raise errors.InvalidValue("folder for certificates", str(directory), expected) from None
    return found


def is_fresh(certificate: Certificate) -> bool:
    """Tell whether both files are there, whole, and good for long enough to serve."""
    try:
        made = [os.stat(path).st_mtime for path in certificate]
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*certificate)
    except OSError:
        # Also when the power failed while they were written.
        return False
    now = time.time()
    # One of the future is not valid yet: the clock was set back since it was made.
    return now - RENEWED_AFTER < min(made) and max(made) <= now


def make(directory: Path, names: Sequence[str]) -> None:
    """Make cert.pem and key.pem in the directory."""
    config = directory / "openssl.cnf"
    alternatives = ",".join(map(alternative, names))
    # A common name has room for 64 characters; clients do not look at it.
    config.write_text(OPENSSL_CONFIG.format(name=names[0][:64], alternatives=alternatives))
    command = [
        "openssl",
        "req",
        "-x509",
        "-config",
        str(config),
        "-days",
        str(LIFETIME // units.DAY),
        "-sha256",
        "-nodes",
    ]
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
    try:
        key = x509.public_key(read(cert_file))
    except ValueError:
        raise errors.InvalidValue("certificate", cert_file, "a certificate that is complete") from None
    return "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode()


def read(cert_file: str) -> bytes:
    """Return the first certificate of a PEM file, in DER."""
    try:
        return x509.first_certificate(Path(cert_file).read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        raise errors.InvalidValue("certificate", cert_file, "a PEM file that can be read") from None
